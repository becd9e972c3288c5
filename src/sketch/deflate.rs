//! Products beside one direction of overwhelming variance.
//!
//! A column of `Y` that holds a thousandth of such a direction has most of its length from it, and so has its column of
//! `Z = X^T Y`, in which what belongs to other directions is then rounded away. The first column of `Q` is the estimate
//! of that direction. So that of the others leaves none of it in `Y`, and `Z` none of `Q`:
//!
//! ```text
//! c  = y_1^T Y / y_1^T y_1      Y' = Y - y_1 c    Q' = Q - q_1 c      c_1 = 0
//! a  = q_1^T Z / q_1^T q_1      Z' = Z - q_1 a    of Z = C Q'
//! ```
//!
//! The host knows `c` and `a`, and computes with `Q` and `Z` in 64 bits; see [`Deflation`](crate::pca::Deflation).

use super::constants::{FIRST, SECOND, TINY};
use super::nodes::Subgraph;

impl Subgraph<'_> {
    /// `Y'` from `Y`, and `Q'` from `Q`.
    pub(super) fn deflated_rows(&mut self, y: &str, deflate: &str) -> String {
        let (ports, first) = (self.ports, format!("{FIRST}_{}", self.plan.columns()));
        let y_1 = self.gathered(y, &first, 2, "y_1");
        let along = self.transposed_product(&y_1, y, "along_y_1");
        let square = self.gathered(&along, &first, 2, "y_1_squared");
        let square = self.node("Add", &[&square, TINY], "y_1_length");
        let share = self.node("Div", &[&along, &square], "share_of_y_1");
        self.node_to("Mul", &[&share, deflate], &ports.deflated_y);
        let part = self.node("MatMul", &[&y_1, &ports.deflated_y], "part_of_y_1");
        let deflated = self.node("Sub", &[y, &part], "deflated_y");

        let q = self.whole_q();
        let q_1 = self.gathered(&q, &first, 2, "q_1");
        let part = self.node("MatMul", &[&q_1, &ports.deflated_y], "part_of_q_1");
        self.node_to("Sub", &[&q, &part], &ports.q);
        deflated
    }

    /// `Z'` from `Z`.
    pub(super) fn deflated_projection(&mut self, z: &str, deflate: &str) {
        let (ports, c) = (self.ports, self.plan.columns());
        let q_1 = self.gathered(&ports.q, &format!("{FIRST}_{c}"), 2, "deflated_q_1");
        let along = self.transposed_product(&q_1, z, "along_q_1");
        let square = self.transposed_product(&q_1, &q_1, "q_1_squared");
        let square = self.node("Add", &[&square, TINY], "q_1_length");
        let share = self.node("Div", &[&along, &square], "share_of_q_1");
        let on = self.gathered(deflate, &format!("{SECOND}_{c}"), 2, "deflates");
        self.node_to("Mul", &[&share, &on], &ports.deflated_z);
        let part = self.node("MatMul", &[&q_1, &ports.deflated_z], "part_of_z_1");
        self.node_to("Sub", &[z, &part], &ports.z);
    }
}

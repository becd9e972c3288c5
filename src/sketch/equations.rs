//! The equations of a subgraph, in the order in which they are computed.

use super::constants::{ALL, AS_COLUMN, AS_ROWS, DIAGONALS, LAST, PIECES_OF_ROWS, STATISTICS};
use super::nodes::Subgraph;
use super::parts::Part;
use crate::dtype::DType;

/// Products with the rows.
pub(super) struct Products {
    pub(super) parts: Vec<Part>,
    /// `Y^T Y` [G, l, l].
    yy: String,
    /// `R^T Y` [G, d, l].
    projection: String,
}

/// What the column of ones brings.
pub(super) struct Sums {
    /// `Y^T 1` [G, l, 1].
    drift: String,
    /// `n` [G, 1, 1].
    rows: String,
    /// `1^T R` [G, 1, d].
    sum: String,
}

impl Subgraph<'_> {
    /// `Q = [Q_previous Z_previous] T`. Returns the row of `T` that is the unit vector of the column of ones.
    ///
    /// One product, because the two halves cancel where a direction has little variance, and the rounding of each would
    /// remain.
    pub(super) fn basis(&mut self) -> String {
        let (ports, c) = (self.ports, self.plan.columns());
        let both = self.concatenated(&[&ports.q_in, &ports.z_in], 2, "w");
        // A GPU reads it from host memory, once; a product would do so again and again.
        let rotation = if self.plan.late {
            self.gathered(&ports.rotation, &format!("{ALL}_{c}"), 1, "rotation_on_device")
        } else {
            ports.rotation.clone()
        };
        let q = self.whole_q();
        self.node_to("MatMul", &[&both, &rotation], &q);
        self.gathered(&rotation, &format!("{LAST}_{c}"), 1, "unit")
    }

    /// The name of `Q` before anything is taken from its columns.
    pub(super) fn whole_q(&self) -> String {
        if self.plan.deflates() { self.graph.name("whole_q") } else { self.ports.q.clone() }
    }

    /// `Y = R Q - 1 (M^T Q - unit)`, whose last column is 1, `R^T Y` and `Y^T Y`. Where the rows are centred, that is
    /// `Y = X Q + 1 unit` of `X = R - 1 M^T`, which takes the place of `R` in all that follows.
    pub(super) fn products(&mut self, unit: &str) -> Products {
        let (ports, in_half) = (self.ports, self.plan.in_half());
        let mut shift = if self.plan.centred {
            self.node("Neg", &[unit], "shift")
        } else {
            let mean = self.node("MatMul", &[&ports.mean_in, &ports.q], "mean_y");
            self.node("Sub", &[&mean, unit], "shift")
        };
        let mut q = self.whole_q();
        if in_half {
            shift = self.cast(&shift, DType::F16, "half_shift");
            q = self.cast(&q, DType::F16, "half_q");
        }
        let parts = self.parts(&q, &shift);
        let mut y = self.all_of(parts.iter().map(|part| part.y.clone()).collect(), 0, "y");
        if in_half {
            y = self.cast(&y, DType::F32, "wide_y");
        }
        let mut yy = self.transposed_product(&y, &y, "yy");
        let projections = parts.iter().map(|part| part.projection.clone()).collect();
        let mut projection = self.all_of(projections, 0, "projection");
        if let Some(scale) = &ports.scale {
            let once = self.node("Div", &[&yy, scale], "yy_scaled_once");
            yy = self.node("Div", &[&once, scale], "true_yy");
            let wide = self.cast(&projection, DType::F32, "wide_projection");
            projection = self.node("Div", &[&wide, scale], "true_projection");
        }
        Products { parts, yy, projection }
    }

    /// `Y^T 1`, n and `1^T R`: the last columns of `Y^T Y` and `R^T Y`.
    pub(super) fn sums(&mut self, products: &Products) -> Sums {
        let last = format!("{LAST}_{}", self.plan.columns());
        let drift = self.gathered(&products.yy, &last, 1, "drift");
        let rows = self.gathered(&drift, &last, 2, "row_count");
        let sum = self.gathered(&products.projection, &last, 2, "row_sum");
        let sum = self.transposed(&sum, "sum");
        Sums { drift, rows, sum }
    }

    /// `M' = (N M + R^T 1) / (N + n)`, and the mean that `Z` is measured about: `M'`, or how far it is from `M` where the
    /// rows are centred: `M' - M = X^T 1 / (N + n)`.
    pub(super) fn mean(&mut self, sums: &Sums) -> String {
        let ports = self.ports;
        if self.plan.centred {
            let all = self.node("Add", &[&ports.seen, &sums.rows], "all_rows");
            let moved = self.node("Div", &[&sums.sum, &all], "moved_mean");
            self.node_to("Add", &[&ports.mean_in, &moved], &ports.mean);
            return moved;
        }
        let before = self.node("Mul", &[&ports.mean_in, &ports.seen], "sum_before");
        let both = self.node("Add", &[&before, &sums.sum], "sum_of_all");
        let all = self.node("Add", &[&ports.seen, &sums.rows], "all_rows");
        self.node_to("Div", &[&both, &all], &ports.mean);
        ports.mean.clone()
    }

    /// `Z = R^T Y - M' 1^T Y + keep Z_previous`, with the `mean` that [`mean`](Self::mean) gives.
    pub(super) fn projection(&mut self, products: &Products, sums: &Sums, mean: &str) {
        let ports = self.ports;
        let moved = self.transposed_product(mean, &sums.drift, "moved");
        let Some(keep) = &ports.keep else {
            return self.node_to("Sub", &[&products.projection, &moved], &ports.z);
        };
        let centred = self.node("Sub", &[&products.projection, &moved], "centred_projection");
        let kept = self.node("Mul", &[&ports.z_in, keep], "kept_projection");
        let Some(deflate) = &ports.deflate else { return self.node_to("Add", &[&centred, &kept], &ports.z) };
        let whole = self.node("Add", &[&centred, &kept], "whole_z");
        self.deflated_projection(&whole, deflate);
    }

    /// The products of `Q`, `Y`, `Z` and `Z_previous` that [`Ports::statistics`](super::Ports::statistics) lists.
    pub(super) fn statistics(&mut self, products: &Products, sums: &Sums) {
        let ports = self.ports;
        let mut pairs = vec![(&ports.q, &ports.q, "qq"), (&ports.z, &ports.z, "zz")];
        if let Some(previous) = &ports.previous {
            pairs.extend([(&ports.q, previous, "q_previous"), (previous, &ports.z, "previous_z")]);
        }
        if self.plan.in_half() {
            pairs.push((&ports.q, &ports.z, "qz"));
        }
        let long = self.long_products(&pairs);
        let yy = self.reshaped(&products.yy, AS_ROWS);
        let all = self.concatenated(&[&long, &yy], 1, "products");
        let wanted = self.gathered(&all, &format!("{STATISTICS}_{}", self.plan.columns()), 1, "wanted");
        let flat = self.reshaped(&sums.sum, AS_ROWS);
        if ports.deflate.is_none() {
            return self.concatenated_to(&[&wanted, &flat], 1, &ports.statistics);
        }
        let [from_y, from_z] = [&ports.deflated_y, &ports.deflated_z].map(|row| self.reshaped(row, AS_ROWS));
        self.concatenated_to(&[&wanted, &flat, &from_y, &from_z], 1, &ports.statistics);
    }

    /// The sum of squares of the rows, and what [`Ports::check`](super::Ports::check) lists for products of 16 bits.
    pub(super) fn check(&mut self, products: &Products, sums: &Sums) {
        let ports = self.ports;
        let squares = self.squares(products);
        if !self.plan.in_half() {
            return self.concatenated_to(&[&squares], 1, &ports.check);
        }
        let indices = format!("{DIAGONALS}_{}", self.plan.columns());
        let diagonals = self.gathered(&ports.statistics, &indices, 1, "diagonals");
        let across = self.transposed(&sums.sum, "sum_transposed");
        let square = self.node("MatMul", &[&sums.sum, &across], "sum_squared");
        let square = self.reshaped(&square, AS_ROWS);
        self.concatenated_to(&[&squares, &diagonals, &square], 1, &ports.check);
    }

    /// The sum of the mean squares of the pieces of the rows of each group [G, 1].
    fn squares(&mut self, products: &Products) -> String {
        let inverses = products.parts.iter().map(|part| part.inverse.clone()).collect();
        let inverses = self.all_of(inverses, 0, "inverses");
        let squared = self.node("Mul", &[&inverses, &inverses], "inverse_squares");
        let mut squares = self.node("Reciprocal", &[&squared], "mean_squares");
        if let Some(mask) = &self.ports.mask {
            let of_rows = format!("{PIECES_OF_ROWS}_{}", self.plan.pieces());
            squares = self.node("Reshape", &[&squares, &of_rows], "mean_squares_of_rows");
            squares = self.node("Mul", &[&squares, mask], "masked_squares");
        }
        let sum = self.summed(&squares, &[1, 2], "squares");
        self.reshaped(&sum, AS_COLUMN)
    }
}

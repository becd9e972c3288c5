//! Constants that subgraphs of the same sizes share.

use super::plan::{EPSILON, Plan, SYMMETRIC};
use crate::onnx::Constant;

pub(super) const AS_ROWS: &str = "eva/as_rows";
pub(super) const AS_COLUMN: &str = "eva/as_column";
pub(super) const FLAT: &str = "eva/flat";
pub(super) const ONES: &str = "eva/ones";
pub(super) const ROWS_IN_PIECES: &str = "eva/rows_in_pieces";
pub(super) const PIECES_OF_ROWS: &str = "eva/pieces_of_rows";
pub(super) const PIECES: &str = "eva/pieces";
pub(super) const SUMMANDS: &str = "eva/summands";
pub(super) const STATISTICS: &str = "eva/statistics";
pub(super) const ALL: &str = "eva/all";
pub(super) const LAST: &str = "eva/last";
pub(super) const FIRST: &str = "eva/first";
pub(super) const SECOND: &str = "eva/second";
pub(super) const TINY: &str = "eva/tiny";
pub(super) const DIAGONALS: &str = "eva/diagonals";

/// The constants that a subgraph reads, with names that hold their sizes.
pub(super) fn constants(plan: &Plan) -> Vec<(String, Constant)> {
    let (d, w, s, c) = (plan.size.features as i64, plan.piece as i64, plan.pieces() as i64, plan.columns() as i64);
    let mut constants = vec![
        (format!("{FLAT}_{d}"), Constant::ints(vec![1, -1, d])),
        (format!("{ONES}_{w}"), Constant::F32(vec![w], vec![1.0; plan.piece])),
        (format!("{LAST}_{c}"), Constant::ints(vec![c - 1])),
        (format!("{PIECES_OF_ROWS}_{s}"), Constant::ints(vec![0, -1, s])),
    ];
    if plan.deflates() {
        constants.push((format!("{FIRST}_{c}"), Constant::ints(vec![0])));
        constants.push((format!("{SECOND}_{c}"), Constant::ints(vec![1])));
        constants.push((TINY.into(), Constant::F32(vec![1], vec![EPSILON])));
    }
    if plan.late {
        constants.push((format!("{ALL}_{c}"), Constant::ints((0..2 * c).collect())));
    }
    if s > 1 {
        constants.push((format!("{ROWS_IN_PIECES}_{w}"), Constant::ints(vec![0, -1, w])));
        constants.push((format!("{PIECES}_{w}"), Constant::ints(vec![-1, w, 0])));
        constants.push((format!("{SUMMANDS}_{s}_{c}"), Constant::ints(vec![-1, s, c * c])));
    }
    // Of the products, in the order in which they are computed: the lower triangles of the symmetric ones, then all of
    // the others.
    let triangle = |n: i64| (0..c).flat_map(move |i| (0..=i).map(move |j| (n * c + i) * c + j));
    let count = plan.products() as i64;
    let taken = [0, count - 1, 1].into_iter().flat_map(triangle).chain(2 * c * c..(count - 1) * c * c);
    constants.push((format!("{STATISTICS}_{c}"), Constant::ints(taken.collect())));
    if plan.in_half() {
        let diagonal = |i: i64| i * (i + 3) / 2;
        let at = (0..SYMMETRIC as i64).flat_map(|n| (0..c).map(move |i| n * (diagonal(c - 1) + 1) + diagonal(i)));
        constants.push((format!("{DIAGONALS}_{c}"), Constant::ints(at.collect())));
    }
    constants
}

//! The tensors that subgraphs take and return.

use super::plan::{Plan, Rows};

/// Names of the graph inputs and outputs that a subgraph adds, for G groups of d features and a sketch of l directions.
/// Matrices with l columns have one more, of ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Ports {
    /// Per tensor of each group: indices `[n]` of the rows to gather.
    pub rows: Vec<String>,
    /// 1 for each kept row of a group, 0 for the others [1, all rows, 1]; if rows are masked.
    pub mask: Option<String>,
    /// Per group and tensor: its shape.
    pub shapes: Vec<Vec<String>>,
    /// Number of rows before, N [G, 1, 1].
    pub seen: String,
    /// Their mean M [G, 1, d].
    pub mean_in: String,
    /// Factor that keeps products with `Y` in the range of 16 bits [G, 1, 1]; if these are used.
    pub scale: Option<String>,
    /// `Q` of the previous run [G, d, l].
    pub q_in: String,
    /// `Z` of the previous run [G, d, l].
    pub z_in: String,
    /// 1 to add `Z` to `z_in`, 0 to start anew [G, 1, 1]; if batches accumulate.
    pub keep: Option<String>,
    /// For each column whether the first one is taken from it: 1 or 0, and 0 for the first column and that of ones
    /// [G, 1, l]; if an overwhelming direction can be kept apart.
    pub deflate: Option<String>,
    /// Rotation `T` found on the host [G, 2l, l]. It keeps the column of ones: row l + 1 of `T`, which is multiplied by
    /// the zeros of `Q`, is the unit vector of that column.
    pub rotation: String,
    /// `Z` of the run before [G, d, l], `Z_previous`; if the host decomposes the statistics of that run during this
    /// one, so that `q_in`, `z_in` and `rotation` do not know its batch yet.
    pub previous: Option<String>,
    /// `Q` of this run [G, d, l].
    pub q: String,
    /// `Z` of this run [G, d, l].
    pub z: String,
    /// Mean M' of all rows so far [G, 1, d].
    pub mean: String,
    /// The coefficients `c` of the first column of `Y` that were taken from the columns of `Y` and `Q` [G, 1, l]; a name
    /// of the graph.
    pub(super) deflated_y: String,
    /// The coefficients `a` of the first column of `Q` that were taken from the columns of `Z` [G, 1, l].
    pub(super) deflated_z: String,
    /// A row a group: the lower triangles of `Q^T Q`, `Y^T Y` and `Z^T Z`, row by row; with `previous` also `Q^T
    /// Z_previous` and `Z_previous^T Z` [l, l]; with products of 16 bits also `Q^T Z` [l, l]; and the sum of the rows
    /// of `R`, or of `X` if rows are centred `[d]`; and with `deflate` the coefficients taken from `Y` and from `Z` `[l]`,
    /// end to end.
    pub statistics: String,
    /// A row a group: the sum of the squares of the entries of `R`, or of `X` if rows are centred, which is not finite if any of them is not, masked
    /// or not; and with products of 16 bits, to see whether these stayed in range, the diagonals of `Q^T Q`, `Y^T Y`
    /// and `Z^T Z`, and the square of the sum of the rows.
    pub check: String,
    /// Whether the sums are those of `X = R - 1 M^T`.
    pub centred: bool,
    /// Shapes of results that nobody reads; they set the order of execution.
    pub ends: Vec<String>,
}

impl Ports {
    /// Endings of the names of the outputs that the next run takes as inputs.
    pub const KEPT: [&str; 3] = ["/q", "/z", "/mean"];

    /// Ending of the names of the outputs that are large and read by the host.
    pub const STATISTICS: &str = "/statistics";

    pub(super) fn new(plan: &Plan) -> Self {
        let name = |part: &str| format!("eva/{}/{part}", plan.number);
        let tensors = plan.groups.first().map_or(0, Vec::len);
        let rows = if plan.rows == Rows::Gathered { tensors } else { 0 };
        Self {
            rows: (0..rows).map(|t| name(&format!("rows_{t}"))).collect(),
            mask: (plan.rows == Rows::Masked).then(|| name("mask")),
            shapes: (0..plan.groups.len())
                .map(|g| (0..tensors).map(|t| name(&format!("shape_{g}_{t}"))).collect())
                .collect(),
            seen: name("seen"),
            mean_in: name("mean_in"),
            scale: plan.in_half().then(|| name("scale")),
            q_in: name("q_in"),
            z_in: name("z_in"),
            keep: plan.accumulates.then(|| name("keep")),
            deflate: plan.deflates().then(|| name("deflate")),
            rotation: name("rotation"),
            previous: plan.late.then(|| name("previous")),
            q: name("q"),
            z: name("z"),
            mean: name("mean"),
            deflated_y: name("deflated_from_y"),
            deflated_z: name("deflated_from_z"),
            statistics: name("statistics"),
            check: name("check"),
            centred: plan.centred,
            ends: Vec::new(),
        }
    }
}

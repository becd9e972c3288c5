//! The tensors that subgraphs take and return.

use super::plan::{Plan, Rows};

/// Names of the graph inputs and outputs that a subgraph adds. Where it says l, matrices have l + 1 columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Ports {
    /// Per tensor of each group: indices `[n]` of the rows to gather.
    pub rows: Vec<String>,
    /// 1 for each row of a group that counts, else 0 [1, all rows, 1]. There where rows are masked.
    pub mask: Option<String>,
    /// Per group and tensor: its shape.
    pub shapes: Vec<Vec<String>>,
    /// Rows before, N [G, 1, 1].
    pub seen: String,
    /// Their mean M [G, 1, d].
    pub mean_in: String,
    /// What `Y` is multiplied by to keep products with it in the range of 16 bits [G, 1, 1]. There where these are used.
    pub scale: Option<String>,
    /// `Q` of the previous run [G, d, l].
    pub q_in: String,
    /// `Z` of the previous run [G, d, l].
    pub z_in: String,
    /// 1 to add to the image of the previous run, 0 to begin anew [G, 1, 1]. There where images add up.
    pub keep: Option<String>,
    /// Rotation `T` found on the host [G, 2l, l]. The column of ones is not turned, and row l + 1 of `T`, which meets the
    /// zeros of `Q`, is the unit vector of that column.
    pub rotation: String,
    /// `Z` of the run before [G, d, l], where the host works on the statistics of that run during this one, so that
    /// `q_in`, `z_in` and `rotation` do not know that batch yet.
    pub previous: Option<String>,
    /// `Q` of this run [G, d, l].
    pub q: String,
    /// `Z` of this run [G, d, l].
    pub z: String,
    /// Mean M' of all rows so far [G, 1, d].
    pub mean: String,
    /// A row a group: the lower triangles of `Q^T Q`, `Y^T Y` and `Z^T Z`, row by row; with the image before its products
    /// with `Q` and `Z`, `Q^T Z_before` and `Z_before^T Z` [l, l]; where products are of 16 bits `Q^T Z` [l, l]; and the sum
    /// of the rows of `R` `[d]`, end to end.
    pub statistics: String,
    /// A row a group: the sum of the squares of the entries of `R`, which is not finite if any of them is not, masked or
    /// not; and where products are of 16 bits, what tells whether that was enough: the diagonals of `Q^T Q`, `Y^T Y` and
    /// `Z^T Z`, and the square of the sum of the rows.
    pub check: String,
    /// Shapes of results that nobody reads, for the order of execution.
    pub ends: Vec<String>,
}

impl Ports {
    /// How the names of the outputs end that the next run takes as they are.
    pub const KEPT: [&str; 3] = ["/q", "/z", "/mean"];

    /// How the names of the outputs end that the host reads much from.
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
            rotation: name("rotation"),
            previous: plan.late.then(|| name("before")),
            q: name("q"),
            z: name("z"),
            mean: name("mean"),
            statistics: name("statistics"),
            check: name("check"),
            ends: Vec::new(),
        }
    }
}

//! The subgraphs that summarise tensors inside the model.
//!
//! One subgraph serves a stack of G groups of equal sizes, so that their matrices share products and transfers. For
//! each group with kept rows `R` [n, d] in its tensors and a sketch of l directions, one run computes from the previous
//! basis and mean M of the N rows before, and from the rotation found on the host:
//!
//! ```text
//! Q = [Q_previous Z_previous] T          [d, l]    current directions, scaled
//! Y = R Q - 1 M^T Q                      [n, l]
//! M' = (N M + R^T 1) / (N + n)           [d]
//! Z = R^T Y - M' 1^T Y + keep Z_previous [d, l]    C Q, see pca::SketchStats; on top of the image so far if Q is the same
//! ```
//!
//! leaves `Q`, `Z` and `M'` for the next run and returns `Q^T Q`, `Y^T Y`, `Z^T Z`, and of `R` the sum of the rows and of
//! the squares: a few kilobytes. What the host makes of them is told at [`StreamingPca`](crate::pca::StreamingPca).
//! The rows themselves are read as they are: they are centred by way of `Y`, which is small.
//!
//! All matrices with l columns have one more, which is 0 in `Q` and 1 in `Y`: so the products with `Y` have the sums of
//! the rows of `R` and `Y`, and their number. The 1 comes with the rotation, of which one row meets zeros only.
//!
//! ONNX Runtime runs what the last node without readers needs, then what the one before it needs beyond that, and so on
//! (`GraphViewer`, a reverse depth-first search from the leaves). So nodes that nobody reads end the graph, the first
//! layer last: what is made of the rows of a layer is made before the next layer runs, and its activations do not stay.

mod build;

use crate::onnx::{Constant, ElementType, Input, Node, Output, Patch};
use crate::pca::SketchSize;
use build::Builder;

const AS_ROWS: &str = "eva/as_rows";
const AS_COLUMN: &str = "eva/as_column";
const FLAT: &str = "eva/flat";
const ONES: &str = "eva/ones";
const ROWS_IN_PIECES: &str = "eva/rows_in_pieces";
const PIECES_OF_ROWS: &str = "eva/pieces_of_rows";
const PIECES: &str = "eva/pieces";
const SUMMANDS: &str = "eva/summands";
const STATISTICS: &str = "eva/statistics";
const ALL: &str = "eva/all";
const LAST: &str = "eva/last";
const DIAGONALS: &str = "eva/diagonals";

/// Added to the mean of the squares of a piece of a row before the root is taken, so that none is divided by nothing.
const EPSILON: f32 = 1e-30;

/// The first so many of [`Ports::statistics`] are symmetric.
const SYMMETRIC: usize = 3;

/// How rows that do not count are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every row counts, however many there are; then there is one group.
    All,
    /// Those that count are gathered.
    Gathered,
    /// Those that do not are masked where they are small. They must be finite all the same.
    Masked,
}

/// What one subgraph is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Number of the subgraph, used in the new names.
    pub number: usize,
    /// The groups of the stack; per group the tensors whose rows form `R`. Their last axis has the features of `size`.
    /// All groups of a stack have as many rows.
    pub groups: Vec<Vec<String>>,
    /// For each group, how many groups of all stacks come before it in the model.
    pub order: Vec<usize>,
    /// Which rows count.
    pub rows: Rows,
    /// So many groups share the products with their rows, which are copied side by side for it.
    pub joined: usize,
    /// Whether the products with the rows take factors and give results of 16 bits, as the rows are.
    pub half: bool,
    /// Whether the products with the image of the batch before are wanted, see [`Ports::before`].
    pub overlapped: bool,
    /// Whether images of several batches add up, see [`Ports::keep`].
    pub summed: bool,
    /// Sums over features are taken in pieces of so many, a divisor of d: a GPU is slow at long ones.
    pub piece: usize,
    /// Sizes d and l.
    pub size: SketchSize,
}

impl Plan {
    /// Pieces of d features.
    fn pieces(&self) -> usize {
        self.size.features / self.piece
    }

    /// Products of l + 1 columns with each other in [`Ports::statistics`].
    fn products(&self) -> usize {
        SYMMETRIC + if self.overlapped { 2 } else { 0 } + usize::from(self.half)
    }

    /// Columns of the matrices: the directions, and one of ones.
    pub fn columns(&self) -> usize {
        columns(self.size)
    }
}

/// Columns of the matrices: the directions, and one of ones.
pub fn columns(size: SketchSize) -> usize {
    size.width + 1
}

/// What the squares of rows that are 0 add up to, for so many pieces of rows.
pub fn squares_of_nothing(pieces: usize) -> f64 {
    pieces as f64 * f64::from(EPSILON)
}

/// Numbers in the lower triangle of a square of so many columns.
pub fn triangle(size: SketchSize) -> usize {
    columns(size) * (columns(size) + 1) / 2
}

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
    pub before: Option<String>,
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

    fn new(plan: &Plan) -> Self {
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
            scale: plan.half.then(|| name("scale")),
            q_in: name("q_in"),
            z_in: name("z_in"),
            keep: plan.summed.then(|| name("keep")),
            rotation: name("rotation"),
            before: plan.overlapped.then(|| name("before")),
            q: name("q"),
            z: name("z"),
            mean: name("mean"),
            statistics: name("statistics"),
            check: name("check"),
            ends: Vec::new(),
        }
    }
}

/// The edit that adds the subgraphs of all stacks and drops the model's own outputs.
///
/// `opset` is the version of the default operator set of the model; 7 is the oldest that works.
pub fn patch(plans: &[Plan], opset: i64) -> (Patch, Vec<Ports>) {
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    patch.constants.push((AS_ROWS.into(), Constant::I64(vec![2], vec![0, -1])));
    patch.constants.push((AS_COLUMN.into(), Constant::I64(vec![2], vec![-1, 1])));
    for plan in plans {
        for (name, value) in constants(plan) {
            if !patch.constants.iter().any(|(other, _)| *other == name) {
                patch.constants.push((name, value));
            }
        }
    }
    let (mut all_ports, mut leaves) = (Vec::new(), Vec::new());
    for plan in plans {
        let (ports, more) = add_stack(&mut patch, plan, opset);
        all_ports.push(ports);
        leaves.extend(more);
    }
    leaves.sort_by_key(|leaf| std::cmp::Reverse(leaf.order));
    patch.nodes.extend(leaves.into_iter().flat_map(|leaf| leaf.nodes));
    (patch, all_ports)
}

/// What subgraphs of the same sizes share.
fn constants(plan: &Plan) -> Vec<(String, Constant)> {
    let (d, w, s, c) = (plan.size.features as i64, plan.piece as i64, plan.pieces() as i64, plan.columns() as i64);
    let integers = |values: Vec<i64>| Constant::I64(vec![values.len() as i64], values);
    let mut constants = vec![
        (format!("{FLAT}_{d}"), integers(vec![1, -1, d])),
        (format!("{ONES}_{w}"), Constant::F32(vec![w], vec![1.0; plan.piece])),
        (format!("{LAST}_{c}"), integers(vec![c - 1])),
        (format!("{PIECES_OF_ROWS}_{s}"), integers(vec![0, -1, s])),
    ];
    if plan.overlapped {
        constants.push((format!("{ALL}_{c}"), integers((0..2 * c).collect())));
    }
    if s > 1 {
        constants.push((format!("{ROWS_IN_PIECES}_{w}"), integers(vec![0, -1, w])));
        constants.push((format!("{PIECES}_{w}"), integers(vec![-1, w, 0])));
        constants.push((format!("{SUMMANDS}_{s}_{c}"), integers(vec![-1, s, c * c])));
    }
    // Of the products in the order they are computed in: the lower triangles of the symmetric ones, and all of the others.
    let triangle = |n: i64| (0..c).flat_map(move |i| (0..=i).map(move |j| (n * c + i) * c + j));
    let count = plan.products() as i64;
    let taken = [0, count - 1, 1].into_iter().flat_map(triangle).chain(2 * c * c..(count - 1) * c * c);
    constants.push((format!("{STATISTICS}_{c}"), integers(taken.collect())));
    if plan.half {
        let diagonal = |i: i64| i * (i + 3) / 2;
        let at = (0..SYMMETRIC as i64).flat_map(|n| (0..c).map(move |i| n * (diagonal(c - 1) + 1) + diagonal(i)));
        constants.push((format!("{DIAGONALS}_{c}"), integers(at.collect())));
    }
    constants
}

/// Nodes that nobody reads.
struct Leaves {
    /// The last group that they need, by its place in the model.
    order: usize,
    nodes: Vec<Node>,
}

fn add_stack(patch: &mut Patch, plan: &Plan, opset: i64) -> (Ports, Vec<Leaves>) {
    let mut ports = Ports::new(plan);
    declare_inputs(patch, plan, &ports);
    let mut graph = Builder { patch, plan, opset };
    let last = format!("{LAST}_{}", plan.columns());

    // In one product: the parts cancel where a direction has little variance, and rounding between them would stay.
    let w = graph.joined(&[&ports.q_in, &ports.z_in], 2, "w");
    // A GPU may read it from the memory of the host; a product would do that again and again.
    let all = format!("{ALL}_{}", plan.columns());
    let rotation = if plan.overlapped { graph.taken(&ports.rotation, &all, 1, "turn") } else { ports.rotation.clone() };
    graph.node_to("MatMul", &[&w, &rotation], &ports.q, vec![]);
    let unit = graph.taken(&rotation, &last, 1, "unit");
    let products = graph.products(&ports, &unit);
    let drift = graph.taken(&products.yy, &last, 1, "drift");
    let rows = graph.taken(&drift, &last, 2, "row_count");
    let sum = graph.taken(&products.image, &last, 2, "row_sum");
    let sum = graph.transposed(&sum, "sum");
    let before = graph.node("Mul", &[&ports.mean_in, &ports.seen], "sum_before");
    let both = graph.node("Add", &[&before, &sum], "sum_of_all");
    let all = graph.node("Add", &[&ports.seen, &rows], "all_rows");
    graph.node_to("Div", &[&both, &all], &ports.mean, vec![]);
    let moved = graph.transposed_product(&ports.mean, &drift, "moved");
    match &ports.keep {
        None => graph.node_to("Sub", &[&products.image, &moved], &ports.z, vec![]),
        Some(keep) => {
            let image = graph.node("Sub", &[&products.image, &moved], "centred_image");
            let kept = graph.node("Mul", &[&ports.z_in, keep], "kept_image");
            graph.node_to("Add", &[&image, &kept], &ports.z, vec![]);
        }
    }

    let mut pairs = vec![(&ports.q, &ports.q, "qq"), (&ports.z, &ports.z, "zz")];
    if let Some(before) = &ports.before {
        pairs.extend([(&ports.q, before, "q_before"), (before, &ports.z, "before_z")]);
    }
    if plan.half {
        pairs.push((&ports.q, &ports.z, "qz"));
    }
    let long = graph.long_products(&pairs);
    let yy = graph.reshaped(&products.yy, AS_ROWS);
    let all = graph.joined(&[&long, &yy], 1, "products");
    let taken = graph.taken(&all, &format!("{STATISTICS}_{}", plan.columns()), 1, "taken");
    let flat = graph.reshaped(&sum, AS_ROWS);
    graph.joined_to(&[&taken, &flat], 1, &ports.statistics);

    let squares = graph.squares(&products.inverses, &ports);
    if plan.half {
        let diagonals = graph.taken(&ports.statistics, &format!("{DIAGONALS}_{}", plan.columns()), 1, "diagonals");
        let across = graph.transposed(&sum, "sum_transposed");
        let square = graph.node("MatMul", &[&sum, &across], "sum_squared");
        let square = graph.reshaped(&square, AS_ROWS);
        graph.joined_to(&[&squares, &diagonals, &square], 1, &ports.check);
    } else {
        graph.joined_to(&[&squares], 1, &ports.check);
    }
    let leaves = graph.leaves(&mut ports, &products.parts);

    let float = |name: &String| Output { name: name.clone(), element: Some(ElementType::F32) };
    patch.outputs.extend([&ports.q, &ports.z, &ports.mean, &ports.statistics, &ports.check].map(float));
    let shape = |name: &String| Output { name: name.clone(), element: Some(ElementType::I64) };
    patch.outputs.extend(ports.shapes.iter().flatten().chain(&ports.ends).map(shape));
    (ports, leaves)
}

/// How many columns there are is left open: what is known would let ONNX Runtime compute shapes ahead, and drop the
/// nodes that end the graph.
fn declare_inputs(patch: &mut Patch, plan: &Plan, ports: &Ports) {
    let (g, d) = (Some(plan.groups.len() as i64), Some(plan.size.features as i64));
    let input = |name: &String, element, shape: Vec<Option<i64>>| Input { name: name.clone(), element, shape };
    patch.inputs.extend(ports.rows.iter().map(|name| input(name, ElementType::I64, vec![None])));
    patch.inputs.extend(ports.mask.iter().map(|name| input(name, ElementType::F32, vec![Some(1), None, Some(1)])));
    let one = Some(1);
    let stacked = [
        (&ports.seen, [one, one]),
        (&ports.mean_in, [one, d]),
        (&ports.q_in, [d, None]),
        (&ports.z_in, [d, None]),
        (&ports.rotation, [None, None]),
    ];
    let numbers = ports.scale.iter().chain(&ports.keep).map(|name| (name, [one, one]));
    let before = ports.before.iter().map(|name| (name, [d, None]));
    let stacked = stacked.into_iter().chain(numbers).chain(before);
    patch.inputs.extend(stacked.map(|(name, [m, n])| input(name, ElementType::F32, vec![g, m, n])));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two stacks whose groups alternate in the model.
    #[test]
    fn the_graph_ends_with_what_the_first_layer_needs() {
        let plan = |number: usize, features| Plan {
            number,
            groups: [0, 2].map(|layer| vec![format!("rows_of_{}", layer + number)]).into(),
            order: vec![number, 2 + number],
            rows: Rows::Masked,
            joined: 1,
            half: false,
            overlapped: true,
            summed: false,
            piece: features / 2,
            size: SketchSize { features, components: 2, width: 5 },
        };
        let (patch, ports) = patch(&[plan(0, 8), plan(1, 12)], 17);
        let read: Vec<&String> = patch.nodes.iter().flat_map(|node| &node.inputs).collect();
        let ends: Vec<_> = patch.nodes.iter().rev().take_while(|node| node.op == "Shape").collect();
        assert!(ends.len() == 12 && !ends.iter().any(|node| read.contains(&&node.outputs[0])));
        let layers = ends.iter().filter_map(|node| node.inputs[0].strip_prefix("rows_of_"));
        assert_eq!(layers.collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        let of_first: Vec<_> = ends[..3].iter().map(|node| node.inputs[0].as_str()).collect();
        assert_eq!(of_first, ["eva/0/normal_0", "eva/0/image_0", "rows_of_0"]);
        // What a node leaves unread without ending the graph would stay in memory to the end of the run.
        let wanted = |name: &String| patch.outputs.iter().any(|output| output.name == *name);
        let outputs = patch.nodes.iter().flat_map(|node| &node.outputs);
        assert!(outputs.into_iter().all(|output| read.contains(&output) || wanted(output)));
        assert_eq!(ports.iter().map(|ports| ports.ends.len()).collect::<Vec<_>>(), [4, 4]);
    }
}

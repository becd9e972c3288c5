//! The subgraphs that summarise tensors inside the model.
//!
//! One subgraph serves a stack of G groups of equal sizes, so that their matrices share products and transfers. For
//! each group with kept rows `R` [n, d] in its tensors and a sketch of l directions, one run computes from the previous
//! basis and the rotation found on the host:
//!
//! ```text
//! X = R - share sum(R) - rest          [n, d]    see pca::Centre
//! Q = [Q_previous Z_previous] T        [d, l]    current directions, scaled
//! Y = X Q                              [n, l]
//! Z = X^T Y + keep Z_previous          [d, l]    C Q, with C = X^T X; on top of the image so far if Q is the same
//! ```
//!
//! leaves `Q` and `Z` for the next run and returns `Q^T Q`, `Y^T Y`, `Z^T Z`, the sum of the rows of `R` and the
//! sum of squares of each row of `X`: a few kilobytes. What the host makes of them is told at [`StreamingPca`](crate::pca::StreamingPca).

use crate::onnx::{Attribute, Constant, ElementType, Input, Node, Output, Patch};
use crate::pca::SketchSize;
use std::collections::BTreeSet;

const AXIS_1: &str = "eva/1";
const AXIS_2: &str = "eva/2";
const AS_ROWS: &str = "eva/as_rows";
const FLAT: &str = "eva/flat";

/// What one subgraph is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Number of the subgraph, used in the new names.
    pub number: usize,
    /// The groups of the stack; per group the tensors whose rows form `X`. Their last axis has the features of `size`.
    /// All groups of a stack have as many rows.
    pub groups: Vec<Vec<String>>,
    /// Whether every row counts, however many there are; then there is one group.
    pub every_row: bool,
    /// Whether the products with the image of the batch before are wanted, see [`Ports::before`].
    pub overlapped: bool,
    /// Sizes d and l.
    pub size: SketchSize,
}

/// Names of the graph inputs and outputs that a subgraph adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Ports {
    /// Per tensor of each group: indices `[n]` of the rows to keep. Not there where every row counts.
    pub rows: Vec<String>,
    /// As many ones as a group has rows [1, 1, n]. Not there where every row counts.
    pub ones: Option<String>,
    /// Per group and tensor: its shape.
    pub shapes: Vec<Vec<String>>,
    /// What the sum of the rows is multiplied by in the centre [G, 1, 1]; the rows seen before where every row counts.
    pub share: String,
    /// Rest of the centre [G, 1, d]; the mean of the rows before where every row counts.
    pub rest: String,
    /// `Q` of the previous run [G, d, l].
    pub q_in: String,
    /// `Z` of the previous run [G, d, l].
    pub z_in: String,
    /// 1 to add to the image of the previous run, 0 to begin anew [G, 1, 1].
    pub keep: String,
    /// Rotation `T` found on the host [G, 2l, l].
    pub rotation: String,
    /// `Z` of the run before [G, d, l], where the host works on the statistics of that run during this one, so that
    /// `q_in`, `z_in` and `rotation` do not know that batch yet.
    pub before: Option<String>,
    /// `Q` of this run [G, d, l].
    pub q: String,
    /// `Z` of this run [G, d, l].
    pub z: String,
    /// A row a group: `Q^T Q`, `Y^T Y`, `Z^T Z`, with the image before also its products with `Q` and `Z`, `Q^T Z_before`
    /// and `Z_before^T Z` [l, l] each, the sum of the rows of `R` `[d]` and the sum of squares of each row of `X` `[n]`, end
    /// to end.
    pub statistics: String,
}

impl Ports {
    /// How the names of the outputs end that the next run takes as they are.
    pub const KEPT: [&str; 2] = ["/q", "/z"];

    fn new(plan: &Plan) -> Self {
        let name = |part: &str| format!("eva/{}/{part}", plan.number);
        let tensors = plan.groups.first().map_or(0, Vec::len);
        let rows = if plan.every_row { 0 } else { tensors };
        Self {
            rows: (0..rows).map(|t| name(&format!("rows_{t}"))).collect(),
            ones: (!plan.every_row).then(|| name("ones")),
            shapes: (0..plan.groups.len())
                .map(|g| (0..tensors).map(|t| name(&format!("shape_{g}_{t}"))).collect())
                .collect(),
            share: name("share"),
            rest: name("rest"),
            q_in: name("q_in"),
            z_in: name("z_in"),
            keep: name("keep"),
            rotation: name("rotation"),
            before: plan.overlapped.then(|| name("before")),
            q: name("q"),
            z: name("z"),
            statistics: name("statistics"),
        }
    }
}

/// The edit that adds the subgraphs of all stacks and drops the model's own outputs.
///
/// `opset` is the version of the default operator set of the model; 7 is the oldest that works.
pub fn patch(plans: &[Plan], opset: i64) -> (Patch, Vec<Ports>) {
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    patch.constants = vec![
        (AXIS_1.into(), Constant::I64(vec![1], vec![1])),
        (AXIS_2.into(), Constant::I64(vec![1], vec![2])),
        (AS_ROWS.into(), Constant::I64(vec![2], vec![0, -1])),
    ];
    for d in plans.iter().map(|plan| plan.size.features).collect::<BTreeSet<_>>() {
        patch.constants.push((format!("{FLAT}_{d}"), Constant::I64(vec![3], vec![1, -1, d as i64])));
    }
    let ports = plans.iter().map(|plan| add_stack(&mut patch, plan, opset)).collect();
    (patch, ports)
}

fn add_stack(patch: &mut Patch, plan: &Plan, opset: i64) -> Ports {
    let ports = Ports::new(plan);
    declare_inputs(patch, plan, &ports);
    let mut graph = Builder { patch, number: plan.number, opset };

    let rows = graph.rows(plan, &ports);
    let (sum, centre) = match &ports.ones {
        Some(ones) => {
            let sum = graph.node("MatMul", &[ones, &rows], "sum");
            let own = graph.node("Mul", &[&sum, &ports.share], "own_centre");
            let centre = graph.node("Add", &[&own, &ports.rest], "centre");
            (sum, centre)
        }
        None => graph.centre_of_any(&rows, &ports),
    };
    let x = graph.node("Sub", &[&rows, &centre], "x");
    // In one product: the parts cancel where a direction has little variance, and rounding between them would stay.
    let w = graph.joined(&[&ports.q_in, &ports.z_in], 2, "w");
    graph.node_to("MatMul", &[&w, &ports.rotation], &ports.q, vec![]);
    let y = graph.node("MatMul", &[&x, &ports.q], "y");
    let image = graph.transposed_product(&x, &y, "image");
    let kept = graph.node("Mul", &[&ports.z_in, &ports.keep], "kept_image");
    graph.node_to("Add", &[&image, &kept], &ports.z, vec![]);
    let squares = graph.reduced("ReduceSumSquare", &x, (AXIS_2, &[2]), "squares");
    let mut statistics = vec![
        graph.transposed_product(&ports.q, &ports.q, "qq"),
        graph.transposed_product(&y, &y, "yy"),
        graph.transposed_product(&ports.z, &ports.z, "zz"),
    ];
    if let Some(before) = &ports.before {
        statistics.push(graph.transposed_product(&ports.q, before, "q_before"));
        statistics.push(graph.transposed_product(before, &ports.z, "before_z"));
    }
    statistics.extend([sum, squares]);
    let flat: Vec<String> = statistics.iter().map(|tensor| graph.as_rows(tensor)).collect();
    let inputs: Vec<&str> = flat.iter().map(String::as_str).collect();
    graph.node_to("Concat", &inputs, &ports.statistics, vec![("axis", Attribute::Int(1))]);

    let float = |name: &String| Output { name: name.clone(), element: Some(ElementType::F32) };
    patch.outputs.extend([float(&ports.q), float(&ports.z), float(&ports.statistics)]);
    let shape = |name: &String| Output { name: name.clone(), element: Some(ElementType::I64) };
    patch.outputs.extend(ports.shapes.iter().flatten().map(shape));
    ports
}

fn declare_inputs(patch: &mut Patch, plan: &Plan, ports: &Ports) {
    let (g, d, l) = (plan.groups.len() as i64, plan.size.features as i64, plan.size.width as i64);
    let input = |name: &String, element, shape: Vec<Option<i64>>| Input { name: name.clone(), element, shape };
    patch.inputs.extend(ports.rows.iter().map(|name| input(name, ElementType::I64, vec![None])));
    let one = Some(1);
    patch.inputs.extend(ports.ones.iter().map(|name| input(name, ElementType::F32, vec![one, one, None])));
    let stacked = [
        (&ports.share, [1, 1]),
        (&ports.rest, [1, d]),
        (&ports.q_in, [d, l]),
        (&ports.z_in, [d, l]),
        (&ports.keep, [1, 1]),
        (&ports.rotation, [2 * l, l]),
    ];
    let before = ports.before.iter().map(|name| (name, [d, l]));
    let stacked = stacked.into_iter().chain(before);
    patch.inputs.extend(stacked.map(|(name, [m, n])| input(name, ElementType::F32, vec![Some(g), Some(m), Some(n)])));
}

struct Builder<'a> {
    patch: &'a mut Patch,
    number: usize,
    opset: i64,
}

impl Builder<'_> {
    fn inner(&self, part: &str) -> String {
        format!("eva/{}/{part}", self.number)
    }

    fn node(&mut self, op: &'static str, inputs: &[&str], part: &str) -> String {
        let output = self.inner(part);
        self.node_to(op, inputs, &output, vec![]);
        output
    }

    fn node_to(&mut self, op: &'static str, inputs: &[&str], output: &str, attributes: Vec<(&'static str, Attribute)>) {
        self.patch.nodes.push(Node {
            name: format!("{output}/{op}"),
            op,
            inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            attributes,
        });
    }

    /// `a^T b` for each pair of matrices of two stacks. ONNX Runtime makes one node of the two.
    fn transposed_product(&mut self, a: &str, b: &str, part: &str) -> String {
        let transposed = self.inner(&format!("{part}_transposed"));
        self.node_to("Transpose", &[a], &transposed, vec![("perm", Attribute::Ints(vec![0, 2, 1]))]);
        self.node("MatMul", &[&transposed, b], part)
    }

    /// One row for each matrix of a stack.
    fn as_rows(&mut self, stack: &str) -> String {
        let flat = format!("{stack}_flat");
        self.node_to("Reshape", &[stack, AS_ROWS], &flat, vec![]);
        flat
    }

    /// The tensors behind each other along an axis.
    fn joined(&mut self, tensors: &[&str], axis: i64, part: &str) -> String {
        let output = self.inner(part);
        self.node_to("Concat", tensors, &output, vec![("axis", Attribute::Int(axis))]);
        output
    }

    /// `R` [G, n, d]: the kept rows of all tensors in 32-bit float.
    fn rows(&mut self, plan: &Plan, ports: &Ports) -> String {
        let mut groups = Vec::new();
        for (g, tensors) in plan.groups.iter().enumerate() {
            let mut kept = Vec::new();
            for (t, tensor) in tensors.iter().enumerate() {
                self.node_to("Shape", &[tensor], &ports.shapes[g][t], vec![]);
                let flat = format!("{FLAT}_{}", plan.size.features);
                let mut rows = self.node("Reshape", &[tensor, &flat], &format!("flat_{g}_{t}"));
                if let Some(indices) = ports.rows.get(t) {
                    let output = self.inner(&format!("kept_{g}_{t}"));
                    self.node_to("Gather", &[&rows, indices], &output, vec![("axis", Attribute::Int(1))]);
                    rows = output;
                }
                kept.push(rows);
            }
            groups.push(self.one_or_joined(kept, 1, &format!("all_{g}")));
        }
        let stack = self.one_or_joined(groups, 0, "stack");
        let float = self.inner("rows");
        self.node_to("Cast", &[&stack], &float, vec![("to", Attribute::Int(1))]);
        float
    }

    fn one_or_joined(&mut self, tensors: Vec<String>, axis: i64, part: &str) -> String {
        match <[String; 1]>::try_from(tensors) {
            Ok([one]) => one,
            Err(many) => self.joined(&many.iter().map(String::as_str).collect::<Vec<_>>(), axis, part),
        }
    }

    /// Sum of the rows, and [`Centre`](crate::pca::Centre), of a number of rows that only the graph knows.
    fn centre_of_any(&mut self, rows: &str, ports: &Ports) -> (String, String) {
        let mean = self.reduced("ReduceMean", rows, (AXIS_1, &[1]), "mean");
        let shape = self.node("Shape", &[rows], "row_shape");
        let count = self.node("Gather", &[&shape, AXIS_1], "row_count");
        let float = self.inner("float_count");
        self.node_to("Cast", &[&count], &float, vec![("to", Attribute::Int(1))]);
        let total = self.node("Add", &[&float, &ports.share], "total");
        let seen = self.node("Div", &[&ports.share, &total], "seen_share");
        let a = self.node("Sqrt", &[&seen], "pull");
        let apart = self.node("Sub", &[&ports.rest, &mean], "apart");
        let pulled = self.node("Mul", &[&apart, &a], "pulled");
        let centre = self.node("Add", &[&mean, &pulled], "centre");
        (self.node("Mul", &[&mean, &float], "sum"), centre)
    }

    /// A reduction that keeps its axes; these became an input in opset 18.
    fn reduced(&mut self, op: &'static str, x: &str, axes: (&str, &[i64]), part: &str) -> String {
        let output = self.inner(part);
        let (name, numbers) = axes;
        if self.opset < 18 {
            self.node_to(op, &[x], &output, vec![("axes", Attribute::Ints(numbers.to_vec()))]);
        } else {
            self.node_to(op, &[x, name], &output, vec![]);
        }
        output
    }
}

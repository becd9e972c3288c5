//! The subgraph that summarises one tensor inside the model.
//!
//! For a group with kept rows `R` [n, d] in its tensors and a sketch of l directions, one run computes from the
//! previous basis and the rotation found on the host:
//!
//! ```text
//! X = R - share mean(R) - rest         [n, d]    see pca::Centre
//! Q = Q_previous Tq + Z_previous Tz    [d, l]    current directions, scaled
//! Y = X Q                              [n, l]
//! Z = X^T Y + keep Z_previous          [d, l]    C Q, with C = X^T X; on top of the image so far if Q is the same
//! ```
//!
//! leaves `Q` and `Z` for the next run and returns `Q^T Q`, `Y^T Y`, `Z^T Z`, the mean and the sum of squares of `X`: a few kilobytes. What the host makes
//! of them is told at [`StreamingPca`](crate::pca::StreamingPca).

use crate::onnx::{Attribute, Constant, ElementType, Input, Node, Output, Patch};
use crate::pca::SketchSize;
use std::collections::BTreeSet;

const AXIS_0: &str = "eva/0";
const FLAT: &str = "eva/flat";
const VECTOR: &str = "eva/vector";
const ZERO: &str = "eva/zero";

/// What the subgraph of one group is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Group number, used in the new names.
    pub group: usize,
    /// Tensors whose rows form `X`; their last axis has the features of `size`.
    pub tensors: Vec<String>,
    /// Whether every row counts, whatever the indices say.
    pub every_row: bool,
    /// Sizes d and l.
    pub size: SketchSize,
}

/// Names of the graph inputs and outputs that a group adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Ports {
    /// Per tensor: indices [n] of the rows to keep; not read where every row counts.
    pub rows: Vec<String>,
    /// Per tensor: its shape.
    pub shapes: Vec<String>,
    /// Share of the batch mean in the centre [1]; the rows seen before where every row counts.
    pub share: String,
    /// Rest of the centre [1, d]; the mean of the rows before where every row counts.
    pub rest: String,
    /// `Q` of the previous run [d, l].
    pub q_in: String,
    /// `Z` of the previous run [d, l].
    pub z_in: String,
    /// 1 to add to the image of the previous run, 0 to begin anew [1].
    pub keep: String,
    /// Rotation found on the host: the factor of `Q` [l, l].
    pub rotation_q: String,
    /// The factor of `Z` [l, l].
    pub rotation_z: String,
    /// `Q` of this run [d, l].
    pub q: String,
    /// `Z` of this run [d, l].
    pub z: String,
    /// `Q^T Q`, `Y^T Y`, `Z^T Z` [l, l] each, mean [d] and the sum of squares [1], end to end.
    pub statistics: String,
}

impl Ports {
    /// How the names of the outputs end that the next run takes as they are.
    pub const KEPT: [&str; 2] = ["/q", "/z"];

    fn new(plan: &Plan) -> Self {
        let name = |part: &str| format!("eva/{}/{part}", plan.group);
        let each = |part: &str| (0..plan.tensors.len()).map(|i| name(&format!("{part}_{i}"))).collect();
        Self {
            rows: each("rows"),
            shapes: each("shape"),
            share: name("share"),
            rest: name("rest"),
            q_in: name("q_in"),
            z_in: name("z_in"),
            keep: name("keep"),
            rotation_q: name("rotation_q"),
            rotation_z: name("rotation_z"),
            q: name("q"),
            z: name("z"),
            statistics: name("statistics"),
        }
    }
}

/// The edit that adds the subgraphs of all groups and drops the model's own outputs.
///
/// `opset` is the version of the default operator set of the model; 7 is the oldest that works.
pub fn patch(plans: &[Plan], opset: i64) -> (Patch, Vec<Ports>) {
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    patch.constants = vec![
        (AXIS_0.into(), Constant::I64(vec![1], vec![0])),
        (VECTOR.into(), Constant::I64(vec![1], vec![-1])),
        (ZERO.into(), Constant::F32(vec![1], vec![0.0])),
    ];
    for d in plans.iter().map(|plan| plan.size.features).collect::<BTreeSet<_>>() {
        patch.constants.push((format!("{FLAT}_{d}"), Constant::I64(vec![2], vec![-1, d as i64])));
    }
    let ports = plans.iter().map(|plan| add_group(&mut patch, plan, opset)).collect();
    (patch, ports)
}

fn add_group(patch: &mut Patch, plan: &Plan, opset: i64) -> Ports {
    let ports = Ports::new(plan);
    declare_inputs(patch, &ports, plan.size);
    let mut graph = Builder { patch, group: plan.group, opset };

    let rows = graph.rows(plan, &ports);
    let mean = graph.inner("batch_mean");
    graph.mean_of_rows(&rows, &mean);
    let centre = if plan.every_row {
        graph.centre_of_any(&rows, &mean, &ports)
    } else {
        let own = graph.node("Mul", &[&mean, &ports.share], "own_centre");
        graph.node("Add", &[&own, &ports.rest], "centre")
    };
    let x = graph.node("Sub", &[&rows, &centre], "x");
    // In one product: the parts cancel where a direction has little variance, and rounding between them would stay.
    let (w, t) = (graph.inner("w"), graph.inner("t"));
    graph.node_to("Concat", &[&ports.q_in, &ports.z_in], &w, vec![("axis", Attribute::Int(1))]);
    graph.node_to("Concat", &[&ports.rotation_q, &ports.rotation_z], &t, vec![("axis", Attribute::Int(0))]);
    graph.node_to("MatMul", &[&w, &t], &ports.q, vec![]);
    let y = graph.node("MatMul", &[&x, &ports.q], "y");
    let kept = graph.node("Mul", &[&ports.z_in, &ports.keep], "kept_image");
    graph.node_to("Gemm", &[&x, &y, &kept], &ports.z, vec![("transA", Attribute::Int(1))]);
    let squares = graph.inner("squares");
    graph.node_to("ReduceSumSquare", &[&x], &squares, vec![("keepdims", Attribute::Int(0))]);
    let statistics = [
        graph.transposed_product(&ports.q, &ports.q, "qq"),
        graph.transposed_product(&y, &y, "yy"),
        graph.transposed_product(&ports.z, &ports.z, "zz"),
        mean,
        squares,
    ];
    graph.end_to_end(&statistics, &ports.statistics);

    let float = |name: &String| Output { name: name.clone(), element: Some(ElementType::F32) };
    patch.outputs.extend([float(&ports.q), float(&ports.z), float(&ports.statistics)]);
    let shape = |name: &String| Output { name: name.clone(), element: Some(ElementType::I64) };
    patch.outputs.extend(ports.shapes.iter().map(shape));
    ports
}

fn declare_inputs(patch: &mut Patch, ports: &Ports, size: SketchSize) {
    let (d, l) = (size.features as i64, size.width as i64);
    let rows = ports.rows.iter().map(|name| Input { name: name.clone(), element: ElementType::I64, shape: vec![None] });
    patch.inputs.extend(rows);
    let float = |name: &String, shape: &[i64]| Input {
        name: name.clone(),
        element: ElementType::F32,
        shape: shape.iter().map(|&n| Some(n)).collect(),
    };
    patch.inputs.push(float(&ports.share, &[1]));
    patch.inputs.push(float(&ports.rest, &[1, d]));
    patch.inputs.extend([&ports.q_in, &ports.z_in].map(|name| float(name, &[d, l])));
    patch.inputs.push(float(&ports.keep, &[1]));
    patch.inputs.extend([&ports.rotation_q, &ports.rotation_z].map(|name| float(name, &[l, l])));
}

struct Builder<'a> {
    patch: &'a mut Patch,
    group: usize,
    opset: i64,
}

impl Builder<'_> {
    fn inner(&self, part: &str) -> String {
        format!("eva/{}/{part}", self.group)
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

    /// `a^T b` for two matrices; Gemm does it without a copy of the transpose.
    fn transposed_product(&mut self, a: &str, b: &str, part: &str) -> String {
        let output = self.inner(part);
        let inputs: &[&str] = if self.opset < 11 { &[a, b, ZERO] } else { &[a, b] };
        self.node_to("Gemm", inputs, &output, vec![("transA", Attribute::Int(1))]);
        output
    }

    /// All entries of the tensors as one vector.
    fn end_to_end(&mut self, tensors: &[String], output: &str) {
        let flat: Vec<String> = tensors
            .iter()
            .map(|tensor| {
                let flat = format!("{tensor}_flat");
                self.node_to("Reshape", &[tensor, VECTOR], &flat, vec![]);
                flat
            })
            .collect();
        let inputs: Vec<&str> = flat.iter().map(String::as_str).collect();
        self.node_to("Concat", &inputs, output, vec![("axis", Attribute::Int(0))]);
    }

    /// `R` [n, d]: the kept rows of all tensors in 32-bit float.
    fn rows(&mut self, plan: &Plan, ports: &Ports) -> String {
        let mut kept = Vec::new();
        for (i, tensor) in plan.tensors.iter().enumerate() {
            self.node_to("Shape", &[tensor], &ports.shapes[i], vec![]);
            let flat = self.node("Reshape", &[tensor, &format!("{FLAT}_{}", plan.size.features)], &format!("flat_{i}"));
            let rows = if plan.every_row { flat.clone() } else { self.inner(&format!("kept_{i}")) };
            if !plan.every_row {
                self.node_to("Gather", &[&flat, &ports.rows[i]], &rows, vec![("axis", Attribute::Int(0))]);
            }
            let float = self.inner(&format!("float_{i}"));
            self.node_to("Cast", &[&rows], &float, vec![("to", Attribute::Int(1))]);
            kept.push(float);
        }
        match &kept[..] {
            [one] => one.clone(),
            many => {
                let output = self.inner("all");
                let inputs: Vec<&str> = many.iter().map(String::as_str).collect();
                self.node_to("Concat", &inputs, &output, vec![("axis", Attribute::Int(0))]);
                output
            }
        }
    }

    /// [`Centre`](crate::pca::Centre) of a number of rows that only the graph knows.
    fn centre_of_any(&mut self, rows: &str, mean: &str, ports: &Ports) -> String {
        let shape = self.node("Shape", &[rows], "row_shape");
        let count = self.node("Gather", &[&shape, AXIS_0], "row_count");
        let float = self.inner("float_count");
        self.node_to("Cast", &[&count], &float, vec![("to", Attribute::Int(1))]);
        let total = self.node("Add", &[&float, &ports.share], "total");
        let seen = self.node("Div", &[&ports.share, &total], "seen_share");
        let a = self.node("Sqrt", &[&seen], "pull");
        let apart = self.node("Sub", &[&ports.rest, mean], "apart");
        let pulled = self.node("Mul", &[&apart, &a], "pulled");
        self.node("Add", &[mean, &pulled], "centre")
    }

    /// Column mean [1, d]; the axes of a reduction became an input in opset 18.
    fn mean_of_rows(&mut self, x: &str, output: &str) {
        let keep = ("keepdims", Attribute::Int(1));
        if self.opset < 18 {
            self.node_to("ReduceMean", &[x], output, vec![("axes", Attribute::Ints(vec![0])), keep]);
        } else {
            self.node_to("ReduceMean", &[x, AXIS_0], output, vec![keep]);
        }
    }
}

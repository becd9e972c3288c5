//! The subgraph that summarises one tensor inside the model.
//!
//! For a group with rows `X` [n, d] (the kept rows of its tensors, less the running mean) and a sketch of width l,
//! one run computes from the previous basis and the rotation found on the host:
//!
//! ```text
//! Q  = W_previous T        [d, l]     current directions
//! Y  = X Q                 [n, l]
//! B  = Y^T Y               [l, l]     Q^T C Q, with C = X^T X
//! Z  = X^T Y               [d, l]     C Q
//! W2 = colnormalise(Z - Q B)          new directions, orthogonal to Q up to rounding
//! P  = X W2                [n, l]
//! W  = [Q W2]              [d, 2l]    basis of the next run
//! ```
//!
//! and returns `Y^T Y`, `Y^T P`, `P^T P`, `W^T W`, the column mean of `X`, its image under `W^T` and the sum of
//! squares: a few kilobytes. The scatter is always taken on the basis in use, so rounding in `W2` changes which
//! subspace is searched and never what is measured on it.

use crate::onnx::{Attribute, Constant, ElementType, Input, Node, Output, Patch};

/// Keeps the normalisation of an all-zero column finite.
const TINY: f32 = 1e-30;
const AXIS_0: &str = "eva/axis_0";
const FLAT: &str = "eva/minus_one";
const TINY_NAME: &str = "eva/tiny";
const ZERO: &str = "eva/zero";

/// What the subgraph of one group is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Group number, used in the new names.
    pub group: usize,
    /// Tensors whose rows form `X`; their last axis has `features` entries.
    pub tensors: Vec<String>,
    /// Features d.
    pub features: usize,
    /// Sketch width l.
    pub width: usize,
}

/// Names of the graph inputs and outputs that a group adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Ports {
    /// Per tensor: indices [n] of the rows to keep.
    pub rows: Vec<String>,
    /// Per tensor: its shape.
    pub shapes: Vec<String>,
    /// Running mean [d].
    pub shift: String,
    /// Basis of the previous run [d, 2l].
    pub basis_in: String,
    /// Rotation found on the host [2l, l].
    pub rotation: String,
    /// Basis of this run [d, 2l].
    pub basis: String,
    /// `Y^T Y` [l, l].
    pub yy: String,
    /// `Y^T P` [l, l].
    pub yp: String,
    /// `P^T P` [l, l].
    pub pp: String,
    /// `W^T W` [2l, 2l].
    pub gram: String,
    /// Column mean [1, d].
    pub mean: String,
    /// `mean W` [1, 2l].
    pub projected_mean: String,
    /// Sum of squares, one value.
    pub squares: String,
}

impl Ports {
    fn new(plan: &Plan) -> Self {
        let name = |part: &str| format!("eva/{}/{part}", plan.group);
        let each = |part: &str| (0..plan.tensors.len()).map(|i| name(&format!("{part}_{i}"))).collect();
        Self {
            rows: each("rows"),
            shapes: each("shape"),
            shift: name("shift"),
            basis_in: name("basis_in"),
            rotation: name("rotation"),
            basis: name("basis"),
            yy: name("yy"),
            yp: name("yp"),
            pp: name("pp"),
            gram: name("gram"),
            mean: name("mean"),
            projected_mean: name("projected_mean"),
            squares: name("squares"),
        }
    }

    /// The statistics, in the order of [`SketchStats`](crate::pca::SketchStats).
    pub fn statistics(&self) -> [&str; 7] {
        [&self.yy, &self.yp, &self.pp, &self.gram, &self.mean, &self.projected_mean, &self.squares]
    }
}

/// The edit that adds the subgraphs of all groups and drops the model's own outputs.
///
/// `opset` is the version of the default operator set of the model; 7 is the oldest that works.
pub fn patch(plans: &[Plan], opset: i64) -> (Patch, Vec<Ports>) {
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    patch.constants = vec![
        (AXIS_0.into(), Constant::I64(vec![1], vec![0])),
        (TINY_NAME.into(), Constant::F32(vec![1], vec![TINY])),
        (ZERO.into(), Constant::F32(vec![1], vec![0.0])),
    ];
    let mut widths: Vec<i64> = plans.iter().map(|p| p.features as i64).collect();
    widths.sort_unstable();
    widths.dedup();
    for d in widths {
        patch.constants.push((format!("{FLAT}_{d}"), Constant::I64(vec![2], vec![-1, d])));
    }
    let ports = plans.iter().map(|plan| add_group(&mut patch, plan, opset)).collect();
    (patch, ports)
}

fn add_group(patch: &mut Patch, plan: &Plan, opset: i64) -> Ports {
    let ports = Ports::new(plan);
    let (d, l) = (plan.features as i64, plan.width as i64);
    declare_inputs(patch, &ports, d, l);
    let mut graph = Builder { patch, group: plan.group, opset };

    let x = graph.rows(plan, &ports);
    let q = graph.node("MatMul", &[&ports.basis_in, &ports.rotation], "q");
    let y = graph.node("MatMul", &[&x, &q], "y");
    graph.transposed_product(&y, &y, &ports.yy);
    let z = graph.inner("z");
    graph.transposed_product(&x, &y, &z);
    let w2 = graph.new_directions(&z, &q, &ports.yy);
    let p = graph.node("MatMul", &[&x, &w2], "p");
    graph.transposed_product(&y, &p, &ports.yp);
    graph.transposed_product(&p, &p, &ports.pp);
    graph.node_to("Concat", &[&q, &w2], &ports.basis, vec![("axis", Attribute::Int(1))]);
    graph.transposed_product(&ports.basis, &ports.basis, &ports.gram);
    graph.reduce_rows("ReduceMean", &x, &ports.mean);
    graph.node_to("MatMul", &[&ports.mean, &ports.basis], &ports.projected_mean, vec![]);
    graph.node_to("ReduceSumSquare", &[&x], &ports.squares, vec![("keepdims", Attribute::Int(0))]);

    let float = |name: &String| Output { name: name.clone(), element: Some(ElementType::F32) };
    patch.outputs.push(float(&ports.basis));
    patch.outputs.extend(ports.statistics().map(|s| float(&s.to_owned())));
    let shape = |name: &String| Output { name: name.clone(), element: Some(ElementType::I64) };
    patch.outputs.extend(ports.shapes.iter().map(shape));
    ports
}

fn declare_inputs(patch: &mut Patch, ports: &Ports, d: i64, l: i64) {
    let rows = ports.rows.iter().map(|name| Input { name: name.clone(), element: ElementType::I64, shape: vec![None] });
    patch.inputs.extend(rows);
    let float = |name: &String, shape: &[i64]| Input {
        name: name.clone(),
        element: ElementType::F32,
        shape: shape.iter().map(|&n| Some(n)).collect(),
    };
    patch.inputs.push(float(&ports.shift, &[d]));
    patch.inputs.push(float(&ports.basis_in, &[d, 2 * l]));
    patch.inputs.push(float(&ports.rotation, &[2 * l, l]));
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
    fn transposed_product(&mut self, a: &str, b: &str, output: &str) {
        let inputs: &[&str] = if self.opset < 11 { &[a, b, ZERO] } else { &[a, b] };
        self.node_to("Gemm", inputs, output, vec![("transA", Attribute::Int(1))]);
    }

    /// `X` [n, d]: the kept rows of all tensors in 32-bit float, less the shift.
    fn rows(&mut self, plan: &Plan, ports: &Ports) -> String {
        let mut kept = Vec::new();
        for (i, tensor) in plan.tensors.iter().enumerate() {
            self.node_to("Shape", &[tensor], &ports.shapes[i], vec![]);
            let flat = self.node("Reshape", &[tensor, &format!("{FLAT}_{}", plan.features)], &format!("flat_{i}"));
            let rows = self.inner(&format!("kept_{i}"));
            self.node_to("Gather", &[&flat, &ports.rows[i]], &rows, vec![("axis", Attribute::Int(0))]);
            let float = self.inner(&format!("float_{i}"));
            self.node_to("Cast", &[&rows], &float, vec![("to", Attribute::Int(1))]);
            kept.push(float);
        }
        let all = match &kept[..] {
            [one] => one.clone(),
            many => {
                let output = self.inner("all");
                let inputs: Vec<&str> = many.iter().map(String::as_str).collect();
                self.node_to("Concat", &inputs, &output, vec![("axis", Attribute::Int(0))]);
                output
            }
        };
        self.node("Sub", &[&all, &ports.shift], "x")
    }

    /// `colnormalise(Z - Q B)`.
    fn new_directions(&mut self, z: &str, q: &str, b: &str) -> String {
        let residual = self.inner("residual");
        self.node_to("Gemm", &[q, b, z], &residual, vec![("alpha", Attribute::Float(-1.0))]);
        let norm = self.inner("norm");
        self.reduce_rows("ReduceL2", &residual, &norm);
        let norm = self.node("Add", &[&norm, TINY_NAME], "norm_safe");
        self.node("Div", &[&residual, &norm], "w2")
    }

    /// A reduction over axis 0 that keeps it; the axes became an input in opset 18.
    fn reduce_rows(&mut self, op: &'static str, x: &str, output: &str) {
        if self.opset < 18 {
            self.node_to(op, &[x], output, vec![("axes", Attribute::Ints(vec![0])), ("keepdims", Attribute::Int(1))]);
        } else {
            self.node_to(op, &[x, AXIS_0], output, vec![("keepdims", Attribute::Int(1))]);
        }
    }
}

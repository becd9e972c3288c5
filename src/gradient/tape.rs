//! The backward pass while it is being made.

use super::error::Unsupported;
use super::path::Path;
use super::values::{TensorInfo, Values};
use crate::dtype::DType;
use crate::graph::constant;
use crate::onnx::{Attribute, Builder, Constant, Dim, Graph, Names, NodeId, NodeView, Origin, Tensor};
use std::collections::HashMap;

/// The start of every name that a backward pass adds.
const STEM: &str = "gradient";

/// The gradients of a node's operands, in their order; `None` where none is wanted.
pub(super) type Operands = Result<Vec<Option<String>>, Unsupported>;

/// A gradient that is made once something reads it, since some readers can do with less.
#[derive(Clone, Debug)]
pub(super) enum Late {
    /// `small` repeated to the shape of `like`.
    Repeated { small: String, like: String },
    /// The gradient of a part of a tensor, with zeros for the rest of it.
    Part { gradient: String, span: Span },
}

/// A part of a tensor of `rank` axes: from `start` to `end` along an axis of this size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) axis: usize,
    pub(super) rank: usize,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) size: i64,
}

/// Makes nodes and adds up the gradients of tensors with several readers.
pub(super) struct Tape<'a> {
    graph: &'a Graph<'a>,
    values: &'a Values,
    path: &'a Path,
    builder: Builder,
    names: Names,
    /// The tensor whose gradient is passed on, which new nodes are named after.
    at: String,
    /// The gradients that reached each tensor so far.
    sums: HashMap<String, Vec<String>>,
    /// Gradients that may not be made yet.
    pub(super) late: HashMap<String, Late>,
    integers: HashMap<Vec<i64>, String>,
    numbers: HashMap<(u32, DType), String>,
}

impl<'a> Tape<'a> {
    pub(super) fn new(graph: &'a Graph<'a>, values: &'a Values, path: &'a Path) -> Self {
        Self {
            graph,
            values,
            path,
            builder: Builder::new(STEM, graph.model().opset()),
            names: Names::default(),
            at: String::new(),
            sums: HashMap::new(),
            late: HashMap::new(),
            integers: HashMap::new(),
            numbers: HashMap::new(),
        }
    }

    /// Names the nodes to come after the results of `node`.
    pub(super) fn enter(&mut self, node: NodeView<'_>) {
        self.at = node.outputs().first().cloned().unwrap_or_default();
    }

    /// Counts a gradient of a tensor.
    pub(super) fn add(&mut self, tensor: &str, gradient: String) {
        self.sums.entry(tensor.to_owned()).or_default().push(gradient);
    }

    /// The sum of all gradients of a tensor, if there is any.
    pub(super) fn take(&mut self, tensor: &str) -> Option<String> {
        let parts = self.sums.remove(tensor)?;
        tensor.clone_into(&mut self.at);
        let mut parts = self.joined(parts).into_iter();
        let first = parts.next()?;
        Some(parts.fold(first, |sum, part| self.op("Add", &[&sum, &part], &[])))
    }

    /// Adds a node with one output, and returns that.
    pub(super) fn op(&mut self, op: &'static str, inputs: &[&str], attributes: &[(&'static str, Attribute)]) -> String {
        let output = self.fresh(op);
        self.op_to(op, inputs, attributes, &output);
        output
    }

    /// A name that no other tensor has.
    pub(super) fn fresh(&mut self, op: &str) -> String {
        let part = self.names.fresh(&format!("{}/{op}", self.at));
        self.builder.name(&part)
    }

    /// Adds a node with an output of this name.
    pub(super) fn op_to(
        &mut self,
        op: &'static str,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
        output: &str,
    ) {
        inputs.iter().for_each(|name| self.make(name));
        let mut node = self.builder.op(op, inputs);
        for (name, value) in attributes {
            node = node.with(name, value.clone());
        }
        node.to(output);
    }

    /// Adds a node with several outputs, and returns them.
    pub(super) fn op_with(&mut self, op: &'static str, inputs: &[&str], axis: i64, outputs: usize) -> Vec<String> {
        inputs.iter().for_each(|name| self.make(name));
        let part = self.names.fresh(&format!("{}/{op}", self.at));
        let outputs: Vec<String> = (0..outputs).map(|i| self.builder.name(&format!("{part}/{i}"))).collect();
        self.builder.op(op, inputs).int("axis", axis).outputs(outputs.clone());
        outputs
    }

    /// A vector of integers.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        if let Some(name) = self.integers.get(values) {
            return name.clone();
        }
        let part = self.names.fresh("integers");
        let name = self.builder.constant(&part, Constant::ints(values.to_vec()));
        self.integers.insert(values.to_vec(), name.clone());
        name
    }

    /// An integer without dimensions.
    pub(super) fn scalar(&mut self, value: i64) -> String {
        let part = self.names.fresh("integer");
        self.builder.constant(&part, Constant::I64(Vec::new(), vec![value]))
    }

    /// A vector of integers that is computed when the graph runs, from the size of `tensor`: ONNX Runtime folds what is made
    /// of constants alone.
    pub(super) fn late_ints(&mut self, values: &[i64], tensor: &str) -> String {
        let values = self.ints(values);
        let size = self.op("Size", &[tensor], &[]);
        let nothing = self.op("Sub", &[&size, &size], &[]);
        self.op("Add", &[&values, &nothing], &[])
    }

    /// A number of an element type, without dimensions.
    pub(super) fn number(&mut self, value: f32, dtype: DType) -> String {
        if let Some(name) = self.numbers.get(&(value.to_bits(), dtype)) {
            return name.clone();
        }
        let part = self.names.fresh("number");
        let mut name = self.builder.constant(&part, Constant::scalar(value));
        if dtype != DType::F32 {
            let part = self.names.fresh("number_cast");
            name = self.builder.cast(&name, dtype).output(&part);
        }
        self.numbers.insert((value.to_bits(), dtype), name.clone());
        name
    }

    /// The tensor in another element type.
    pub(super) fn cast(&mut self, tensor: &str, dtype: DType) -> String {
        self.op("Cast", &[tensor], &[("to", Attribute::Int(dtype.to_onnx().into()))])
    }

    /// The gradient reshaped like a tensor.
    pub(super) fn like(&mut self, gradient: &str, tensor: &str) -> String {
        let shape = self.op("Shape", &[tensor], &[]);
        let zero_is_a_size: &[_] = if self.opset() >= 14 { &[("allowzero", Attribute::Int(1))] } else { &[] };
        self.op("Reshape", &[gradient, &shape], zero_is_a_size)
    }

    /// The gradient, which has the shape of `of`, in the shape of `tensor`.
    pub(super) fn reshaped(&mut self, gradient: &str, of: &str, tensor: &str) -> String {
        let Some(shape) = self.known_shape(of, tensor) else { return self.like(gradient, tensor) };
        let shape = self.ints(&shape);
        self.op("Reshape", &[gradient, &shape], &[])
    }

    /// The shape that a `Reshape` of a tensor with the shape of `of` needs for that of `tensor`, if it does not depend on
    /// the batch: 0 for sizes that stay, and -1 for one that is not known.
    fn known_shape(&self, of: &str, tensor: &str) -> Option<Vec<i64>> {
        let (from, to) = (&self.info(of).ok()?.dims, &self.info(tensor).ok()?.dims);
        let mut unknown = 0;
        let size = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) if *size > 0 => Some(*size),
            Dim::Symbol(_) if from.get(axis) == Some(dim) => Some(0),
            _ => {
                unknown += 1;
                (unknown == 1).then_some(-1)
            }
        };
        to.iter().enumerate().map(size).collect()
    }

    /// Zeros of the shape and type of a tensor.
    pub(super) fn zeros_like(&mut self, tensor: &str) -> Result<String, Unsupported> {
        let shape = self.op("Shape", &[tensor], &[]);
        Ok(self.zeros(&shape, self.dtype(tensor)?))
    }

    /// Zeros of this shape, a vector of integers.
    pub(super) fn zeros(&mut self, shape: &str, dtype: DType) -> String {
        let zero = self.number(0.0, dtype);
        self.op("Expand", &[&zero, shape], &[])
    }

    /// The operator set of the model.
    pub(super) fn opset(&self) -> i64 {
        self.graph.model().opset()
    }

    /// Whether the gradient of a node's operand is wanted.
    pub(super) fn wants(&self, node: NodeView<'_>, input: usize) -> bool {
        node.input(input).is_some_and(|name| self.path.varying.contains(name))
    }

    /// What is known of a tensor.
    pub(super) fn info(&self, tensor: &str) -> Result<&'a TensorInfo, Unsupported> {
        self.values.get(tensor).ok_or(Unsupported::Tensor)
    }

    /// The element type of a tensor.
    pub(super) fn dtype(&self, tensor: &str) -> Result<DType, Unsupported> {
        Ok(self.info(tensor)?.dtype)
    }

    /// The number of dimensions of a tensor.
    pub(super) fn rank(&self, tensor: &str) -> Result<usize, Unsupported> {
        Ok(self.info(tensor)?.dims.len())
    }

    /// The values of a constant vector of integers that a node reads.
    pub(super) fn constant_ints(&self, name: &'a str) -> Option<Vec<i64>> {
        if let Some(Origin::Node(id)) = self.graph.origin(0, name) {
            let node = self.graph.node(id);
            let listed = node.ints("value_ints").map(<[i64]>::to_vec).or_else(|| Some(vec![node.int("value_int")?]));
            if node.op() == "Constant" && listed.is_some() {
                return listed;
            }
        }
        let operand = constant::resolve(self.graph, 0, name)?;
        let keeps_order = |id: &NodeId| ["Cast", "Identity", "Reshape"].contains(&self.graph.node(*id).op());
        operand.nodes.iter().all(keeps_order).then(|| constant::ints(&operand.tensor))?
    }

    /// The value of a constant number that a node reads.
    pub(super) fn constant_number(&self, name: &'a str) -> Option<f32> {
        let stated =
            self.producer(name).filter(|node| node.op() == "Constant").and_then(|node| node.float("value_float"));
        let stored = || {
            let operand = constant::resolve(self.graph, 0, name)?;
            let is_plain = operand.nodes.iter().all(|id| ["Cast", "Identity"].contains(&self.graph.node(*id).op()));
            let (tensor, dtype) = (&operand.tensor, operand.tensor.dtype());
            match (is_plain, dtype) {
                (true, DType::I64) => {
                    constant::ints(tensor).filter(|values| values.len() == 1).map(|values| values[0] as f32)
                }
                (true, DType::F32) => Some(f32::from_le_bytes(tensor.bytes()?.as_ref().try_into().ok()?)),
                _ => None,
            }
        };
        stated.or_else(stored)
    }

    /// The node that produces a tensor.
    pub(super) fn producer(&self, name: &str) -> Option<NodeView<'a>> {
        match self.graph.origin(0, name)? {
            Origin::Node(id) => Some(self.graph.node(id)),
            _ => None,
        }
    }

    /// Where a tensor comes from.
    pub(super) fn origin(&self, name: &str) -> Option<Origin<'a>> {
        self.graph.origin(0, name)
    }

    /// The initializer that a node reads.
    pub(super) fn stored(&self, node: NodeView<'a>, index: usize) -> Option<Tensor<'a>> {
        match self.graph.origin(0, node.input(index)?)? {
            Origin::Initializer(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Adds a constant.
    pub(super) fn constant(&mut self, part: &str, value: Constant) -> String {
        let part = self.names.fresh(&format!("{}/{part}", self.at));
        self.builder.constant(&part, value)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.builder.nodes().len()
    }

    /// The backward pass.
    pub(super) fn finish(self) -> Builder {
        self.builder
    }
}

/// An operand that a rule needs.
pub(super) fn input<'n>(node: NodeView<'n>, index: usize) -> Result<&'n str, Unsupported> {
    node.input(index).ok_or(Unsupported::Form("without this operand"))
}

/// An axis counted from the front.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Unsupported> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(counted).ok().filter(|axis| *axis < rank).ok_or(Unsupported::Form("with this axis"))
}

//! Making new nodes: one place that composes their names and knows what changed between operator sets.

use std::collections::HashMap;

use super::{Attribute, Constant, Node, Patch};
use crate::dtype::DType;

/// The operator set in which the sizes of `Split` and the axes of `ReduceSum` became inputs; attributes before.
const SIZES_ARE_INPUTS: i64 = 13;

/// Gives every name once.
#[derive(Debug, Default)]
pub struct Names {
    given: HashMap<String, usize>,
}

impl Names {
    /// `name` the first time, then `name#2`, `name#3` and so on.
    pub fn fresh(&mut self, name: &str) -> String {
        let count = self.given.entry(name.to_owned()).or_default();
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}#{count}") }
    }
}

/// Makes nodes and constants whose names start with a common stem.
///
/// ```
/// use eva_onnx::onnx::Builder;
///
/// let mut graph = Builder::new("eva/0", 17);
/// let sum = graph.op("Add", &["x", "y"]).output("sum");
/// graph.op("Softmax", &[&sum]).int("axis", -1).output("weights");
/// let (nodes, _) = graph.finish();
/// assert_eq!((nodes[1].name.as_str(), nodes[1].outputs[0].as_str()), ("eva/0/weights/Softmax", "eva/0/weights"));
/// ```
#[derive(Debug)]
pub struct Builder {
    stem: String,
    opset: i64,
    nodes: Vec<Node>,
    constants: Vec<(String, Constant)>,
}

/// A node that has no output yet; one of [`output`](NewNode::output), [`to`](NewNode::to) and
/// [`outputs`](NewNode::outputs) adds it.
#[must_use = "a node without an output is not added"]
#[derive(Debug)]
pub struct NewNode<'b> {
    builder: &'b mut Builder,
    node: Node,
}

impl Builder {
    /// A builder for a model with this version of the default operator set; names are `stem/part`.
    pub fn new(stem: impl Into<String>, opset: i64) -> Builder {
        Builder { stem: stem.into(), opset, nodes: Vec::new(), constants: Vec::new() }
    }

    /// The name of a part.
    pub fn name(&self, part: &str) -> String {
        format!("{}/{part}", self.stem)
    }

    /// Adds a constant and returns its name.
    pub fn constant(&mut self, part: &str, value: Constant) -> String {
        let name = self.name(part);
        self.constants.push((name.clone(), value));
        name
    }

    /// Starts a node of the default domain that reads these tensors.
    pub fn op(&mut self, op: &'static str, inputs: &[&str]) -> NewNode<'_> {
        let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
        let node = Node { name: String::new(), op, inputs, outputs: Vec::new(), attributes: Vec::new() };
        NewNode { builder: self, node }
    }

    /// Starts a `Cast` to `dtype`.
    pub fn cast(&mut self, tensor: &str, dtype: DType) -> NewNode<'_> {
        self.op("Cast", &[tensor]).int("to", dtype.to_onnx().into())
    }

    /// Starts a `Split` into parts of these sizes along an axis. The part `sizes_part` is the constant that holds the
    /// sizes where they are an input.
    pub fn split(&mut self, tensor: &str, axis: i64, sizes: Vec<i64>, sizes_part: &str) -> NewNode<'_> {
        if self.opset < SIZES_ARE_INPUTS {
            return self.op("Split", &[tensor]).int("axis", axis).ints("split", sizes);
        }
        let sizes = self.constant(sizes_part, Constant::ints(sizes));
        self.op("Split", &[tensor, &sizes]).int("axis", axis)
    }

    /// Starts a `ReduceSum` over some axes, which are dropped. The part `axes_part` is the constant that holds the axes
    /// where they are an input.
    pub fn reduce_sum(&mut self, tensor: &str, axes: &[i64], axes_part: &str) -> NewNode<'_> {
        if self.opset < SIZES_ARE_INPUTS {
            return self.op("ReduceSum", &[tensor]).int("keepdims", 0).ints("axes", axes.to_vec());
        }
        let axes = self.constant(axes_part, Constant::ints(axes.to_vec()));
        self.op("ReduceSum", &[tensor, &axes]).int("keepdims", 0)
    }

    /// The nodes added so far, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes and the constants, in the order they were added.
    pub fn finish(self) -> (Vec<Node>, Vec<(String, Constant)>) {
        (self.nodes, self.constants)
    }

    /// Appends the nodes and the constants to a patch.
    pub fn add_to(self, patch: &mut Patch) {
        patch.nodes.extend(self.nodes);
        patch.constants.extend(self.constants);
    }
}

impl NewNode<'_> {
    /// Gives it an integer attribute.
    pub fn int(self, name: &'static str, value: i64) -> Self {
        self.with(name, Attribute::Int(value))
    }

    /// Gives it an attribute that is a list of integers.
    pub fn ints(self, name: &'static str, values: Vec<i64>) -> Self {
        self.with(name, Attribute::Ints(values))
    }

    /// Gives it a float attribute.
    pub fn float(self, name: &'static str, value: f32) -> Self {
        self.with(name, Attribute::Float(value))
    }

    /// Gives it an attribute.
    pub fn with(mut self, name: &'static str, value: Attribute) -> Self {
        self.node.attributes.push((name, value));
        self
    }

    /// Calls the node `stem/part`; without it, it is called by its first output and its operator.
    pub fn named(mut self, part: &str) -> Self {
        self.node.name = self.builder.name(part);
        self
    }

    /// Adds it with the output `stem/part`, and returns the output's name.
    pub fn output(self, part: &str) -> String {
        let output = self.builder.name(part);
        self.to(&output);
        output
    }

    /// Adds it with an output of this full name.
    pub fn to(self, output: &str) {
        self.outputs(vec![output.to_owned()]);
    }

    /// Adds it with outputs of these full names.
    pub fn outputs(mut self, outputs: Vec<String>) {
        if self.node.name.is_empty() {
            self.node.name = format!("{}/{}", outputs.first().map_or("", String::as_str), self.node.op);
        }
        self.node.outputs = outputs;
        self.builder.nodes.push(self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(builder: Builder) -> (Node, Vec<(String, Constant)>) {
        let (mut nodes, constants) = builder.finish();
        assert_eq!(nodes.len(), 1);
        (nodes.remove(0), constants)
    }

    #[test]
    fn names_are_given_once() {
        let mut names = Names::default();
        assert_eq!(["a", "b", "a", "a"].map(|name| names.fresh(name)), ["a", "b", "a#2", "a#3"]);
    }

    #[test]
    fn a_node_is_called_by_its_output_unless_named() {
        let mut graph = Builder::new("s", 17);
        assert_eq!(graph.op("Mul", &["x", "y"]).output("z"), "s/z");
        graph.op("Mul", &["x", "y"]).named("twice").to("w");
        let (nodes, _) = graph.finish();
        assert_eq!([&nodes[0].name, &nodes[1].name], ["s/z/Mul", "s/twice"]);
        assert_eq!(nodes[1].outputs, ["w"]);
    }

    #[test]
    fn sizes_and_axes_are_inputs_from_operator_set_13() {
        for (opset, inputs, attributes) in [(12, 1, 2), (13, 2, 1)] {
            let mut graph = Builder::new("s", opset);
            graph.split("x", 0, vec![2, 3], "sizes").outputs(vec!["a".into(), "b".into()]);
            let (node, constants) = only(graph);
            assert_eq!((node.inputs.len(), node.attributes.len(), constants.len()), (inputs, attributes, inputs - 1));
            let mut graph = Builder::new("s", opset);
            graph.reduce_sum("x", &[1], "axes").output("sum");
            let (node, constants) = only(graph);
            assert_eq!((node.inputs.len(), node.attributes.len(), constants.len()), (inputs, attributes, inputs - 1));
        }
    }
}

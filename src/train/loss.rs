//! The loss of a causal language model and its gradient at the logits, in plain operators.
//!
//! Only the tokens that have a target are scored. Where the output head is a plain product, it sees only those rows.

use super::error::Error;
use crate::dtype::DType;
use crate::linear::Linear;
use crate::onnx::{Builder, Constant, Dim, Graph, Input, Model, NodeView, Origin, Output, Patch, Takeover};

/// The loss, a number.
pub(super) const LOSS: &str = "loss";
/// Rows of the logits, flattened to [batch * length, vocabulary], that have a target, ascending: [targets].
pub(super) const ROWS: &str = "loss/rows";
/// The token that each of them should predict: [targets].
pub(super) const TARGETS: &str = "loss/targets";
/// What the loss of each is multiplied by, a number: 1 / targets for a mean.
pub(super) const WEIGHT: &str = "loss/weight";

/// The axis that a head's rows get in front.
const FRONT: &str = "loss/front";

/// The edit that adds a loss.
pub(super) struct LossEdit {
    pub(super) patch: Patch,
    /// The tensor that the backward pass starts at, and its gradient.
    pub(super) seed: (String, String),
}

/// The edit that makes the sum of the negative log-probabilities of the targets, times the weight, the only output.
///
/// # Errors
/// [`Error::NoHead`] when no output is called `logits`; [`Error::Logits`] when it is not [batch, length, vocabulary].
pub(super) fn causal(model: &Model, linears: &[Linear]) -> Result<LossEdit, Error> {
    let outputs = model.outputs();
    let logits = outputs.iter().find(|output| output.name == "logits");
    let logits = logits.ok_or_else(|| Error::NoHead { outputs: outputs.iter().map(|o| o.name.clone()).collect() })?;
    if logits.shape.as_ref().is_some_and(|shape| shape.len() != 3) || !logits.dtype.is_float() {
        return Err(Error::Logits { output: logits.name.clone() });
    }
    let graph = Graph::new(model);
    let mut nodes = Builder::new("loss", model.opset());
    let mut takeovers = Vec::new();
    // The head's rows are another number than the model's tokens, which a shape that is fixed does not allow.
    let is_fixed = |shape: &Vec<Dim>| matches!(shape[..2], [Dim::Fixed(_), _] | [_, Dim::Fixed(_)]);
    let dynamic = !logits.shape.as_ref().is_some_and(is_fixed);
    let scored = match head(&graph, linears, &logits.name).filter(|_| dynamic) {
        Some(head) => {
            takeovers.push(head.of_rows(model.opset()));
            nodes.op("Flatten", &[&logits.name]).int("axis", 2).output("logits")
        }
        None => rows(&mut nodes, &logits.name, "logits"),
    };
    let scored = if logits.dtype == DType::F32 { scored } else { nodes.cast(&scored, DType::F32).output("wide") };
    let gradient = cross_entropy(&mut nodes, &scored);
    nodes.constant("front", Constant::ints(vec![0]));
    let vector = |name: &str| Input { name: name.to_owned(), dtype: DType::I64, shape: vec![None] };
    let mut patch = Patch {
        inputs: vec![
            vector(ROWS),
            vector(TARGETS),
            Input { name: WEIGHT.to_owned(), dtype: DType::F32, shape: Vec::new() },
        ],
        outputs: vec![Output { name: LOSS.to_owned(), dtype: Some(DType::F32) }],
        drop_outputs: true,
        takeovers,
        ..Patch::default()
    };
    nodes.add_to(&mut patch);
    Ok(LossEdit { patch, seed: (scored, gradient) })
}

/// The rows of a tensor [batch, length, features] that have a target: [targets, features].
fn rows(nodes: &mut Builder, tensor: &str, part: &str) -> String {
    let flat = nodes.op("Flatten", &[tensor]).int("axis", 2).output(&format!("{part}/flat"));
    nodes.op("Gather", &[&flat, ROWS]).int("axis", 0).output(&format!("{part}/chosen"))
}

/// Adds the loss of `logits` [targets, vocabulary], and returns its gradient there: weight (softmax - target).
fn cross_entropy(nodes: &mut Builder, logits: &str) -> String {
    let last = nodes.constant("last", Constant::ints(vec![-1]));
    let one = nodes.constant("one", Constant::scalar(1.0));
    let target = nodes.op("Unsqueeze", &[TARGETS, &last]).output("target");
    let log = nodes.op("LogSoftmax", &[logits]).int("axis", -1).output("log_probabilities");
    let chosen = nodes.op("GatherElements", &[&log, &target]).int("axis", 1).output("chosen");
    let flat = nodes.op("Reshape", &[&chosen, &last]).output("chosen_flat");
    let total = nodes.reduce_sum(&flat, &[0], "axis").output("total");
    let weighted = nodes.op("Mul", &[&total, WEIGHT]).output("weighted");
    nodes.op("Neg", &[&weighted]).to(LOSS);

    let probabilities = nodes.op("Exp", &[&log]).output("probabilities");
    let of_target = nodes.op("Exp", &[&chosen]).output("of_target");
    let less = nodes.op("Sub", &[&of_target, &one]).output("of_target_less");
    let error = nodes.op("ScatterElements", &[&probabilities, &target, &less]).int("axis", 1).output("error");
    nodes.op("Mul", &[&error, WEIGHT]).output("gradient")
}

/// The product that is the output head.
struct Head {
    hidden: String,
    weight: String,
    result: String,
}

impl Head {
    /// The same product of the rows that have a target: [1, targets, vocabulary].
    fn of_rows(self, opset: i64) -> Takeover {
        let mut nodes = Builder::new("loss/head", opset);
        let hidden = rows(&mut nodes, &self.hidden, "hidden");
        let hidden = nodes.op("Unsqueeze", &[&hidden, FRONT]).output("hidden/batch");
        nodes.op("MatMul", &[&hidden, &self.weight]).to(&self.result);
        let raw = nodes.name("of_all");
        let (nodes, _) = nodes.finish();
        Takeover { subgraph: Vec::new(), tensor: self.result, raw, nodes }
    }
}

/// The output head, if the logits follow from its result element by element.
fn head(graph: &Graph<'_>, linears: &[Linear], logits: &str) -> Option<Head> {
    let mut tensor = logits.to_owned();
    loop {
        let Some(Origin::Node(id)) = graph.origin(0, &tensor) else { return None };
        let node = graph.node(id);
        let is_it = |linear: &&Linear| linear.at.subgraph.is_empty() && linear.output.tensor == tensor;
        if let Some(head) = linears.iter().find(is_it) {
            let is_plain = node.op() == "MatMul" && node.input(0) == Some(head.input.tensor.as_str());
            let is_only = tensor == logits || graph.readers(0, &tensor).len() == 1;
            let weight = node.input(1).filter(|_| is_plain && is_only)?.to_owned();
            return Some(Head { hidden: head.input.tensor.clone(), weight, result: tensor });
        }
        tensor = passed(graph, node)?;
    }
}

/// What a node that changes each element by itself reads.
fn passed(graph: &Graph<'_>, node: NodeView<'_>) -> Option<String> {
    let is_number = |name: &&String| match graph.origin(0, name) {
        Some(Origin::Initializer(tensor)) => tensor.dims().iter().product::<i64>() == 1,
        Some(Origin::Node(id)) => graph.node(id).op() == "Constant",
        _ => false,
    };
    match node.op() {
        "Cast" | "Identity" | "Tanh" => node.input(0).map(str::to_owned),
        "Mul" | "Div" | "Add" => {
            let (numbers, others): (Vec<_>, Vec<_>) = node.inputs().iter().partition(is_number);
            (numbers.len() == 1).then(|| others.first().map(|name| (*name).clone()))?
        }
        _ => None,
    }
}

//! The output head on the rows that have a target, instead of all tokens.

use super::rows::rows;
use crate::graph::constant;
use crate::linear::Linear;
use crate::onnx::{Builder, Graph, NodeView, Origin, Takeover};

/// The axis that a head's rows get in front.
pub(super) const FRONT: &str = "loss/front";

/// The product that is the output head.
pub(super) struct Head {
    /// What it reads, [batch, length, features].
    pub(super) hidden: String,
    /// Its weight [features, vocabulary].
    pub(super) weight: String,
    result: String,
    /// The size of the vocabulary, if the result is the logits themselves and the weight is frozen.
    pub(super) vocabulary: Option<i64>,
}

impl Head {
    /// The same product of the rows that have a target: [1, targets, vocabulary].
    pub(super) fn of_rows(self, opset: i64) -> Takeover {
        let mut nodes = Builder::new("loss/head", opset);
        let hidden = rows(&mut nodes, &self.hidden, "hidden", 3);
        let hidden = nodes.op("Unsqueeze", &[&hidden, FRONT]).output("hidden/batch");
        nodes.op("MatMul", &[&hidden, &self.weight]).to(&self.result);
        let raw = nodes.name("of_all");
        let (nodes, _) = nodes.finish();
        Takeover { subgraph: Vec::new(), tensor: self.result, raw, nodes }
    }
}

/// The output head, if the logits follow from its result element by element.
pub(super) fn head(graph: &Graph<'_>, linears: &[Linear], logits: &str) -> Option<Head> {
    let mut tensor = logits.to_owned();
    loop {
        let Some(Origin::Node(id)) = graph.origin(0, &tensor) else { return None };
        let node = graph.node(id);
        let is_it = |linear: &&Linear| linear.at.subgraph.is_empty() && linear.output.tensor == tensor;
        if let Some(head) = linears.iter().find(is_it) {
            let is_plain = node.op() == "MatMul" && node.input(0) == Some(head.input.tensor.as_str());
            let is_only = tensor == logits || graph.readers(0, &tensor).len() == 1;
            let weight = node.input(1).filter(|_| is_plain && is_only)?.to_owned();
            let is_frozen = constant::operand(graph, id, 1).is_some() && tensor == logits;
            let vocabulary = is_frozen.then_some(head.out_features as i64);
            return Some(Head { hidden: head.input.tensor.clone(), weight, result: tensor, vocabulary });
        }
        tensor = passed(graph, node)?;
    }
}

/// What a node that changes each element by itself reads.
fn passed(graph: &Graph<'_>, node: NodeView<'_>) -> Option<String> {
    let is_vector = |name: &&String| match graph.origin(0, name) {
        Some(Origin::Initializer(tensor)) => tensor.dims().len() <= 1,
        Some(Origin::Node(id)) => graph.node(id).op() == "Constant",
        _ => false,
    };
    match node.op() {
        "Cast" | "Identity" | "Tanh" => node.input(0).map(str::to_owned),
        "Mul" | "Div" | "Add" => {
            let (numbers, others): (Vec<_>, Vec<_>) = node.inputs().iter().partition(is_vector);
            (numbers.len() == 1).then(|| others.first().map(|name| (*name).clone()))?
        }
        _ => None,
    }
}

//! Whether a tensor becomes an output of the graph.

use std::collections::HashSet;

use super::constant;
use crate::onnx::{Graph, NodeId};

/// Whether a tensor becomes a graph output with `logits` in its name.
pub(crate) fn reaches_logits(graph: &Graph<'_>, scope: usize, tensor: &str) -> bool {
    reaches(graph, scope, tensor, |name| name.contains("logits"))
}

/// Whether a tensor becomes a graph output of any name.
pub(crate) fn reaches_output(graph: &Graph<'_>, scope: usize, tensor: &str) -> bool {
    reaches(graph, scope, tensor, |_| true)
}

/// Whether a tensor becomes a graph output whose name is `wanted`.
pub(crate) fn reaches(graph: &Graph<'_>, scope: usize, tensor: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let mut seen = HashSet::from([tensor]);
    let mut open = vec![tensor];
    while let Some(tensor) = open.pop() {
        if graph.is_output(scope, tensor) && wanted(tensor) {
            return true;
        }
        let readers = graph.readers(scope, tensor).iter().filter(|id| passes(graph, **id, tensor));
        open.extend(readers.filter_map(|id| graph.node(*id).output()).filter(|name| seen.insert(name)));
    }
    false
}

/// Whether the node only rescales, converts or selects what it reads as `tensor`.
fn passes(graph: &Graph<'_>, id: NodeId, tensor: &str) -> bool {
    let node = graph.node(id);
    match node.op() {
        "Cast" | "Identity" | "Tanh" | "Slice" | "Reshape" | "Squeeze" | "Unsqueeze" | "QuantizeLinear"
        | "DequantizeLinear" => node.input(0) == Some(tensor),
        "Add" | "Mul" | "Div" => {
            let others = node.inputs().iter().filter(|name| *name != tensor);
            let mut constants = others.map(|name| constant::resolve(graph, id.scope, name).is_some());
            constants.next() == Some(true)
        }
        _ => false,
    }
}

//! Tensors whose rows are the tokens that a router chose, as the inputs of experts.

use std::collections::HashSet;

use super::constant;
use crate::onnx::{Graph, NodeId, NodeView, Origin};

/// Most nodes visited from a layer's input to the choice of its rows, and from their indices to their origin.
const MAX_NODES: usize = 64;

/// Whether the rows of the tensor that `scope` sees as `name` were picked by a condition on the data.
pub(crate) fn is_routed(graph: &Graph<'_>, scope: usize, name: &str) -> bool {
    let found = |id: NodeId, node: NodeView<'_>| match node.op() {
        "Compress" => true,
        "Gather" | "GatherND" => node.input(1).is_some_and(|indices| is_found(graph, id.scope, indices)),
        _ => false,
    };
    search(graph, scope, name, &found, &|id, node| match node.op() {
        "Compress" | "Gather" | "GatherND" => 0,
        // Rows that are put back into their places.
        "ScatterND" | "ScatterElements" | "Scatter" => 0,
        // The products inside attention mix rows.
        "MatMul" | "Gemm" | "FusedMatMul" if !has_weight(graph, id) => 0,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Where" => node.inputs().len(),
        _ => 1,
    })
}

fn has_weight(graph: &Graph<'_>, id: NodeId) -> bool {
    constant::operand(graph, id, 1).is_some()
}

/// Whether indices are those at which a condition is true.
fn is_found(graph: &Graph<'_>, scope: usize, name: &str) -> bool {
    search(graph, scope, name, &|_, node| node.op() == "NonZero", &|_, node| node.inputs().len())
}

/// Searches from `name` towards the inputs, through the first `follow` inputs of each node, until `found`.
fn search(
    graph: &Graph<'_>,
    scope: usize,
    name: &str,
    found: &dyn Fn(NodeId, NodeView<'_>) -> bool,
    follow: &dyn Fn(NodeId, NodeView<'_>) -> usize,
) -> bool {
    let mut seen = HashSet::new();
    let mut open = std::collections::VecDeque::from([(scope, name.to_owned())]);
    while let Some((scope, name)) = open.pop_front().filter(|_| seen.len() < MAX_NODES) {
        let Some(Origin::Node(id)) = graph.origin(scope, &name) else { continue };
        if !seen.insert(id) {
            continue;
        }
        let node = graph.node(id);
        if found(id, node) {
            return true;
        }
        let inputs = node.inputs().iter().take(follow(id, node)).filter(|input| !input.is_empty());
        open.extend(inputs.map(|input| (id.scope, input.clone())));
    }
    false
}

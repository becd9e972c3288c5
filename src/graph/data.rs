//! Tensors that depend on the data, and not only on its shapes as relative positions do.

use std::collections::HashSet;

use crate::onnx::{Graph, NodeId, NodeView, Origin};

/// The nodes whose results depend on the values of graph inputs.
pub(crate) struct Data(HashSet<NodeId>);

impl Data {
    /// Follows the graph inputs through the nodes.
    ///
    /// How values get into subgraphs and functions is not followed: what their nodes read from outside is known, and
    /// their own inputs count as data.
    pub(crate) fn new(graph: &Graph<'_>) -> Data {
        let mut data = Data(HashSet::new());
        let mut open = Vec::new();
        for (id, node) in (0..graph.scopes()).flat_map(|scope| graph.nodes(scope)) {
            let is_control = ["If", "Loop", "Scan"].contains(&node.op());
            let is_fed = || named(node.inputs()).any(|name| is_input(graph, id.scope, name));
            if !gives_shapes(node) && (is_control || is_fed()) {
                data.0.insert(id);
                open.push(id);
            }
        }
        while let Some(id) = open.pop() {
            for name in named(graph.node(id).outputs()) {
                for reader in graph.readers(id.scope, name) {
                    if !gives_shapes(graph.node(*reader)) && data.0.insert(*reader) {
                        open.push(*reader);
                    }
                }
            }
        }
        data
    }

    /// Whether the tensor that `scope` sees as `name` depends on the data.
    pub(crate) fn has(&self, graph: &Graph<'_>, scope: usize, name: &str) -> bool {
        match graph.origin(scope, name) {
            Some(Origin::Initializer(_)) => false,
            Some(Origin::Node(id)) => self.0.contains(&id),
            Some(Origin::Input) | None => true,
        }
    }
}

fn named(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str).filter(|name| !name.is_empty())
}

fn is_input(graph: &Graph<'_>, scope: usize, name: &str) -> bool {
    matches!(graph.origin(scope, name), Some(Origin::Input) | None)
}

/// Whether the node reads nothing but the shape of its input.
fn gives_shapes(node: NodeView<'_>) -> bool {
    node.domain().is_empty() && ["Shape", "Size"].contains(&node.op())
}

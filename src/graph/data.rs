//! Tensors that do not depend on the data, but at most on its sizes: relative positions, for example.

use std::collections::HashSet;

use crate::onnx::{Graph, NodeId, Origin};

/// The nodes whose results depend on the values of graph inputs.
pub(crate) struct Data(HashSet<NodeId>);

impl Data {
    /// Follows the graph inputs through the nodes.
    ///
    /// Bodies of subgraphs and functions get values in ways that are not followed: what they read from outside is known,
    /// and their own inputs count as data.
    pub(crate) fn new(graph: &Graph<'_>) -> Data {
        let mut data = Data(HashSet::new());
        // Nodes are in order of their dependence, but for files that are out of order.
        loop {
            let before = data.0.len();
            for scope in 0..graph.scopes() {
                for (place, node) in graph.nodes(scope) {
                    let sizes = ["Shape", "Size"].contains(&node.op()) && node.domain().is_empty();
                    let controls = ["If", "Loop", "Scan"].contains(&node.op());
                    let reads = || node.inputs().iter().any(|name| !name.is_empty() && data.has(graph, scope, name));
                    if !sizes && (controls || reads()) {
                        data.0.insert(place);
                    }
                }
            }
            if data.0.len() == before {
                return data;
            }
        }
    }

    /// Whether the tensor that `scope` sees as `name` depends on the data.
    pub(crate) fn has(&self, graph: &Graph<'_>, scope: usize, name: &str) -> bool {
        match graph.origin(scope, name) {
            Some(Origin::Initializer(_)) => false,
            Some(Origin::Node(place)) => self.0.contains(&place),
            Some(Origin::Input) | None => true,
        }
    }
}

//! The stored tensors that nodes read, also in their subgraphs.

use crate::onnx::{Graph, NodeId, Origin, Tensor};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The stored tensors of the main graph behind each node, by way of constant nodes too.
pub(super) struct Weights<'m> {
    /// Names and bytes.
    tensors: Vec<(&'m str, u64)>,
    of_nodes: Vec<BTreeSet<usize>>,
    /// Bytes of all of them.
    pub(super) total: u64,
}

impl<'m> Weights<'m> {
    /// Those of the nodes `needed`, which read `reads`.
    pub(super) fn new(graph: &Graph<'m>, reads: &[Vec<&'m str>], needed: &BTreeSet<usize>) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let (mut tensors, mut of_nodes) = (Vec::new(), vec![BTreeSet::new(); reads.len()]);
        let mut constant = vec![false; reads.len()];
        let inside = inside(graph);
        for &node in needed {
            let (mut own, mut all_constant) = (BTreeSet::new(), true);
            for name in &reads[node] {
                match graph.origin(0, name) {
                    Some(Origin::Initializer(tensor)) => {
                        let next = tensors.len();
                        let number = *numbers.entry(*name).or_insert(next);
                        if number == next {
                            tensors.push((*name, size(&tensor)));
                        }
                        own.insert(number);
                    }
                    Some(Origin::Node(id)) if id.scope == 0 && constant[id.node] => own.extend(&of_nodes[id.node]),
                    _ => all_constant = false,
                }
            }
            let value = graph.node(NodeId { scope: 0, node }).tensor("value");
            let unnamed = value.iter().map(size).chain(inside.get(&node).into_iter().flatten().copied());
            for bytes in unnamed {
                own.insert(tensors.len());
                tensors.push(("", bytes));
            }
            (of_nodes[node], constant[node]) = (own, all_constant);
        }
        let total = tensors.iter().map(|(_, bytes)| bytes).sum();
        Self { tensors, of_nodes, total }
    }

    /// Bytes behind a node.
    pub(super) fn of_node(&self, node: usize) -> u64 {
        self.of_nodes[node].iter().map(|tensor| self.tensors[*tensor].1).sum()
    }

    /// The numbers of the tensors behind a node.
    pub(super) fn numbers(&self, node: usize) -> &BTreeSet<usize> {
        &self.of_nodes[node]
    }

    /// The name of the tensor of a number; empty for the value of a `Constant` and for what a subgraph stores.
    pub(super) fn name(&self, number: usize) -> &'m str {
        self.tensors[number].0
    }

    /// Bytes of the tensor of a number.
    pub(super) fn bytes(&self, number: usize) -> u64 {
        self.tensors[number].1
    }
}

/// The node of the main graph that a subgraph is in.
pub(super) fn owner(graph: &Graph<'_>, scope: usize) -> Option<usize> {
    let mut owner = graph.owner(scope)?;
    while owner.scope != 0 {
        owner = graph.owner(owner.scope)?;
    }
    Some(owner.node)
}

/// Bytes of each tensor that the subgraphs of a node of the main graph store.
fn inside(graph: &Graph<'_>) -> HashMap<usize, Vec<u64>> {
    let (mut found, mut seen): (HashMap<usize, Vec<u64>>, _) = (HashMap::new(), HashSet::new());
    for scope in 1..graph.scopes() {
        let Some(owner) = owner(graph, scope) else { continue };
        for (_, node) in graph.nodes(scope) {
            let mut sizes: Vec<u64> = node.tensor("value").iter().map(size).collect();
            for name in node.inputs() {
                let home = graph.home(scope, name).filter(|home| *home > 0 && !seen.contains(&(*home, name)));
                if let (Some(home), Some(Origin::Initializer(tensor))) = (home, graph.origin(scope, name)) {
                    seen.insert((home, name));
                    sizes.push(size(&tensor));
                }
            }
            found.entry(owner).or_default().extend(sizes);
        }
    }
    found
}

/// Bytes that a tensor takes.
fn size(tensor: &Tensor<'_>) -> u64 {
    let count = tensor.dims().iter().fold(1u64, |count, dim| count.saturating_mul(u64::try_from(*dim).unwrap_or(0)));
    count.saturating_mul(tensor.dtype().bits().unwrap_or(0) as u64).div_ceil(8)
}

//! The stored tensors that nodes read.

use crate::onnx::{Graph, NodeId, Origin, Tensor};
use std::collections::{BTreeSet, HashMap};

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
            if let Some(value) = value {
                own.insert(tensors.len());
                tensors.push(("", size(&value)));
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

    /// The name of the tensor of a number; empty for the value of a `Constant`.
    pub(super) fn name(&self, number: usize) -> &'m str {
        self.tensors[number].0
    }

    /// Bytes of the tensor of a number.
    pub(super) fn bytes(&self, number: usize) -> u64 {
        self.tensors[number].1
    }
}

/// Bytes that a tensor takes.
fn size(tensor: &Tensor<'_>) -> u64 {
    let count = tensor.dims().iter().fold(1u64, |count, dim| count.saturating_mul(u64::try_from(*dim).unwrap_or(0)));
    count.saturating_mul(tensor.dtype().bits().unwrap_or(0) as u64).div_ceil(8)
}

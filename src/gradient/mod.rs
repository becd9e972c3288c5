//! Gradients of a graph as more nodes of the same graph: reverse-mode differentiation in plain operators, which every
//! ONNX Runtime runs.
//!
//! [`backward`] walks from tensors whose gradient is known to the tensors whose gradient is wanted. Each operator on the
//! way has a rule (`rules`); an operator, or a form of one, without a rule is an error that names the node.

mod broadcast;
mod error;
mod late;
mod outline;
mod path;
mod recompute;
mod rules;
mod tape;
mod values;

pub use error::{Error, NoGradient};
pub(crate) use outline::{outline, unrounded};
pub use path::{Path, path};
pub(crate) use recompute::recompute;
pub use values::{Growth, TensorInfo, Values};

use crate::onnx::{Builder, Graph};
use std::collections::{BTreeSet, HashMap, HashSet};
use tape::Tape;

/// The nodes of a backward pass.
#[derive(Debug)]
pub struct Backward {
    /// The nodes and their constants.
    pub graph: Builder,
    /// The gradient of each wanted tensor, of its shape and element type, by its name. Tensors that the seeds do not
    /// depend on are left out.
    pub gradients: HashMap<String, String>,
    /// Operators that round activations, whose gradient is passed straight through.
    pub rounded: BTreeSet<String>,
    /// The gradient of every tensor on the way, or what it is made of, by its name.
    passed: HashMap<String, String>,
    /// For each node of the path, how many nodes of `graph` come before those of its rule.
    before: Vec<usize>,
}

impl Backward {
    /// Bytes of the tensors that the forward pass keeps for these nodes in a batch of another size, as far as `values` knows
    /// them.
    pub(crate) fn kept(&self, values: &Values, growth: &Growth) -> f64 {
        let read: HashSet<&String> = self.graph.nodes().iter().flat_map(|node| &node.inputs).collect();
        read.into_iter().map(|name| values.bytes(name, growth)).sum()
    }
}

/// The nodes that compute the gradients of the `wanted` tensors from those of the `seeds`, pairs of a tensor and its
/// gradient. `path` is the [path](path()) between the two, and `values` knows all tensors that its nodes read and produce.
///
/// # Errors
/// [`Error::NoGradient`] lists every node on the way that has no rule.
pub fn backward(
    graph: &Graph<'_>,
    path: &Path,
    values: &Values,
    seeds: &[(String, String)],
    wanted: &[String],
) -> Result<Backward, Error> {
    let mut tape = Tape::new(graph, values, path);
    for (tensor, gradient) in seeds {
        tape.add(tensor, gradient.clone());
    }
    let (mut without, mut rounded) = (Vec::new(), BTreeSet::new());
    let (mut passed, mut before) = (HashMap::new(), vec![0; path.nodes.len()]);
    for (index, id) in path.nodes.iter().enumerate().rev() {
        let node = graph.node(*id);
        let results: Vec<Option<String>> = node.outputs().iter().map(|name| tape.take(name)).collect();
        let known = node.outputs().iter().zip(&results);
        passed.extend(known.filter_map(|(name, gradient)| Some((name.clone(), tape.source(gradient.as_ref()?)))));
        before[index] = tape.len();
        if results.iter().all(Option::is_none) {
            continue;
        }
        tape.enter(node);
        if rules::rounds(node) {
            rounded.insert(node.op().to_owned());
        }
        match rules::apply(&mut tape, node, &results) {
            Ok(operands) => {
                for (name, gradient) in node.inputs().iter().zip(operands) {
                    if let Some(gradient) = gradient {
                        tape.add(name, gradient);
                    }
                }
            }
            Err(reason) => without.push(NoGradient::new(node, reason)),
        }
    }
    if !without.is_empty() {
        return Err(Error::NoGradient { nodes: without });
    }
    let mut gradients = HashMap::new();
    for name in wanted {
        if let Some(gradient) = tape.take(name) {
            tape.make(&gradient);
            gradients.insert(name.clone(), gradient);
        }
    }
    Ok(Backward { graph: tape.finish(), gradients, rounded, passed, before })
}

//! The nodes between the tensors whose gradient is wanted and those whose gradient is known.

use super::error::{Error, OLDEST_OPSET};
use crate::onnx::{Graph, NodeId, NodeView};
use std::collections::{HashSet, VecDeque};

/// The nodes that a gradient passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The nodes, in the order of the graph.
    pub nodes: Vec<NodeId>,
    /// The tensors that depend on those whose gradient is wanted, these included.
    pub varying: HashSet<String>,
}

/// Operators whose result does not vary with the values of their inputs, or only in steps.
const WITHOUT_SLOPE: &str = "
    And ArgMax ArgMin BitShift Ceil ConstantOfShape Equal EyeLike Floor Greater GreaterOrEqual IsInf IsNaN
    Less LessOrEqual NonZero Not Or Range Round Shape Sign Size Xor
";

/// The nodes between the `wanted` tensors and `ends`.
///
/// # Errors
/// [`Error::Opset`] when the operator set is too old, [`Error::Circle`] when nodes read each other's results,
/// [`Error::InSubgraph`] when an `If`, `Loop` or `Scan` reads a tensor that varies, [`Error::NoPath`] when no wanted
/// tensor reaches an end.
pub fn path(graph: &Graph<'_>, wanted: &[String], ends: &[String]) -> Result<Path, Error> {
    let opset = graph.model().opset();
    if opset < OLDEST_OPSET {
        return Err(Error::Opset { opset });
    }
    let order = sorted(graph)?;
    let varying = varying(graph, &order, wanted)?;
    let mut needed: HashSet<&str> = ends.iter().map(String::as_str).filter(|end| varying.contains(*end)).collect();
    let mut between = Vec::new();
    for id in order.iter().rev() {
        let node = graph.node(*id);
        let is_varying = node.inputs().iter().any(|name| varying.contains(name));
        if is_varying && node.outputs().iter().any(|name| needed.contains(name.as_str())) {
            between.push(*id);
            needed.extend(node.inputs().iter().map(String::as_str).filter(|name| varying.contains(*name)));
        }
    }
    between.reverse();
    if !wanted.iter().any(|name| needed.contains(name.as_str())) {
        return Err(Error::NoPath { first: wanted.first().cloned().unwrap_or_default() });
    }
    Ok(Path { nodes: between, varying })
}

/// The nodes of the main graph, each after those whose results it reads. ONNX asks for that order, but ONNX Runtime
/// accepts others, and some tools write them.
fn sorted(graph: &Graph<'_>) -> Result<Vec<NodeId>, Error> {
    let mut waiting: VecDeque<NodeId> = graph.nodes(0).map(|(id, _)| id).collect();
    let mut later: HashSet<&str> = graph.nodes(0).flat_map(|(_, node)| node.outputs()).map(String::as_str).collect();
    later.remove("");
    let mut order = Vec::with_capacity(waiting.len());
    // Nodes put off since the last one that was ready.
    let mut put_off = 0;
    while let Some(id) = waiting.pop_front() {
        let node = graph.node(id);
        if let Some(tensor) = node.inputs().iter().find(|name| later.contains(name.as_str())) {
            put_off += 1;
            if put_off > waiting.len() {
                return Err(Error::Circle { node: node.name().to_owned(), tensor: tensor.clone() });
            }
            waiting.push_back(id);
            continue;
        }
        put_off = 0;
        node.outputs().iter().for_each(|name| {
            later.remove(name.as_str());
        });
        order.push(id);
    }
    Ok(order)
}

fn has_slope(node: NodeView<'_>) -> bool {
    let to_integers = node.op() == "Cast" && node.dtype("to").is_some_and(|dtype| !dtype.is_float());
    !(node.domain().is_empty() && (to_integers || WITHOUT_SLOPE.split_whitespace().any(|op| op == node.op())))
}

/// The tensors of the main graph that vary with the `wanted` ones.
fn varying(graph: &Graph<'_>, order: &[NodeId], wanted: &[String]) -> Result<HashSet<String>, Error> {
    let mut varying: HashSet<String> = wanted.iter().cloned().collect();
    for id in order {
        let node = graph.node(*id);
        if has_slope(node) && node.inputs().iter().any(|name| varying.contains(name)) {
            varying.extend(node.outputs().iter().filter(|name| !name.is_empty()).cloned());
        }
    }
    let is_inside = |name: &&String| graph.readers(0, name).iter().any(|reader| reader.scope != 0);
    match varying.iter().filter(is_inside).min() {
        Some(tensor) => Err(Error::InSubgraph { tensor: tensor.clone() }),
        None => Ok(varying),
    }
}

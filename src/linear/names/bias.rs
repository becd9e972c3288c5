//! Module names in the names of biases.

use std::collections::{HashMap, HashSet};

use super::tensor::{WeightKey, base_name, weight_key};
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::Candidate;
use crate::onnx::{Graph, NodeId};

/// The bias of a layer.
pub(crate) struct Bias<'m> {
    /// The initializer.
    pub(crate) root: &'m str,
    /// The nearest name of the form `module.bias`, and the tensor of that name.
    named: Option<(&'m str, &'m str)>,
    /// The scope that defines the initializer.
    home: usize,
}

impl Bias<'_> {
    /// The module in the name of the bias.
    pub(crate) fn module(&self) -> Option<String> {
        let (module, _) = self.named?;
        Some(module.strip_suffix(".Add").unwrap_or(module).to_owned())
    }
}

/// Most nodes between a product and the addition of its bias: quantization, casts, reshapes.
const MAX_STEPS: usize = 4;

/// The bias that the layer's own node or the next one adds.
pub(crate) fn find<'m>(graph: &Graph<'m>, candidate: &Candidate<'m>) -> Option<Bias<'m>> {
    let scope = candidate.id.scope;
    let vector = |name| vector(graph, scope, name, candidate.out_features);
    if let Some(index) = candidate.bias_input {
        return candidate.node.input(index).and_then(vector);
    }
    let mut tensor = candidate.product;
    for _ in 0..MAX_STEPS {
        let [reader] = graph.readers(scope, tensor) else {
            return None;
        };
        let node = graph.node(*reader);
        match node.op() {
            "Cast" | "Reshape" | "QuantizeLinear" | "DequantizeLinear" | "Identity" => tensor = node.output()?,
            _ => {
                return bias_inputs(graph, *reader, tensor).into_iter().find_map(vector);
            }
        }
    }
    None
}

/// The inputs of `id` that may be the bias of `tensor`, which it reads.
fn bias_inputs<'m>(graph: &Graph<'m>, id: NodeId, tensor: &str) -> Vec<&'m str> {
    let node = graph.node(id);
    let indices: &[usize] = match node.op() {
        "Add" => &[0, 1],
        "BiasGelu" | "FastGelu" => &[1],
        "SkipLayerNormalization" => &[4],
        "QLinearAdd" => &[0, 3],
        _ => &[],
    };
    indices.iter().filter_map(|index| node.input(*index)).filter(|name| *name != tensor).collect()
}

fn vector<'m>(graph: &Graph<'m>, scope: usize, name: &'m str, size: usize) -> Option<Bias<'m>> {
    let operand = constant::resolve(graph, scope, name)?;
    let fits = operand.dims.as_ref().is_some_and(|dims| *dims == [size as i64]);
    fits.then(|| Bias { root: operand.root(), named: named(&operand), home: operand.home })
}

/// The name nearest to the layer that ends in `.bias`: where exporters merge equal tensors, an `Identity` keeps it.
fn named<'m>(operand: &Operand<'m>) -> Option<(&'m str, &'m str)> {
    let module = |name: &'m str| Some((base_name(name).strip_suffix(".bias")?, name));
    operand.names.iter().filter(|name| !name.starts_with('/')).find_map(|name| module(name))
}

/// Whether each layer's bias is its own: read by nothing but layers with the same weight, under the same name.
///
/// Exporters merge tensors with equal values; the name is then that of only one of several modules.
pub(crate) fn owned<'m>(graph: &Graph<'m>, candidates: &[Candidate<'m>], biases: &[Option<Bias<'m>>]) -> Vec<bool> {
    let keys: Vec<_> = candidates.iter().zip(biases).map(|(candidate, bias)| key(candidate, bias.as_ref()?)).collect();
    let mut layers: HashMap<&Key<'_>, usize> = HashMap::new();
    for key in keys.iter().flatten() {
        *layers.entry(key).or_default() += 1;
    }
    let readers = |(_, (home, tensor)): &Key<'_>| readers(graph, *home, tensor);
    let owned = |key: &Option<Key<'_>>| key.as_ref().is_some_and(|key| readers(key) == layers[key]);
    keys.iter().map(owned).collect()
}

fn key<'m>(candidate: &Candidate<'m>, bias: &Bias<'m>) -> Option<Key<'m>> {
    let (_, tensor) = bias.named?;
    Some((weight_key(&candidate.weight), (bias.home, tensor)))
}

/// A weight, and the scope and name of the bias next to it.
type Key<'m> = (WeightKey<'m>, (usize, &'m str));

/// Number of nodes that use the tensor under this name, directly or converted.
fn readers(graph: &Graph<'_>, home: usize, tensor: &str) -> usize {
    let mut seen = HashSet::from([(home, tensor)]);
    let mut open = vec![(home, tensor)];
    let mut count = 0;
    while let Some((scope, tensor)) = open.pop() {
        for id in graph.readers(scope, tensor) {
            let node = graph.node(*id);
            let passes = ["Identity", "DequantizeLinear", "QuantizeLinear", "Cast", "Reshape"].contains(&node.op());
            match node.output().filter(|_| passes) {
                Some(name) if node.op() == "Identity" && base_name(name).ends_with(".bias") => {}
                Some(name) if seen.insert((id.scope, name)) => open.push((id.scope, name)),
                Some(_) => {}
                None => count += 1,
            }
        }
    }
    count
}

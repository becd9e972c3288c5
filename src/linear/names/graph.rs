//! The names that the graph itself gives, for models that no PyTorch model has: exports of TensorFlow, PaddlePaddle,
//! JAX and scikit-learn.

use std::collections::{HashMap, HashSet};

use super::layer_name::LayerName;
use super::tensor::{base_name, weight_key};
use super::{bias, torchscript, weight};
use crate::linear::candidate::Candidate;
use crate::linear::layer::{GraphNames, NamedBy};
use crate::linear::module::is_plausible;
use crate::linear::reason::Reason;
use crate::onnx::Graph;

/// The names of `candidates`, in their order.
pub(crate) fn all(graph: &Graph<'_>, candidates: &[Candidate<'_>], names: GraphNames) -> Vec<LayerName> {
    let embeddings = weight::embeddings(graph);
    let own: Vec<String> = candidates.iter().map(|candidate| own(candidate, names)).collect();
    let short: Vec<&str> = own.iter().map(|name| without_product(name)).collect();
    let mut weights: HashMap<&str, HashSet<_>> = HashMap::new();
    for (candidate, name) in candidates.iter().zip(&short) {
        weights.entry(name).or_default().insert(weight_key(&candidate.weight));
    }
    let named = candidates.iter().zip(&own).zip(&short).map(|((candidate, own), short)| {
        let name = if weights[short].len() == 1 { short } else { own.as_str() };
        let module = match name {
            "" => Err(Reason::NodeWithoutName),
            name if is_plausible(name) => Ok((name.to_owned(), NamedBy::Graph)),
            _ => Err(Reason::Unnamed),
        };
        LayerName {
            module,
            bias: bias::find(graph, candidate).map(|bias| bias.root.to_owned()),
            fan_in_fan_out: false,
            tied: embeddings.contains(base_name(candidate.weight.root())),
            aliases: Vec::new(),
        }
    });
    named.collect()
}

/// The name of the weight or of the node, as a path with dots. Characters that are special in the patterns of PEFT's
/// config become underscores.
fn own(candidate: &Candidate<'_>, names: GraphNames) -> String {
    let name = match names {
        GraphNames::Weights => base_name(candidate.weight.root()),
        GraphNames::Nodes => candidate.node.name(),
    };
    let plain = |letter: char| match letter {
        '/' => '.',
        letter if letter.is_alphanumeric() || "._-".contains(letter) => letter,
        _ => '_',
    };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_matches('.');
    name.strip_suffix(".weight").unwrap_or(name).to_owned()
}

/// The path without the operator at its end: `model.dense` of `model.dense.MatMul`.
fn without_product(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((path, tail)) if torchscript::is_product(tail) => path,
        _ => name,
    }
}

//! PyTorch module paths, recovered from what exporters leave in a file.
//!
//! Sources in order: the scopes that the dynamo exporter records with every node, the weight's name, the bias's name,
//! the node's name and its output's name. A name that could be another module's is dropped rather than guessed.

mod bias;
pub(crate) mod certainty;
pub(crate) mod conflicts;
mod dynamo;
pub(crate) mod genai;
pub(crate) mod named;
mod packed;
pub(crate) mod tensor;
mod torchscript;
mod weight;

use super::candidate::Candidate;
use super::head;
use super::layer::{NamedBy, Part};
use super::module::{is_suffix, last, numbered};
use crate::onnx::Graph;
use bias::Bias;
use certainty::Modules;
use dynamo::Recorded;
use named::Named;
use tensor::base_name;
use torchscript::Leaves;
use weight::{embeddings, is_raw_parameter, keeps_own_weight, weight_module};

const RAW: &str = "its weight is not the weight of a PyTorch linear module";
pub(crate) const OTHER: &str = "its module is of another class than linear layers, which may do more";
pub(crate) const UNNAMED: &str =
    "no PyTorch module name can be recovered for it; --checkpoint, which compares weights, would tell it";

/// The names of `candidates`, in their order.
pub(crate) fn all(graph: &Graph<'_>, candidates: &[Candidate<'_>], modules: &Modules) -> Vec<Named> {
    let signature = dynamo::signature(graph);
    let embeddings = embeddings(graph);
    let biases: Vec<_> = candidates.iter().map(|candidate| bias::find(graph, candidate)).collect();
    let owned = bias::owned(graph, candidates, &biases);
    let mut all = Vec::new();
    for ((candidate, bias), owned) in candidates.iter().zip(&biases).zip(owned) {
        let tied = embeddings.contains(base_name(candidate.weight.root()));
        let recorded = dynamo::recorded(candidate.node, &signature);
        let module = match &recorded {
            Recorded::Module(module, _) => Ok((module.clone(), NamedBy::Scopes)),
            Recorded::Parameter(module) => Ok((module.clone(), NamedBy::Weight)),
            Recorded::NoModule => Err(RAW),
            Recorded::OtherModule => Err(OTHER),
            Recorded::Nothing if is_raw_parameter(candidate) => Err(RAW),
            Recorded::Nothing => {
                let weight = weight_module(candidate).map(|module| (module, NamedBy::Weight));
                let bias = bias.as_ref().filter(|_| owned).and_then(Bias::module);
                let bias = bias.filter(|module| !modules.is_outer(module));
                let own = weight.clone().filter(|_| !tied);
                own.or_else(|| by_bias_or_node(candidate, bias, &modules.leaves))
                    .or_else(|| weight.filter(|(module, _)| head::is_output_embedding(module)))
                    .ok_or(UNNAMED)
            }
        };
        let fan_in_fan_out = match recorded {
            Recorded::Module(_, Some(class)) => class.ends_with("Conv1D"),
            _ => module.as_ref().is_ok_and(|(module, _)| keeps_own_weight(candidate, module)),
        };
        let bias = bias.as_ref().map(|bias| bias.root.to_owned());
        all.push(Named { module, bias, fan_in_fan_out, tied });
    }
    all
}

/// The name that the bias, the node or its output gives.
///
/// A bias may be registered with a module around the layer, as in prediction heads; then the path in the node's name counts.
fn by_bias_or_node(candidate: &Candidate<'_>, bias: Option<String>, leaves: &Leaves) -> Option<(String, NamedBy)> {
    let node = leaves.of_node(candidate.node.name()).map(|module| (module, NamedBy::Node));
    let output = || Some((leaves.of_output(candidate.output)?, NamedBy::Output));
    let path = node.or_else(output);
    let is_own = |bias: &String| path.as_ref().is_none_or(|(path, _)| is_call_of(path, bias));
    let bias = bias.filter(is_own).map(|bias| (bias, NamedBy::Bias));
    bias.or(path).or_else(|| Some((packed::parent(candidate)?, NamedBy::Attention)))
}

/// Whether the last parts of both are equal, but for the number that TorchScript adds to repeated calls.
fn is_call_of(path: &str, module: &str) -> bool {
    let leaf = last(module);
    is_suffix(path, leaf) || numbered(path).is_some_and(|first| is_suffix(first, leaf))
}

/// The modules of a layer by what the graph says, or why they are not known.
pub(crate) fn parts(
    graph: &Graph<'_>,
    candidate: &Candidate<'_>,
    named: &Named,
    model_type: Option<&str>,
) -> Result<(Vec<Part>, NamedBy), String> {
    let (module, by) = named.module.as_ref().map_err(|reason| (*reason).to_owned())?;
    let parts = match by {
        NamedBy::Attention => packed::parts(candidate, module)?,
        _ if genai::is_genai(graph.model()) => genai::parts(graph, candidate, module, model_type)?,
        _ => vec![Part { module: module.clone(), columns: None, slice: None }],
    };
    Ok((parts, *by))
}

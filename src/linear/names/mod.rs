//! PyTorch module paths, recovered from what exporters record in a file; one source a file.
//!
//! Sources in order: the scopes that the dynamo exporter records with every node, the weight's name, the bias's name,
//! the node's name and its output's name. A name that could be another module's is dropped rather than guessed.

mod aliases;
mod bias;
pub(crate) mod bypass;
pub(crate) mod certainty;
pub(crate) mod conflicts;
mod dynamo;
pub(crate) mod genai;
pub(crate) mod graph;
pub(crate) mod layer_name;
mod packed;
pub(crate) mod tensor;
mod torchscript;
mod weight;

use super::candidate::Candidate;
use super::layer::{NamedBy, Part};
use super::module::{is_suffix, leaf, without_call_number};
use super::reason::Reason;
use crate::hub::conventions::is_output_embedding;
use crate::onnx::Graph;
use bias::Bias;
use certainty::Modules;
use dynamo::Recorded;
pub(crate) use dynamo::signature;
use layer_name::LayerName;

/// The names of `candidates`, in their order.
pub(crate) fn all(graph: &Graph<'_>, candidates: &[Candidate<'_>], modules: &Modules) -> Vec<LayerName> {
    let signature = signature(graph);
    let embeddings = weight::embeddings(graph);
    let biases: Vec<_> = candidates.iter().map(|candidate| bias::find(graph, candidate)).collect();
    let owned = bias::owned(graph, candidates, &biases);
    let modules_by_name = aliases::find(candidates.iter().map(|candidate| candidate.node), &signature);
    let with_bias = candidates.iter().zip(&biases).zip(owned);
    let named = with_bias.map(|((candidate, bias), owned)| {
        let tied = embeddings.contains(tensor::base_name(candidate.weight.root()));
        let recorded = dynamo::recorded(candidate.node, &signature);
        let module = match &recorded {
            Recorded::Module(module, _) => {
                let first = modules_by_name.get(module).map_or(module, |names| &names.first);
                Ok((first.clone(), NamedBy::Scopes))
            }
            Recorded::Parameter(module) => Ok((module.clone(), NamedBy::Weight)),
            Recorded::NoModule => Err(Reason::BareParameter),
            Recorded::OtherModule => Err(Reason::OtherClass),
            Recorded::Nothing => {
                let of_bias = bias.as_ref().filter(|_| owned).and_then(Bias::module);
                unrecorded(candidate, of_bias.filter(|module| !modules.is_outer(module)), tied, modules)
            }
        };
        let fan_in_fan_out = match recorded {
            Recorded::Module(_, Some(class)) => class.ends_with("Conv1D"),
            _ => module.as_ref().is_ok_and(|(module, _)| weight::is_stored_unchanged(candidate, module)),
        };
        let names = module.as_ref().ok().and_then(|(module, _)| modules_by_name.get(module));
        let aliases = names.map_or_else(Vec::new, |names| names.others.clone());
        LayerName { module, bias: bias.as_ref().map(|bias| bias.root.to_owned()), fan_in_fan_out, tied, aliases }
    });
    named.collect()
}

/// The name of a layer that the dynamo exporter records nothing about. `bias` is the module in the name of its bias,
/// and `tied` whether its weight is also that of an embedding.
fn unrecorded(
    candidate: &Candidate<'_>,
    bias: Option<String>,
    tied: bool,
    modules: &Modules,
) -> Result<(String, NamedBy), Reason> {
    if weight::is_bare_parameter(candidate) {
        return Err(Reason::BareParameter);
    }
    let weight = weight::module(candidate).map(|module| (module, NamedBy::Weight));
    // A tied weight has the name of the embedding or of the head.
    let certain = weight.clone().filter(|_| !tied);
    let path = || by_bias_or_path(candidate, bias, modules);
    let of_head = || weight.filter(|(module, _)| is_output_embedding(leaf(module)));
    certain.or_else(path).or_else(of_head).ok_or(Reason::Unnamed)
}

/// The name that the bias, the node or its output gives.
///
/// A bias may be registered with a module around the layer, as in prediction heads; then the path in the node's name is
/// used.
fn by_bias_or_path(candidate: &Candidate<'_>, bias: Option<String>, modules: &Modules) -> Option<(String, NamedBy)> {
    let paths = &modules.node_paths;
    let node = paths.of_node(candidate.node.name()).map(|module| (module, NamedBy::Node));
    let output = || Some((paths.of_output(candidate.output)?, NamedBy::Output));
    let path = node.or_else(output);
    if let Some(bias) = bias
        && path.as_ref().is_none_or(|(path, _)| is_call_of(path, &bias))
    {
        return Some((bias, NamedBy::Bias));
    }
    path.or_else(|| Some((packed::parent(candidate)?, NamedBy::Attention)))
}

/// Whether the last parts of both are equal, but for the number that TorchScript adds to repeated calls.
fn is_call_of(path: &str, module: &str) -> bool {
    let leaf = leaf(module);
    is_suffix(path, leaf) || without_call_number(path).is_some_and(|first| is_suffix(first, leaf))
}

/// The modules of a layer by what the graph says, or why they are not known.
pub(crate) fn parts(
    graph: &Graph<'_>,
    candidate: &Candidate<'_>,
    named: &LayerName,
    model_type: Option<&str>,
) -> Result<(Vec<Part>, NamedBy), Reason> {
    let (module, by) = named.module.as_ref().map_err(Reason::clone)?;
    let parts = match by {
        NamedBy::Attention => packed::parts(candidate, module)?,
        NamedBy::Graph => vec![Part::whole(module.as_str())],
        _ if genai::is_genai(graph.model()) => genai::parts(graph, candidate, module, model_type)?,
        _ => vec![Part::whole(module.as_str())],
    };
    Ok((parts, *by))
}

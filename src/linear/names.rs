//! PyTorch module paths, recovered from what exporters leave in a file.
//!
//! Sources in order: the scopes that the dynamo exporter records with every node, the weight's name, the bias's name,
//! the node's name and its output's name. A name that could be another module's is dropped rather than guessed.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use super::bias::{self, Bias};
use super::confirm::Modules;
use super::find::Candidate;
use super::operand::Operand;
use super::path::Leaves;
use super::scopes::{self, Recorded};
use super::{NamedBy, attention, head, operand, settle, target};
use crate::onnx::Graph;

/// What is known about the name of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The module path and its source, or why there is none.
    pub(crate) module: Result<(String, NamedBy), &'static str>,
    /// The bias initializer.
    pub(crate) bias: Option<String>,
    /// Whether the module is a GPT-2 `Conv1D`.
    pub(crate) fan_in_fan_out: bool,
    /// Whether the weight is an embedding's too.
    pub(crate) tied: bool,
}

const RAW: &str = "its weight is not the weight of a PyTorch linear module";
pub(crate) const OTHER: &str = "its module is of another class than linear layers, which may do more";
pub(crate) const UNNAMED: &str =
    "no PyTorch module name can be recovered for it; --checkpoint, which compares weights, would tell it";

/// The names of `candidates`, in their order.
pub(crate) fn all(graph: &Graph<'_>, candidates: &[Candidate<'_>], modules: &Modules) -> Vec<Named> {
    let signature = scopes::signature(graph);
    let embeddings = embeddings(graph);
    let biases: Vec<_> = candidates.iter().map(|candidate| bias::find(graph, candidate)).collect();
    let owned = bias::owned(graph, candidates, &biases);
    let mut all = Vec::new();
    for ((candidate, bias), owned) in candidates.iter().zip(&biases).zip(owned) {
        let tied = embeddings.contains(base_name(candidate.weight.root()));
        let recorded = scopes::recorded(candidate.node, &signature);
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
    bias.or(path).or_else(|| Some((attention::parent(candidate)?, NamedBy::Attention)))
}

/// Whether the last parts of both are equal, but for the number that TorchScript adds to repeated calls.
fn is_call_of(path: &str, module: &str) -> bool {
    let leaf = module.rsplit('.').next().unwrap_or(module);
    target::is_suffix(path, leaf) || settle::numbered(path).is_some_and(|first| target::is_suffix(first, leaf))
}

/// What quantizers and optimizers append to the name of a weight.
static APPENDED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = "(_quantized|_DQ_Q[48](_output)?|_Q[48]|_Bnb4|_(Dequantize|Quantize)Linear_Output|_merged_[0-9]+\
                   |_transposed)+$";
    Regex::new(pattern).ok()
});

/// The name of a stored tensor without what quantizers and optimizers append.
pub(crate) fn base_name(name: &str) -> &str {
    let appended = APPENDED.as_ref().and_then(|pattern| pattern.find(name));
    appended.map_or(name, |found| &name[..found.start()])
}

/// What weights that are the same in different storage have in common: their scope and the initializers' base name.
pub(crate) type WeightKey<'m> = (usize, &'m str);

/// The key of a weight.
///
/// Merged decoders number the weights of their branches, where equal numbers mean nothing.
pub(crate) fn weight_key<'m>(weight: &Operand<'m>) -> WeightKey<'m> {
    let root = weight.root();
    (weight.home, if root.contains("_merged_") { root } else { base_name(root) })
}

/// Whether a name was invented by an exporter.
pub(crate) fn is_invented(name: &str) -> bool {
    name.starts_with("onnx::") || name.starts_with('/') || name.starts_with("val_")
}

/// The module whose parameter the weight is called after.
///
/// Where exporters merge equal tensors, an `Identity` keeps the parameter's own name, so the name nearest to the layer
/// counts.
fn weight_module(candidate: &Candidate<'_>) -> Option<String> {
    let names = candidate.weight.names.iter().map(|name| base_name(name)).filter(|name| !is_invented(name));
    let mut modules = names.filter_map(|name| name.strip_suffix(".weight").or_else(|| name.strip_suffix(".qweight")));
    let module = modules.next()?;
    Some(module.strip_suffix(".MatMul").unwrap_or(module).to_owned())
}

/// Whether the weight has a parameter's name that no linear layer's weight has, as the packed `in_proj_weight` of
/// attention modules.
fn is_raw_parameter(candidate: &Candidate<'_>) -> bool {
    let names = candidate.weight.names.iter().map(|name| base_name(name));
    let leaf = names.filter(|name| !is_invented(name)).find_map(|name| Some(name.rsplit_once('.')?.1));
    leaf.is_some_and(|leaf| !leaf.starts_with("weight") && !leaf.starts_with("qweight"))
}

/// Whether the file stores the weight as [in, out] under the parameter's own name: only a `Conv1D` keeps it so, since
/// every exporter renames the weight of an `nn.Linear` when it transposes it.
fn keeps_own_weight(candidate: &Candidate<'_>, module: &str) -> bool {
    let root = candidate.weight.root();
    let own = base_name(root).strip_suffix(".weight") == Some(module);
    own && candidate.stored_in_out && !root.contains("_transposed")
}

/// Base names of the tensors that embeddings look up.
fn embeddings<'m>(graph: &Graph<'m>) -> HashSet<&'m str> {
    let mut found = HashSet::new();
    for scope in 0..graph.scopes() {
        for (_, node) in graph.nodes(scope) {
            let tables = match node.op() {
                "Gather" | "GatherBlockQuantized" => 0..1,
                "EmbedLayerNormalization" => 2..5,
                _ => continue,
            };
            let tables = tables.filter_map(|index| operand::resolve(graph, scope, node.input(index)?));
            let matrices = tables.filter(|table| table.tensor.dims().len() >= 2);
            found.extend(matrices.map(|table| base_name(table.root())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::base_name;

    #[test]
    fn base_names_lose_what_tools_append() {
        let same = |name: &str| {
            assert_eq!(base_name(name), "a.weight", "{name}");
        };
        same("a.weight");
        same("a.weight_quantized");
        same("a.weight_Q4");
        same("a.weight_DQ_Q4");
        same("a.weight_DQ_Q4_output");
        same("a.weight_merged_1");
        same("a.weight_transposed");
        same("a.weight_quantized_DequantizeLinear_Output");
        assert_eq!(base_name("onnx::MatMul_1_Bnb4"), "onnx::MatMul_1");
        assert_eq!(base_name("a.weight_Q4.b"), "a.weight_Q4.b");
    }
}

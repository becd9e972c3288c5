//! Module names in the names of weights.

use std::collections::HashSet;

use super::tensor::{base_name, is_invented};
use crate::graph::constant;
use crate::linear::candidate::Candidate;
use crate::linear::module::leaf;
use crate::onnx::Graph;

/// The module whose parameter gives the weight its name.
///
/// Where exporters merge equal tensors, an `Identity` keeps the parameter's own name, so the name nearest to the layer
/// is used.
pub(super) fn module(candidate: &Candidate<'_>) -> Option<String> {
    let names = candidate.weight.names.iter().map(|name| base_name(name)).filter(|name| !is_invented(name));
    let mut modules = names.filter_map(|name| name.strip_suffix(".weight").or_else(|| name.strip_suffix(".qweight")));
    let module = modules.next()?;
    Some(module.strip_suffix(".MatMul").unwrap_or(module).to_owned())
}

/// Whether the weight is named after a parameter that is not the weight of a linear layer, such as the packed
/// `in_proj_weight` of attention modules.
pub(super) fn is_bare_parameter(candidate: &Candidate<'_>) -> bool {
    let names = candidate.weight.names.iter().map(|name| base_name(name));
    let parameter = names.filter(|name| !is_invented(name)).find(|name| name.contains('.')).map(leaf);
    parameter.is_some_and(|name| !name.starts_with("weight") && !name.starts_with("qweight"))
}

/// Whether the file stores the weight as [in, out] under the parameter's own name. Only that of a `Conv1D` is: every
/// exporter renames the weight of an `nn.Linear` when it transposes it.
pub(super) fn is_stored_unchanged(candidate: &Candidate<'_>, module: &str) -> bool {
    let root = candidate.weight.root();
    let own = base_name(root).strip_suffix(".weight") == Some(module);
    own && candidate.stored_in_out && !root.contains("_transposed")
}

/// Base names of the tensors that embeddings look up.
pub(super) fn embeddings<'m>(graph: &Graph<'m>) -> HashSet<&'m str> {
    let mut found = HashSet::new();
    for scope in 0..graph.scopes() {
        for (id, node) in graph.nodes(scope) {
            let tables = match node.op() {
                "Gather" | "GatherBlockQuantized" => 0..1,
                "EmbedLayerNormalization" => 2..5,
                _ => continue,
            };
            let tables = tables.filter_map(|index| constant::operand(graph, id, index));
            let matrices = tables.filter(|table| table.tensor.dims().len() >= 2);
            found.extend(matrices.map(|table| base_name(table.root())));
        }
    }
    found
}

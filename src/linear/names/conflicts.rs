//! Names that several layers claim: repeated calls, adapters already in the graph, contradictions.

use std::collections::{HashMap, HashSet};

use super::layer_name::LayerName;
use super::tensor::{WeightKey, weight_key};
use crate::linear::candidate::Candidate;
use crate::linear::layer::NamedBy;
use crate::linear::module::{is_suffix, parent, without_call_number};
use crate::linear::reason::Reason;

/// Drops the `base_layer` that PEFT adds to names, and returns the indices of the layers of LoRA branches.
///
/// In PEFT models exported with TorchScript the branches are siblings of `base_layer` with the name of the adapter. The
/// two may be named by different sources, one of which leaves out the outermost modules.
pub(crate) fn adapters(candidates: &[Candidate<'_>], names: &mut [LayerName]) -> HashSet<usize> {
    let mut wrapped = HashSet::new();
    for (module, _) in names.iter_mut().filter_map(|named| named.module.as_mut().ok()) {
        if let Some(parent) = module.strip_suffix(".base_layer").map(str::to_owned) {
            wrapped.insert(parent.clone());
            *module = parent;
        }
    }
    let is_wrapped = |parent: &str| {
        let same = |other: &String| is_suffix(parent, other) || is_suffix(other, parent);
        wrapped.contains(parent) || wrapped.iter().any(same)
    };
    let is_of_adapter = |candidate: &Candidate<'_>, named: &LayerName| {
        let node = candidate.node.name();
        if node.starts_with("lora/") || node.starts_with("eva/") {
            return true;
        }
        let Ok((module, _)) = &named.module else { return false };
        module.split('.').any(|part| part.starts_with("lora_")) || (module.contains('.') && is_wrapped(parent(module)))
    };
    let all = candidates.iter().zip(&*names).enumerate();
    all.filter(|(_, (candidate, named))| is_of_adapter(candidate, named)).map(|(index, _)| index).collect()
}

/// Gives calls of one module one name: TorchScript names the second call of `query` `query_1`.
pub(crate) fn merge_repeated_calls(candidates: &[Candidate<'_>], names: &mut [LayerName]) {
    let mut calls: HashMap<WeightKey<'_>, HashSet<String>> = HashMap::new();
    for (candidate, named) in candidates.iter().zip(&*names) {
        let module = named.module.iter().map(|(module, _)| module.clone());
        calls.entry(weight_key(&candidate.weight)).or_default().extend(module);
    }
    for (candidate, named) in candidates.iter().zip(names) {
        let same = &calls[&weight_key(&candidate.weight)];
        if let Ok((name, NamedBy::Node | NamedBy::Output)) = &mut named.module {
            while let Some(first) = without_call_number(name).filter(|first| same.contains(*first)) {
                *name = first.to_owned();
            }
        }
    }
}

/// Layers with different weights that claim one name where the name is not recorded with them, by index. Those
/// of adapters claim none.
pub(crate) fn claimed_twice(
    candidates: &[Candidate<'_>],
    names: &[LayerName],
    adapters: &HashSet<usize>,
) -> HashMap<usize, Reason> {
    let mut claims: HashMap<&str, Vec<(usize, NamedBy)>> = HashMap::new();
    for (index, named) in names.iter().enumerate().filter(|(index, _)| !adapters.contains(index)) {
        if let Ok((module, by)) = &named.module {
            claims.entry(module).or_default().push((index, *by));
        }
    }
    let weight = |index: usize| weight_key(&candidates[index].weight);
    let mut twice = HashMap::new();
    for (module, claims) in claims {
        if claims.iter().all(|(index, _)| weight(*index) == weight(claims[0].0)) {
            continue;
        }
        for (index, by) in claims {
            if matches!(by, NamedBy::Node | NamedBy::Output | NamedBy::Graph) {
                twice.insert(index, Reason::ClaimedTwice { module: module.to_owned() });
            }
        }
    }
    twice
}

//! Names that several layers claim: repeated calls, adapters already in the graph, contradictions.

use std::collections::{HashMap, HashSet};

use super::named::Named;
use super::tensor::{WeightKey, weight_key};
use crate::linear::candidate::Candidate;
use crate::linear::layer::NamedBy;
use crate::linear::module::{is_suffix, numbered};

/// Drops the `base_layer` that PEFT puts into names and refuses the layers of LoRA branches.
///
/// In PEFT models exported with TorchScript the branches are siblings of `base_layer`, called after the adapter. The two
/// may be named by different sources, one of which leaves out the outermost modules.
pub(crate) fn adapters(candidates: &[Candidate<'_>], names: &mut [Named]) -> HashMap<usize, String> {
    let mut wrapped = HashSet::new();
    for (module, _) in names.iter_mut().filter_map(|named| named.module.as_mut().ok()) {
        if let Some(parent) = module.strip_suffix(".base_layer").map(str::to_owned) {
            wrapped.insert(parent.clone());
            *module = parent;
        }
    }
    let ends = |long: &str, short: &str| is_suffix(long, short);
    let is_wrapped = |parent: &str| {
        let same = |other: &String| ends(parent, other) || ends(other, parent);
        wrapped.contains(parent) || wrapped.iter().any(same)
    };
    let mut refused = HashMap::new();
    for (index, (candidate, named)) in candidates.iter().zip(&*names).enumerate() {
        let node = candidate.node.name();
        let module = named.module.as_ref().map_or("", |(module, _)| module.as_str());
        let spliced = ["lora/", "eva/"].iter().any(|prefix| node.starts_with(prefix));
        let branch = module.split('.').any(|part| part.starts_with("lora_"));
        let sibling = module.rsplit_once('.').is_some_and(|(parent, _)| is_wrapped(parent));
        if spliced || branch || sibling {
            refused.insert(index, "it belongs to an adapter that the graph contains already".to_owned());
        }
    }
    refused
}

/// Gives calls of one module one name: TorchScript calls the second call of `query` `query_1`.
pub(crate) fn merge_repeated_calls(candidates: &[Candidate<'_>], names: &mut [Named]) {
    let mut calls: HashMap<WeightKey<'_>, HashSet<String>> = HashMap::new();
    for (candidate, named) in candidates.iter().zip(&*names) {
        let module = named.module.iter().map(|(module, _)| module.clone());
        calls.entry(weight_key(&candidate.weight)).or_default().extend(module);
    }
    for (candidate, named) in candidates.iter().zip(names) {
        let same = &calls[&weight_key(&candidate.weight)];
        if let Ok((name, NamedBy::Node | NamedBy::Output)) = &mut named.module {
            while let Some(first) = numbered(name).filter(|first| same.contains(*first)) {
                *name = first.to_owned();
            }
        }
    }
}

/// Refuses layers with different weights that claim one name, where the name is not recorded with them.
pub(crate) fn claimed_twice(
    candidates: &[Candidate<'_>],
    names: &[Named],
    refused: &HashMap<usize, String>,
) -> HashMap<usize, String> {
    let mut claims: HashMap<&str, Vec<(usize, NamedBy)>> = HashMap::new();
    for (index, named) in names.iter().enumerate().filter(|(index, _)| !refused.contains_key(index)) {
        if let Ok((module, by)) = &named.module {
            claims.entry(module).or_default().push((index, *by));
        }
    }
    let mut twice = HashMap::new();
    let weak = |by| matches!(by, NamedBy::Node | NamedBy::Output);
    for (module, claims) in claims {
        let root = |index: usize| weight_key(&candidates[index].weight);
        if claims.iter().all(|(index, _)| root(*index) == root(claims[0].0)) {
            continue;
        }
        for (index, _) in claims.into_iter().filter(|(_, by)| weak(*by)) {
            twice.insert(index, format!("several layers with different weights would be called `{module}`"));
        }
    }
    twice
}

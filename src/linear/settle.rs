//! From named candidates to layers: adapters already in the graph, repeated calls, names claimed twice.

use std::collections::{HashMap, HashSet};

use super::confirm::{Modules, UNCERTAIN};
use super::constant::Data;
use super::consult::{self, Verdict};
use super::find::{Candidate, skip};
use super::names::{Named, OTHER, UNNAMED, WeightKey, weight_key};
use super::{Known, Linear, NamedBy, Part, Skipped, attention, confirm, genai, head, routed, target};
use crate::onnx::Graph;

/// The layers among `candidates`; the others are added to `skipped`.
pub(crate) fn linears(
    graph: &Graph<'_>,
    candidates: &[Candidate<'_>],
    mut names: Vec<Named>,
    known_modules: &Modules,
    known: &Known<'_>,
    skipped: &mut Vec<Skipped>,
) -> (Vec<Linear>, Vec<String>) {
    let mut refused = adapters(candidates, &mut names);
    let uncertain = confirm::complete(known_modules, &mut names);
    let consulted =
        known.checkpoint.map(|checkpoint| consult::consult(graph, candidates, &mut names, &refused, known, checkpoint));
    let Verdict { mut decided, confirmed, mut notes } = consulted.unwrap_or_default();
    let twice = claimed_twice(candidates, &names, &refused);
    let trusted = known.trust_node_names || genai::is_genai(graph.model());
    let uncertain = uncertain.into_iter().filter(|(index, _)| !trusted && !decided.contains_key(index));
    for (index, reason) in twice.into_iter().chain(uncertain).filter(|(index, _)| !confirmed.contains(index)) {
        refused.entry(index).or_insert(reason);
    }
    let data = Data::new(graph);
    let mut groups = HashMap::new();
    let mut linears: Vec<Linear> = Vec::new();
    for (index, (candidate, named)) in candidates.iter().zip(names).enumerate() {
        let parts = match (refused.remove(&index), decided.remove(&index)) {
            (Some(reason), _) => Err(reason),
            (None, Some(parts)) => parts.map(|parts| (parts, NamedBy::Checkpoint)),
            (None, None) => parts(graph, candidate, &named, known.model_type),
        };
        let other = |(parts, _): &(Vec<Part>, _)| {
            parts.iter().any(|part| known_modules.leaves.chooses(candidate.node.name(), &part.module))
        };
        match parts {
            Ok(parts) if other(&parts) => skipped.push(skip(candidate.node, OTHER.to_owned())),
            Ok((modules, named_by)) => {
                let next = groups.len();
                let home = graph.home(candidate.place.scope, candidate.input);
                let group = *groups.entry((home, candidate.input)).or_insert(next);
                let constant = !data.has(graph, candidate.place.scope, candidate.input);
                linears.push(Linear { constant, ..linear(graph, candidate, named, modules, named_by, group) });
            }
            Err(_) if !data.has(graph, candidate.place.scope, candidate.input) => {
                skipped.push(skip(candidate.node, CONSTANT.to_owned()));
            }
            Err(reason) => skipped.push(skip(candidate.node, reason)),
        }
    }
    skipped.extend(without_data(&mut linears));
    notes.extend(without_name(skipped));
    (linears, notes)
}

/// How many layers are left out for want of a name.
fn without_name(skipped: &[Skipped]) -> Option<String> {
    let without = |skipped: &&Skipped| [UNCERTAIN, UNNAMED].contains(&skipped.reason.as_str());
    let count = skipped.iter().filter(without).count();
    (count > 0).then(|| {
        format!("{count} layers are left out, as their names cannot be told for certain; `inspect` lists them")
    })
}

const CONSTANT: &str = "its input does not depend on the data";

/// Takes out the layers of modules that read nothing of the data.
fn without_data(linears: &mut Vec<Linear>) -> Vec<Skipped> {
    let modules = |linear: &Linear| linear.modules.iter().map(|part| part.module.clone()).collect::<Vec<_>>();
    let learning: HashSet<_> = linears.iter().filter(|linear| !linear.constant).flat_map(modules).collect();
    let taken =
        linears.extract_if(.., |linear| linear.constant && modules(linear).iter().any(|name| !learning.contains(name)));
    let name = |linear: &Linear| if linear.node.is_empty() { &linear.output } else { &linear.node }.clone();
    taken.map(|linear| Skipped { node: name(&linear), op: linear.op, reason: CONSTANT.to_owned() }).collect()
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
        NamedBy::Attention => attention::parts(candidate, module)?,
        _ if genai::is_genai(graph.model()) => genai::parts(graph, candidate, module, model_type)?,
        _ => vec![Part { module: module.clone(), columns: None, slice: None }],
    };
    Ok((parts, *by))
}

fn linear(
    graph: &Graph<'_>,
    candidate: &Candidate<'_>,
    named: Named,
    modules: Vec<Part>,
    named_by: NamedBy,
    group: usize,
) -> Linear {
    let head = modules.iter().any(|part| head::is_head(graph, candidate, &part.module, named.tied));
    Linear {
        node: candidate.node.name().to_owned(),
        op: candidate.node.op().to_owned(),
        scope: graph.path(candidate.place.scope).to_vec(),
        input: candidate.input.to_owned(),
        constant: false,
        routed: routed::is_routed(graph, candidate.place.scope, candidate.input),
        output: candidate.output.to_owned(),
        fused: candidate.fused.map(str::to_owned),
        weight: candidate.weight.root().to_owned(),
        in_features: candidate.in_features,
        out_features: candidate.out_features,
        dtype: candidate.weight.dtype.clone(),
        bias: named.bias,
        fan_in_fan_out: named.fan_in_fan_out,
        modules,
        named_by,
        group,
        head,
    }
}

/// Drops the `base_layer` that PEFT puts into names and refuses the layers of LoRA branches.
///
/// In PEFT models exported with TorchScript the branches are siblings of `base_layer`, called after the adapter. The two
/// may be named by different sources, one of which leaves out the outermost modules.
fn adapters(candidates: &[Candidate<'_>], names: &mut [Named]) -> HashMap<usize, String> {
    let mut wrapped = HashSet::new();
    for (module, _) in names.iter_mut().filter_map(|named| named.module.as_mut().ok()) {
        if let Some(parent) = module.strip_suffix(".base_layer").map(str::to_owned) {
            wrapped.insert(parent.clone());
            *module = parent;
        }
    }
    let ends = |long: &str, short: &str| target::is_suffix(long, short);
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
        if let Ok((module, NamedBy::Node | NamedBy::Output)) = &mut named.module {
            while let Some(first) = numbered(module).filter(|first| same.contains(*first)) {
                *module = first.to_owned();
            }
        }
    }
}

/// `a.query` of `a.query_12`.
pub(crate) fn numbered(module: &str) -> Option<&str> {
    let (first, number) = module.rsplit_once('_')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(first)
}

/// Refuses layers with different weights that claim one name, where the name is not recorded with them.
fn claimed_twice(
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

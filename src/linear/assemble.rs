//! From named candidates to layers: adapters already in the graph, repeated calls, names claimed twice.

use std::collections::{HashMap, HashSet};

use super::candidate::{Candidate, skip};
use super::checkpoint::verdict::{self, Verdict};
use super::head;
use super::layer::{Known, Linear, NamedBy, Part, Skipped};
use super::names::certainty::{self, Modules, UNCERTAIN};
use super::names::conflicts::{adapters, claimed_twice};
use super::names::named::Named;
use super::names::{OTHER, UNNAMED, genai, parts};
use crate::graph::data::Data;
use crate::graph::routed;
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
    let uncertain = certainty::complete(known_modules, &mut names);
    let consulted =
        known.checkpoint.map(|checkpoint| verdict::consult(graph, candidates, &mut names, &refused, known, checkpoint));
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
        dtype: candidate.weight.dtype,
        bias: named.bias,
        fan_in_fan_out: named.fan_in_fan_out,
        modules,
        named_by,
        group,
        head,
    }
}

//! From named candidates to layers.

use std::collections::HashSet;

use super::candidate::{Candidate, skip};
use super::checkpoint::{Verdict, verdict};
use super::head;
use super::layer::{Known, LayerInput, LayerOutput, LayerWeight, Linear, Location, NamedBy, Part, Skipped};
use super::names::bypass::Bypass;
use super::names::certainty::{self, Modules};
use super::names::layer_name::LayerName;
use super::names::{conflicts, genai, parts, signature};
use super::reason::Reason;
use crate::checkpoint::Checkpoint;
use crate::graph::data::Data;
use crate::graph::routed;
use crate::onnx::{Graph, NodeView, Origin};

/// What became of the candidates.
#[derive(Default)]
pub(crate) struct Assembled {
    pub(crate) linears: Vec<Linear>,
    pub(crate) skipped: Vec<Skipped>,
    /// Where the checkpoint and the graph disagree.
    pub(crate) notes: Vec<String>,
}

/// The modules of a layer and their source, or why it is not used.
type NamedParts = Result<(Vec<Part>, NamedBy), Reason>;

/// The layers among `candidates`, whose names the graph gives.
pub(crate) fn assemble(
    graph: &Graph<'_>,
    candidates: &[Candidate<'_>],
    mut layer_names: Vec<LayerName>,
    modules: &Modules,
    known: &Known<'_>,
) -> Assembled {
    let (decisions, notes) = decide(graph, candidates, &mut layer_names, modules, known);
    let data = Data::new(graph);
    let in_checkpoint = known.checkpoint.into_iter().flat_map(Checkpoint::matrices).map(|matrix| matrix.name);
    let bypass = Bypass::new(graph, &signature(graph), in_checkpoint);
    let mut assembled = Assembled { notes, ..Assembled::default() };
    for ((candidate, named), decision) in candidates.iter().zip(layer_names).zip(decisions) {
        let is_constant = !data.has(graph, candidate.id.scope, candidate.input);
        let node = candidate.node;
        let (computed, reason) = match decision {
            Ok((parts, by)) => match unfit(&parts, node, modules, &bypass).filter(|_| by != NamedBy::Graph) {
                Some(reason) => (names(&parts), reason),
                None => {
                    tracing::debug!(node = node.name(), module = %parts[0].module, by = by.as_str(), "layer");
                    assembled.linears.push(linear(graph, candidate, named, parts, by, is_constant));
                    continue;
                }
            },
            Err(_) if is_constant => (Vec::new(), Reason::ConstantInput),
            Err(reason) => (Vec::new(), reason),
        };
        assembled.skipped.push(skip(node, computed, reason));
    }
    assembled.skipped.extend(without_data(&mut assembled.linears));
    assembled
}

/// Why a node that computes `parts` is no layer that an adapter can be for.
fn unfit(parts: &[Part], node: NodeView<'_>, modules: &Modules, bypass: &Bypass) -> Option<Reason> {
    let any = |is: &dyn Fn(&str) -> bool| parts.iter().any(|part| is(&part.module));
    if any(&|module| modules.node_paths.chooses(node.name(), module)) {
        return Some(Reason::OtherClass);
    }
    any(&|module| bypass.is_bypassed(node, module)).then_some(Reason::Bypassed)
}

/// What each candidate computes, by the graph and the checkpoint; and notes for the user.
fn decide(
    graph: &Graph<'_>,
    candidates: &[Candidate<'_>],
    names: &mut [LayerName],
    modules: &Modules,
    known: &Known<'_>,
) -> (Vec<NamedParts>, Vec<String>) {
    let adapters = conflicts::adapters(candidates, names);
    let uncertain = certainty::complete(modules, names);
    let Verdict { mut decided, confirmed, notes } = match known.checkpoint {
        Some(checkpoint) => verdict(graph, candidates, names, &adapters, known, checkpoint),
        None => Verdict::default(),
    };
    let mut claimed_twice = conflicts::claimed_twice(candidates, names, &adapters);
    let are_paths_trusted = known.trust_node_names || genai::is_genai(graph.model());
    let decide = |(index, (candidate, named)): (usize, (&Candidate<'_>, &LayerName))| {
        if adapters.contains(&index) {
            return Err(Reason::Adapter);
        }
        let is_confirmed = confirmed.contains(&index);
        if let Some(reason) = claimed_twice.remove(&index).filter(|_| !is_confirmed) {
            return Err(reason);
        }
        if let Some(parts) = decided.remove(&index) {
            return parts.map(|parts| (parts, NamedBy::Checkpoint));
        }
        if uncertain.contains(&index) && !is_confirmed && !are_paths_trusted {
            return Err(Reason::Uncertain);
        }
        parts(graph, candidate, named, known.model_type)
    };
    let decisions = candidates.iter().zip(&*names).enumerate().map(decide).collect();
    (decisions, notes)
}

/// Removes the layers of modules that read nothing that depends on the data.
fn without_data(linears: &mut Vec<Linear>) -> Vec<Skipped> {
    let modules = |linear: &Linear| names(&linear.modules);
    let learning: HashSet<_> = linears.iter().filter(|linear| !linear.input.constant).flat_map(modules).collect();
    let is_without =
        |linear: &mut Linear| linear.input.constant && modules(linear).iter().any(|name| !learning.contains(name));
    let removed = linears.extract_if(.., is_without);
    let skipped = removed.map(|Linear { at, output, modules, .. }| Skipped {
        node: if at.node.is_empty() { output.tensor } else { at.node },
        op: at.op,
        modules: names(&modules),
        reason: Reason::ConstantInput,
    });
    skipped.collect()
}

fn names(parts: &[Part]) -> Vec<String> {
    parts.iter().map(|part| part.module.clone()).collect()
}

fn linear(
    graph: &Graph<'_>,
    candidate: &Candidate<'_>,
    named: LayerName,
    modules: Vec<Part>,
    named_by: NamedBy,
    constant: bool,
) -> Linear {
    let (scope, input) = (candidate.id.scope, candidate.input);
    let path = |scope: usize| graph.path(scope).to_vec();
    Linear {
        at: Location {
            node: candidate.node.name().to_owned(),
            op: candidate.node.op().to_owned(),
            subgraph: path(scope),
        },
        input: LayerInput {
            tensor: input.to_owned(),
            subgraph: graph.home(scope, input).map(path).unwrap_or_default(),
            routed: routed::is_routed(graph, scope, input),
            constant,
        },
        output: LayerOutput { tensor: candidate.output.to_owned(), fused: candidate.fused },
        weight: LayerWeight {
            tensor: candidate.weight.root().to_owned(),
            dtype: candidate.weight.dtype,
            bias: named.bias,
            fan_in_fan_out: named.fan_in_fan_out,
        },
        in_features: candidate.in_features,
        out_features: candidate.out_features,
        head: modules.iter().any(|part| head::is_head(graph, candidate, &part.module, named.tied)),
        modules,
        named_by,
        conditional: is_conditional(graph, scope),
    }
}

/// Whether a scope is in a branch that something other than a graph input decides on.
fn is_conditional(graph: &Graph<'_>, scope: usize) -> bool {
    let owners = std::iter::successors(graph.owner(scope), |owner| graph.owner(owner.scope));
    let mut conditions = owners.filter_map(|owner| Some((owner.scope, graph.node(owner).input(0)?)));
    conditions.any(|(scope, condition)| !matches!(graph.origin(scope, condition), Some(Origin::Input)))
}

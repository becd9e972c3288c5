//! What a checkpoint says about names: it decides where the graph records none, or other ones.

use std::collections::{HashMap, HashSet};

use super::compare::{Match, WeightIndex};
use crate::checkpoint::Checkpoint;
use crate::graph::logits;
use crate::hub::conventions::{is_output_embedding, tied_head};
use crate::linear::candidate::Candidate;
use crate::linear::layer::{Known, NamedBy, Part};
use crate::linear::module::leaf;
use crate::linear::names::layer_name::LayerName;
use crate::linear::names::parts;
use crate::linear::reason::Reason;
use crate::onnx::Graph;

/// What a checkpoint decides about layers, by their index.
#[derive(Default)]
pub(crate) struct Verdict {
    /// The modules of layers that the graph does not name, or names differently; or why they have none.
    pub(crate) decided: HashMap<usize, Result<Vec<Part>, Reason>>,
    /// Layers whose names it confirms.
    pub(crate) confirmed: HashSet<usize>,
    /// Remarks for the user.
    pub(crate) notes: Vec<String>,
}

/// A name that the checkpoint overrules.
struct Overruled {
    graph: String,
    checkpoint: String,
}

/// Notes on single layers; more are only counted.
const MOST_NOTES: usize = 5;

/// Compares the weights of the layers that do not belong to `adapters` with those of the checkpoint.
///
/// The names of layers that it decides are entered into `names`.
pub(crate) fn verdict(
    graph: &Graph<'_>,
    candidates: &[Candidate<'_>],
    names: &mut [LayerName],
    adapters: &HashSet<usize>,
    known: &Known<'_>,
    checkpoint: &Checkpoint,
) -> Verdict {
    let index = WeightIndex::new(checkpoint);
    let mut verdict = Verdict::default();
    let mut changes = Vec::new();
    let mut unknown = 0;
    for (at, candidate) in candidates.iter().enumerate().filter(|(at, _)| !adapters.contains(at)) {
        let named = &mut names[at];
        let own = parts(graph, candidate, named, known.model_type).map(|(parts, _)| parts);
        let found = by_use(graph, candidate, known, own.is_ok(), index.find(graph, candidate));
        tracing::debug!(node = candidate.node.name(), ?found, "compared with the checkpoint");
        if let Match::Modules { fan_in_fan_out, .. } = &found {
            named.fan_in_fan_out = *fan_in_fan_out;
        }
        unknown += usize::from(found == Match::Nothing);
        match decide(&own, found, &named.aliases) {
            Decision::Silent => {}
            Decision::Confirmed => {
                verdict.confirmed.insert(at);
            }
            Decision::Modules(parts) => {
                let module = parts[0].module.clone();
                if let Ok(own) = &own {
                    changes.push(Overruled { graph: own[0].module.clone(), checkpoint: module.clone() });
                }
                named.module = Ok((module, NamedBy::Checkpoint));
                verdict.decided.insert(at, Ok(parts));
            }
            Decision::Refused(reason) => {
                verdict.decided.insert(at, Err(reason));
            }
        }
    }
    verdict.notes = differences(&changes);
    if unknown > 0 {
        let all = candidates.len() - adapters.len();
        let text = "which are named by the graph alone, if at all";
        verdict.notes.push(format!("the checkpoint does not have the weights of {unknown} of {all} layers, {text}"));
    }
    verdict
}

/// Settles matches with several modules, or with an embedding, by what the result of the layer is used for. `has_name`
/// says whether the graph names the layer.
fn by_use(graph: &Graph<'_>, candidate: &Candidate<'_>, known: &Known<'_>, has_name: bool, found: Match) -> Match {
    let scope = candidate.id.scope;
    match &found {
        Match::Embedding(_) if !has_name => match known.architecture.and_then(tied_head) {
            // Exporters may call the output as they like.
            Some(module) if logits::reaches_output(graph, scope, candidate.output) => whole(module),
            _ => found,
        },
        Match::Several(modules) => {
            let heads: Vec<&String> = modules.iter().filter(|module| is_output_embedding(leaf(module))).collect();
            match heads[..] {
                [module] if logits::reaches_logits(graph, scope, candidate.output) => whole(module),
                _ => found,
            }
        }
        _ => found,
    }
}

fn whole(module: &str) -> Match {
    Match::Modules { parts: vec![Part::whole(module)], fan_in_fan_out: false }
}

/// What the checkpoint says about one layer.
enum Decision {
    /// Nothing.
    Silent,
    /// The graph is right.
    Confirmed,
    /// These are its modules.
    Modules(Vec<Part>),
    /// The layer cannot be used.
    Refused(Reason),
}

/// The conclusion from what the graph calls a layer, also by `aliases`, and from what the checkpoint has.
fn decide(own: &Result<Vec<Part>, Reason>, found: Match, aliases: &[String]) -> Decision {
    let is_alias = |parts: &[Part]| matches!(parts, [part] if aliases.contains(&part.module));
    match (own, found) {
        (Ok(own), Match::Modules { parts, .. }) if *own == parts || is_alias(&parts) => Decision::Confirmed,
        (_, Match::Modules { parts, .. }) => Decision::Modules(parts),
        (Ok(own), Match::Several(modules)) if own.iter().all(|part| modules.contains(&part.module)) => {
            Decision::Confirmed
        }
        (_, Match::Several(modules)) => Decision::Refused(Reason::SeveralInCheckpoint { modules }),
        // It says nothing about the name.
        (Ok(_), Match::Embedding(_)) => Decision::Silent,
        (Err(_), Match::Embedding(module)) => Decision::Refused(Reason::EmbeddingInCheckpoint { module }),
        (_, Match::Parameter(name)) => Decision::Refused(Reason::ParameterInCheckpoint { name }),
        (_, Match::Nothing | Match::Unreadable) => Decision::Silent,
    }
}

/// Notes on the names that the checkpoint overrules: one if they differ only by a prefix.
fn differences(changes: &[Overruled]) -> Vec<String> {
    let longer = changes.iter().map(|change| prefix(&change.checkpoint, &change.graph));
    if let Some(prefix) = only(longer) {
        let text = "which those of the graph lack; the checkpoint's are used";
        return vec![format!("names in the checkpoint start with `{prefix}`, {text}")];
    }
    let shorter = changes.iter().map(|change| prefix(&change.graph, &change.checkpoint));
    if let Some(prefix) = only(shorter) {
        let text = "which those of the checkpoint lack; the checkpoint's are used";
        return vec![format!("names in the graph start with `{prefix}`, {text}")];
    }
    let note = |Overruled { graph, checkpoint }: &Overruled| {
        format!("the graph calls a layer `{graph}`, the checkpoint `{checkpoint}`, which is used")
    };
    let mut notes: Vec<String> = changes.iter().take(MOST_NOTES).map(note).collect();
    match changes.len().saturating_sub(MOST_NOTES) {
        0 => {}
        1 => notes.push("1 more name differs; that of the checkpoint is used".to_owned()),
        more => notes.push(format!("{more} more names differ; those of the checkpoint are used")),
    }
    notes
}

/// What `long` has before `short`, up to a dot.
fn prefix<'a>(long: &'a str, short: &str) -> Option<&'a str> {
    long.strip_suffix(short).filter(|prefix| prefix.ends_with('.'))
}

/// The item that all items are.
fn only<'a>(mut items: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let first = items.next()??;
    items.all(|item| item == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(changed: &[(&str, &str)], notes: &[&str]) {
        let changed: Vec<_> = changed
            .iter()
            .map(|(graph, checkpoint)| Overruled { graph: (*graph).to_owned(), checkpoint: (*checkpoint).to_owned() })
            .collect();
        assert_eq!(differences(&changed), notes);
    }

    #[test]
    fn notes() {
        check(&[], &[]);
        check(
            &[("a.q", "encoder.a.q"), ("a.k", "encoder.a.k")],
            &[
                "names in the checkpoint start with `encoder.`, which those of the graph lack; the checkpoint's are used",
            ],
        );
        check(
            &[("bert.a", "a")],
            &["names in the graph start with `bert.`, which those of the checkpoint lack; the checkpoint's are used"],
        );
        check(
            &[("a", "b"), ("c", "x.c")],
            &[
                "the graph calls a layer `a`, the checkpoint `b`, which is used",
                "the graph calls a layer `c`, the checkpoint `x.c`, which is used",
            ],
        );
    }
}

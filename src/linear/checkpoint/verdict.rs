//! Names checked against a checkpoint: it decides where the graph is silent or says something else.

use std::collections::{HashMap, HashSet};

use super::compare::{Index, Match};
use crate::checkpoint::Checkpoint;
use crate::graph::logits;
use crate::linear::candidate::Candidate;
use crate::linear::head;
use crate::linear::layer::{Known, NamedBy, Part};
use crate::linear::names::named::Named;
use crate::linear::names::parts;
use crate::onnx::Graph;

/// What a checkpoint decides about layers, by their index.
#[derive(Default)]
pub(crate) struct Verdict {
    /// The modules of layers that the graph does not name, or names differently; or why they have none.
    pub(crate) decided: HashMap<usize, Result<Vec<Part>, String>>,
    /// Layers whose names it confirms.
    pub(crate) confirmed: HashSet<usize>,
    /// Remarks for the user.
    pub(crate) notes: Vec<String>,
}

/// Notes on single layers, before the rest is only counted.
const MOST_NOTES: usize = 5;

/// Compares the weights of the layers that are not `refused` with those of the checkpoint.
///
/// The names of layers that it decides are entered into `names`.
pub(crate) fn consult(
    graph: &Graph<'_>,
    candidates: &[Candidate<'_>],
    names: &mut [Named],
    refused: &HashMap<usize, String>,
    known: &Known<'_>,
    checkpoint: &Checkpoint,
) -> Verdict {
    let index = Index::new(checkpoint);
    let tied_head = known.architecture.and_then(head::of_architecture);
    let mut verdict = Verdict::default();
    let mut changed = Vec::new();
    let (mut unknown, mut all) = (0, 0);
    for (at, candidate) in candidates.iter().enumerate().filter(|(at, _)| !refused.contains_key(at)) {
        let own = parts(graph, candidate, &names[at], known.model_type).map(|(parts, _)| parts);
        all += 1;
        let mut found = index.find(graph, candidate);
        let to_logits = || logits::reaches_logits(graph, candidate.place.scope, candidate.output);
        // Exporters may call the output as they like.
        let returned = || logits::reaches(graph, candidate.place.scope, candidate.output, |_| true);
        if let (Match::Embedding(_), Some(module)) = (&found, tied_head.filter(|_| own.is_err() && returned())) {
            found = whole(module);
        }
        if let Match::Several(modules) = &found {
            let mut heads = modules.iter().filter(|module| head::is_output_embedding(module) && to_logits());
            if let (Some(module), None) = (heads.next(), heads.next()) {
                found = whole(module);
            }
        }
        if let Match::Modules(_, conv) = &found {
            names[at].fan_in_fan_out = *conv;
        }
        match found {
            Match::Nothing => unknown += 1,
            Match::Unreadable => {}
            // It says nothing about the name.
            Match::Embedding(_) if own.is_ok() => {}
            found => match decide(&own, found) {
                None => {
                    verdict.confirmed.insert(at);
                }
                Some(parts) => {
                    if let (Ok(own), Ok(parts)) = (&own, &parts) {
                        changed.push((own[0].module.clone(), parts[0].module.clone()));
                    }
                    if let Ok(parts) = &parts {
                        names[at].module = Ok((parts[0].module.clone(), NamedBy::Checkpoint));
                    }
                    verdict.decided.insert(at, parts);
                }
            },
        }
    }
    verdict.notes = differences(&changed);
    if unknown > 0 {
        let text =
            "layers have weights that the checkpoint does not have; their names, if any, come from the graph alone";
        verdict.notes.push(format!("{unknown} of {all} {text}"));
    }
    verdict
}

fn whole(module: &str) -> Match {
    Match::Modules(vec![Part { module: module.to_owned(), columns: None, slice: None }], false)
}

/// What replaces the graph's own modules; nothing if they are right.
fn decide(own: &Result<Vec<Part>, String>, found: Match) -> Option<Result<Vec<Part>, String>> {
    let refuse = |reason: String| Some(Err(reason));
    match (own, found) {
        (Ok(own), Match::Modules(parts, _)) if *own == parts => None,
        (_, Match::Modules(parts, _)) => Some(Ok(parts)),
        (Ok(own), Match::Several(modules)) if own.iter().all(|part| modules.contains(&part.module)) => None,
        (_, Match::Several(modules)) => refuse(format!(
            "its weight is that of `{}` in the checkpoint, and which is meant is unknown",
            modules.join("` and of `")
        )),
        (_, Match::Embedding(module)) => refuse(format!(
            "its weight is that of the embedding `{module}`, and the checkpoint has no name for the layer itself"
        )),
        (_, Match::Raw(name)) => {
            refuse(format!("its weight is the parameter `{name}`, which is not the weight of a linear module"))
        }
        (_, Match::Nothing | Match::Unreadable) => None,
    }
}

/// Where the checkpoint overrules the graph: in one sentence if only a prefix differs.
fn differences(changed: &[(String, String)]) -> Vec<String> {
    let longer = |(graph, checkpoint): &(String, String)| {
        checkpoint.strip_suffix(graph.as_str()).filter(|prefix| prefix.ends_with('.')).map(str::to_owned)
    };
    let shorter = |(graph, checkpoint): &(String, String)| longer(&(checkpoint.clone(), graph.clone()));
    for (prefix, text) in [(&longer as &dyn Fn(&_) -> _, "have"), (&shorter, "lack")] {
        let prefixes: HashSet<Option<String>> = changed.iter().map(prefix).collect();
        if let [Some(prefix)] = &prefixes.into_iter().collect::<Vec<_>>()[..] {
            return vec![format!("the names in the checkpoint {text} the prefix `{prefix}`, and are used")];
        }
    }
    let line = |(graph, checkpoint): &(String, String)| {
        format!("`{graph}` by the graph is `{checkpoint}` by the checkpoint, which is used")
    };
    let mut notes: Vec<String> = changed.iter().take(MOST_NOTES).map(line).collect();
    if changed.len() > MOST_NOTES {
        notes.push(format!("{} more names differ, and those of the checkpoint are used", changed.len() - MOST_NOTES));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(changed: &[(&str, &str)], notes: &[&str]) {
        let owned: Vec<_> = changed.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(differences(&owned), notes);
    }

    #[test]
    fn notes() {
        check(&[], &[]);
        check(
            &[("a.q", "encoder.a.q"), ("a.k", "encoder.a.k")],
            &["the names in the checkpoint have the prefix `encoder.`, and are used"],
        );
        check(&[("bert.a", "a")], &["the names in the checkpoint lack the prefix `bert.`, and are used"]);
        check(
            &[("a", "b"), ("c", "x.c")],
            &[
                "`a` by the graph is `b` by the checkpoint, which is used",
                "`c` by the graph is `x.c` by the checkpoint, which is used",
            ],
        );
    }
}

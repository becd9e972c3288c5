//! The linear layers of a model and their PyTorch module names.
//!
//! [`find`] lists every layer whose weight is a constant matrix, and everything that looks like one but cannot be used,
//! with the reason. A checkpoint gives the names that the graph has lost ([`find_knowing`]). [`Rename`] adjusts the
//! names, [`select()`] chooses layers the way PEFT does.

mod assemble;
mod candidate;
mod checkpoint;
mod error;
mod head;
mod layer;
pub mod module;
mod names;
mod ops;
mod reason;
mod rename;
mod select;

use crate::onnx::{Graph, Model};
use assemble::{Assembled, assemble};
use candidate::{Candidate, skip};
use names::certainty::Modules;
use names::conflicts::merge_repeated_calls;
use names::layer_name::LayerName;
use std::collections::{BTreeMap, BTreeSet};

pub use error::Error;
pub use layer::{
    GraphNames, Known, LayerInput, LayerOutput, LayerWeight, Linear, Location, NamedBy, Part, Skipped, Slice, in_half,
};
pub use reason::{Fused, Reason};
pub use rename::Rename;
pub use select::{Targets, select};

/// The layers of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Those that can be used.
    pub linears: Vec<Linear>,
    /// Nodes that look like layers but cannot be used.
    pub skipped: Vec<Skipped>,
    /// Where the checkpoint and the graph disagree, and how many layers lack a name, as sentences.
    pub notes: Vec<String>,
}

/// Lists the linear layers of the main graph and of the branches of its `If` nodes in node order, and the nodes that
/// look like linear layers but are not used.
///
/// Nodes without a constant operand (the products inside attention) are in neither list. `model_type` is that of the
/// model's `config.json`, if known; it decides whether the exporter packed packed projections.
pub fn find(model: &Model, model_type: Option<&str>) -> (Vec<Linear>, Vec<Skipped>) {
    let Layers { linears, skipped, .. } = find_knowing(model, &Known { model_type, ..Known::default() });
    (linears, skipped)
}

/// Lists the layers as [`find`] does; a checkpoint names those that the graph does not name, or names differently.
///
/// Weights are compared by value, exactly as far as their element types allow, and by the cosines of their columns if
/// they are quantized.
pub fn find_knowing(model: &Model, known: &Known<'_>) -> Layers {
    let graph = Graph::new(model);
    let (candidates, mut skipped) = recognise(&graph);
    let modules = Modules::new(&graph);
    let mut names = match known.graph_names {
        Some(own) => names::graph::all(&graph, &candidates, own),
        None => names::all(&graph, &candidates, &modules),
    };
    merge_repeated_calls(&candidates, &mut names);
    let several = several_names(&names);
    let assembled = assemble(&graph, &candidates, names, &modules, known);
    let Assembled { linears, skipped: unnamed, mut notes } = assembled;
    skipped.extend(unnamed);
    notes.extend(several.into_iter().chain(without_name(&skipped)).chain(without_call(&skipped)));
    notes.extend(conditional(&linears));
    Layers { linears, skipped, notes }
}

/// The candidates of all graphs in node order, and the nodes that cannot be used.
fn recognise<'m>(graph: &Graph<'m>) -> (Vec<Candidate<'m>>, Vec<Skipped>) {
    let mut candidates = Vec::new();
    let mut skipped = Vec::new();
    for (id, node) in (0..graph.scopes()).flat_map(|scope| graph.nodes(scope)) {
        match ops::recognise(graph, id, node) {
            Ok(found) => candidates.extend(found),
            Err(reason) => skipped.push(skip(node, Vec::new(), reason)),
        }
    }
    (candidates, skipped)
}

/// Which modules have several names.
fn several_names(names: &[LayerName]) -> Option<String> {
    let with_others = names.iter().filter_map(|named| Some((&named.module.as_ref().ok()?.0, &named.aliases)));
    let modules: BTreeMap<&String, &Vec<String>> = with_others.filter(|(_, others)| !others.is_empty()).collect();
    let (first, others) = modules.first_key_value()?;
    let and_more =
        if modules.len() > 1 { format!(" ({} more such modules)", modules.len() - 1) } else { String::new() };
    Some(format!(
        "`{first}` shares its parameters with `{}` and is taken for one module with several names, which PyTorch lists by \
         the first{and_more}",
        others.join("`, `")
    ))
}

/// Which modules are left out because PyTorch does not call them.
fn without_call(skipped: &[Skipped]) -> Option<String> {
    let bypassed = skipped.iter().filter(|skipped| skipped.reason == Reason::Bypassed);
    let modules: BTreeSet<&str> = bypassed.flat_map(|skipped| &skipped.modules).map(String::as_str).collect();
    let first = modules.first()?;
    let and_more = if modules.len() > 1 { format!(" and {} more", modules.len() - 1) } else { String::new() };
    Some(format!(
        "`{first}`{and_more} left out: PyTorch reads the weight without calling the module, as nn.MultiheadAttention does \
         with `out_proj`, so PEFT cannot train LoRA there"
    ))
}

/// Which layers `init` leaves out because they may not run.
fn conditional(linears: &[Linear]) -> Option<String> {
    let always = modules(linears.iter().filter(|linear| !linear.conditional));
    let sometimes: BTreeSet<&str> = modules(linears.iter().filter(|linear| linear.conditional));
    let modules: Vec<&str> = sometimes.difference(&always).copied().collect();
    let first = modules.first()?;
    let and_more = if modules.len() > 1 { format!(" and {} more", modules.len() - 1) } else { String::new() };
    Some(format!(
        "`init` gives no ranks to `{first}`{and_more}: what the model computes decides whether the branch of an `If` \
         around it runs"
    ))
}

fn modules<'a>(linears: impl Iterator<Item = &'a Linear>) -> BTreeSet<&'a str> {
    linears.flat_map(|linear| &linear.modules).map(|part| part.module.as_str()).collect()
}

/// How many layers are left out because they have no certain name.
fn without_name(skipped: &[Skipped]) -> Option<String> {
    let is_unnamed = |skipped: &&Skipped| matches!(skipped.reason, Reason::Uncertain | Reason::Unnamed);
    match skipped.iter().filter(is_unnamed).count() {
        0 => None,
        1 => Some("1 layer is left out because its name is uncertain; `inspect` lists it".to_owned()),
        count => Some(format!("{count} layers are left out because their names are uncertain; `inspect` lists them")),
    }
}

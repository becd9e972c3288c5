//! The layers a command works on, from its options.

use super::{Failure, args};
use eva_onnx::checkpoint::Checkpoint;
use eva_onnx::group::{Grouping, group};
use eva_onnx::hub::config::Beside;
use eva_onnx::linear::{self, Known, Layers, Linear, Rename, Skipped, Targets};
use eva_onnx::onnx::{Graph, Model, Origin};
use std::collections::{BTreeSet, HashSet};

/// The linear layers of a model, and which of them are meant.
pub(crate) struct Selection {
    pub(crate) linears: Vec<Linear>,
    pub(crate) skipped: Vec<Skipped>,
    /// Pairs of (layer, part) that are targeted.
    pub(crate) targeted: HashSet<(usize, usize)>,
    pub(crate) grouping: Grouping,
    /// Names of the modules that are not targeted.
    pub(crate) untargeted: Vec<String>,
    /// Where the graph and the checkpoint disagree.
    pub(crate) notes: Vec<String>,
}

/// Finds, renames and selects. A model without a layer to select is an error if one is `needed`.
pub(crate) fn select(
    model: &Model,
    options: &args::Selection,
    beside: &Beside,
    needed: bool,
) -> Result<Selection, Failure> {
    let Layers { linears, skipped, notes } = layers(model, &options.naming, beside)?;
    let exclude = options.exclude_modules.as_deref().map(targets).transpose()?;
    let chosen = linear::select(&linears, &targets(&options.target_modules)?, exclude.as_ref());
    let targeted: HashSet<_> = match chosen {
        Err(linear::Error::NoLinears) if !needed => HashSet::new(),
        // The output head may be all that has a name.
        Err(linear::Error::NothingTargeted { .. }) if !needed && options.target_modules == "all-linear" => {
            HashSet::new()
        }
        chosen => chosen?.into_iter().collect(),
    };

    let grouping = group(linears.iter().enumerate().map(|(i, linear)| {
        let parts = (0..linear.modules.len()).filter(|part| targeted.contains(&(i, *part)));
        (linear, parts.map(|part| &linear.modules[part]).collect::<Vec<_>>())
    }));
    let chosen: HashSet<&str> = grouping.modules.iter().map(|module| module.name.as_str()).collect();
    let all: BTreeSet<&str> = linears.iter().flat_map(|l| &l.modules).map(|part| part.module.as_str()).collect();
    let untargeted = all.into_iter().filter(|name| !chosen.contains(name)).map(str::to_owned).collect();
    Ok(Selection { targeted, grouping, untargeted, skipped, linears, notes })
}

const ENCODER: &str = "the encoder was exported on its own; config.json, which is not beside it, would tell what the \
                       names of its modules lack, and --add-prefix puts it, for example `encoder` or `model.encoder`";

/// Finds all layers, under the names that the options ask for.
pub(crate) fn layers(model: &Model, options: &args::Naming, beside: &Beside) -> Result<Layers, Failure> {
    let checkpoint = options.checkpoint.as_deref().map(Checkpoint::open).transpose()?;
    let known = Known {
        model_type: beside.model_type.as_deref(),
        architecture: beside.architecture.as_deref(),
        checkpoint: checkpoint.as_ref(),
        trust_node_names: options.trust_node_names,
    };
    let mut layers = linear::find_knowing(model, &known);
    let has = |text| layers.linears.iter().flat_map(|linear| &linear.modules).any(|part| part.module.contains(text));
    // Every T5 calls its encoder so, and no other model its layers.
    let t5 = beside.unknown_encoder && has(".SelfAttention.");
    let prefix = if t5 { Some(("encoder", "encoder.")) } else { beside.encoder_prefix };
    if let Some((prefix, _)) = prefix.filter(|(_, whole)| !has(*whole)) {
        Rename::new(None, Some(prefix), &[])?.apply(&mut layers.linears)?;
    }
    if beside.unknown_encoder && !t5 && options.checkpoint.is_none() && options.add_prefix.is_none() {
        layers.notes.push(ENCODER.to_owned());
    }
    let rename = Rename::new(options.strip_prefix.as_deref(), options.add_prefix.as_deref(), &options.rename)?;
    rename.apply(&mut layers.linears)?;
    Ok(layers)
}

/// `all-linear`, a comma-separated list of name endings, or one regular expression.
fn targets(text: &str) -> Result<Targets, Failure> {
    let values: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    match Targets::parse(&[text.to_owned()])? {
        regex @ Targets::Regex(_) => Ok(regex),
        _ => Ok(Targets::parse(&values)?),
    }
}

/// Rows of the embedding that reads `input_ids`.
pub(crate) fn embedding_rows(model: &Model) -> Option<usize> {
    let graph = Graph::new(model);
    graph.readers(0, "input_ids").iter().find_map(|place| {
        let node = graph.node(*place);
        let is_embedding = node.op() == "Gather" && node.input(1) == Some("input_ids");
        let Some(Origin::Initializer(table)) = graph.origin(place.scope, node.input(0)?).filter(|_| is_embedding)
        else {
            return None;
        };
        usize::try_from(*table.dims().first()?).ok()
    })
}

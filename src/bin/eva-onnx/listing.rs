//! The linear layers of a model for a person: by block, with where each name comes from and what is in the way.

use super::table::{self, counted};
use eva_onnx::results::{Cuts, Inspection, LayerInfo, ModuleInfo, NamedBy, split_block};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Nodes shown for each reason, before the rest is only counted.
const SHOWN: usize = 8;

pub(crate) fn listing(inspection: &Inspection) -> String {
    let Inspection { model, layers, .. } = inspection;
    let mut text = format!(
        "{}, opset {}, {}, {} in {}\n",
        model.producer,
        model.opset,
        counted(layers.len(), "linear layer"),
        counted(inspection.targeted_modules, "targeted module"),
        counted(inspection.groups, "group")
    );
    text += &named_by(layers);
    if !layers.is_empty() {
        text.push('\n');
        text += &blocks(layers);
    }
    let names = |layer: &LayerInfo| layer.modules.iter().map(|module| module.module.clone()).collect::<Vec<_>>();
    let fused = layers.iter().filter_map(|l| Some((l.fused.clone()?, title(&l.op, &l.node, &names(l)))));
    text += &by_reason("a LoRA branch cannot be added to these layers, though they can be initialised:", fused);
    let skipped = inspection.skipped.iter().map(|n| (n.reason.clone(), title(&n.op, &n.node, &n.modules)));
    text += &by_reason("not used:", skipped);
    text
}

/// The blocks in which a model runs.
pub(crate) fn cuts(cuts: &Cuts) -> String {
    if cuts.blocks.is_empty() {
        return "the model fits, and is not cut into blocks\n".to_owned();
    }
    let header = ["block", "nodes", "weights", "reads", "bytes/token", "modules", "of"].map(str::to_owned);
    let rows = cuts.blocks.iter().enumerate().map(|(at, block)| {
        let per_token = block.bytes_per_token().map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
        let blocks: Vec<&str> = block.modules.iter().map(|module| split_block(module).0).collect();
        let of = match (blocks.first(), blocks.last()) {
            (Some(first), Some(last)) if first != last => format!("{first}..{last}"),
            (Some(first), _) => (*first).to_owned(),
            _ => "-".to_owned(),
        };
        vec![
            (at + 1).to_string(),
            block.nodes.to_string(),
            format!("{:.1} MB", block.weight_bytes as f64 / 1e6),
            block.reads.len().to_string(),
            per_token,
            block.modules.len().to_string(),
            of,
        ]
    });
    let mut text = table::table(&header, rows);
    text += "\nread of the blocks before:\n";
    for (at, block) in cuts.blocks.iter().enumerate().skip(1) {
        let shown: Vec<&str> = block.reads.iter().take(SHOWN).map(|carried| carried.tensor.as_str()).collect();
        let more = block.reads.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let _ = writeln!(text, "  {}: {}{more}", at + 1, shown.join(", "));
    }
    text
}

/// How many names come from where.
fn named_by(layers: &[LayerInfo]) -> String {
    let mut counts: BTreeMap<NamedBy, usize> = BTreeMap::new();
    for layer in layers {
        *counts.entry(layer.named_by).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(source, count)| format!("{count} by {}", source.as_str())).collect();
    if counts.is_empty() { String::new() } else { format!("named: {}\n", counts.join(", ")) }
}

/// A node, with the modules that it computes.
fn title(op: &str, node: &str, modules: &[String]) -> String {
    if modules.is_empty() { format!("{op} {node}") } else { format!("{op} {node} ({})", modules.join(", ")) }
}

/// One table, with a line before each block.
fn blocks(layers: &[LayerInfo]) -> String {
    let header = ["module", "in", "out", "op", "group", "named by", "targeted"].map(str::to_owned);
    let mut names: Vec<String> = Vec::new();
    let mut by_block: BTreeMap<usize, Vec<Vec<String>>> = BTreeMap::new();
    for (layer, module) in layers.iter().flat_map(|layer| layer.modules.iter().map(move |module| (layer, module))) {
        let name = block(layer, module);
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        by_block.entry(at).or_default().push(row(layer, module));
    }
    let rows: Vec<(usize, Vec<String>)> =
        by_block.into_iter().flat_map(|(at, rows)| rows.into_iter().map(move |row| (at, row))).collect();
    let lines = table::table(&header, rows.iter().map(|(_, row)| row.clone()));
    let mut lines = lines.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    let mut last = None;
    for ((at, _), line) in rows.iter().zip(lines) {
        if last != Some(at) {
            let _ = writeln!(text, "{}", names[*at]);
            last = Some(at);
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The block of a module, and the subgraph that it is in, if any.
fn block(layer: &LayerInfo, module: &ModuleInfo) -> String {
    let block = match split_block(&module.module).0 {
        "" => "(outside the blocks)",
        block => block,
    };
    if layer.scope.is_empty() { block.to_owned() } else { format!("{block} in {}", layer.scope.join("/")) }
}

fn row(layer: &LayerInfo, module: &ModuleInfo) -> Vec<String> {
    let out = match module.slice {
        Some([start, end, of]) => format!("{start}..{end} of {of}"),
        None => module.out_features.to_string(),
    };
    vec![
        format!(" {}", split_block(&module.module).1),
        layer.in_features.to_string(),
        out,
        layer.op.clone(),
        module.group.map_or_else(|| "-".to_owned(), |group| group.to_string()),
        layer.named_by.as_str().to_owned(),
        if module.targeted { "yes" } else { "no" }.to_owned(),
    ]
}

/// A paragraph with each reason once and the nodes that it holds for.
fn by_reason(title: &str, nodes: impl Iterator<Item = (String, String)>) -> String {
    let mut order: Vec<(String, Vec<String>)> = Vec::new();
    for (reason, node) in nodes {
        match order.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, nodes)) => nodes.push(node),
            None => order.push((reason, vec![node])),
        }
    }
    let mut text = if order.is_empty() { String::new() } else { format!("\n{title}\n") };
    for (reason, nodes) in order {
        let _ = writeln!(text, "  {reason}:");
        nodes.iter().take(SHOWN).for_each(|node| {
            let _ = writeln!(text, "    {node}");
        });
        if nodes.len() > SHOWN {
            let _ = writeln!(text, "    and {} more", nodes.len() - SHOWN);
        }
    }
    text
}

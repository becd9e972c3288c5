//! The linear layers of a model for a person: by block, with where each name comes from and what is in the way.

use super::select::Selection;
use super::table;
use eva_onnx::linear::{Linear, NamedBy, Part};
use eva_onnx::onnx::Model;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Nodes shown for each reason, before the rest is only counted.
const SHOWN: usize = 8;

pub(crate) fn listing(model: &Model, selection: &Selection) -> String {
    let mut text = format!(
        "{} {}, opset {}, {} linear layers, {} targeted modules in {} groups\n",
        model.producer(),
        model.producer_version(),
        model.opset(),
        selection.linears.len(),
        selection.grouping.modules.len(),
        selection.grouping.groups.len()
    );
    text += &named_by(selection);
    if !selection.linears.is_empty() {
        text.push('\n');
        text += &blocks(selection);
    }
    let fused = selection.linears.iter().filter_map(|linear| Some((linear.output.fused?.to_string(), name(linear))));
    text += &by_reason("a branch cannot be added to these layers, though they can be initialised:", fused);
    let skipped = selection.skipped.iter().map(|node| (node.reason.to_string(), format!("{} {}", node.op, node.node)));
    text += &by_reason("not used:", skipped);
    text
}

/// How many names come from where.
fn named_by(selection: &Selection) -> String {
    let mut counts: BTreeMap<NamedBy, usize> = BTreeMap::new();
    for linear in &selection.linears {
        *counts.entry(linear.named_by).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(source, count)| format!("{count} by {}", source.as_str())).collect();
    if counts.is_empty() { String::new() } else { format!("named: {}\n", counts.join(", ")) }
}

fn name(linear: &Linear) -> String {
    let modules: Vec<&str> = linear.modules.iter().map(|part| part.module.as_str()).collect();
    format!("{} {} ({})", linear.at.op, linear.at.node, modules.join(", "))
}

/// One table, with a line before each block.
fn blocks(selection: &Selection) -> String {
    let header = ["module", "in", "out", "op", "group", "named by", "targeted"].map(str::to_owned);
    let parts = selection.linears.iter().enumerate();
    let parts =
        parts.flat_map(|(i, linear)| linear.modules.iter().enumerate().map(move |(p, part)| (i, linear, p, part)));
    let groups = selection.grouping.ids();
    let mut order: Vec<String> = Vec::new();
    let mut by_block: BTreeMap<usize, Vec<Vec<String>>> = BTreeMap::new();
    for (i, linear, p, part) in parts {
        let block = block(linear, part);
        let at = order.iter().position(|known| *known == block).unwrap_or_else(|| {
            order.push(block);
            order.len() - 1
        });
        let targeted = selection.targeted.contains(&(i, p));
        by_block.entry(at).or_default().push(row(linear, part, targeted, groups.get(part.module.as_str())));
    }
    let rows: Vec<(usize, Vec<String>)> =
        by_block.into_iter().flat_map(|(at, rows)| rows.into_iter().map(move |row| (at, row))).collect();
    let lines = table::table(&header, rows.iter().map(|(_, row)| row.clone()));
    let mut lines = lines.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    let mut last = None;
    for ((at, _), line) in rows.iter().zip(lines) {
        if last != Some(at) {
            let _ = writeln!(text, "{}", order[*at]);
            last = Some(at);
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The block of a module, in which branch of the graph it is, if in any.
fn block(linear: &Linear, part: &Part) -> String {
    let block = match table::block(&part.module) {
        "" => "(outside the blocks)",
        block => block,
    };
    if linear.at.subgraph.is_empty() {
        block.to_owned()
    } else {
        format!("{block} in {}", linear.at.subgraph.join("/"))
    }
}

/// One line; `group` is that of the module if it is targeted.
fn row(linear: &Linear, part: &Part, targeted: bool, group: Option<&usize>) -> Vec<String> {
    let out = match (part.slice, part.columns) {
        (Some(slice), _) => format!("{}..{} of {}", slice.start, slice.end, slice.of),
        (None, Some((from, to))) => (to - from).to_string(),
        (None, None) => linear.out_features.to_string(),
    };
    vec![
        format!(" {}", table::leaf(&part.module)),
        linear.in_features.to_string(),
        out,
        linear.at.op.clone(),
        group.map_or_else(|| "-".to_owned(), usize::to_string),
        linear.named_by.as_str().to_owned(),
        if targeted { "yes" } else { "no" }.to_owned(),
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

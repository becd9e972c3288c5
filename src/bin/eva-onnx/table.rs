//! Results as tables for a person.

use comfy_table::{CellAlignment, Table, presets};
use eva_onnx::calib::Counts;
use eva_onnx::eva::Stop;
use eva_onnx::report::{LayerReport, Report};
use std::fmt::Write;
use std::path::Path;

/// A table with right-aligned columns after the first.
pub(crate) fn table(header: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// The result of `init`.
pub(crate) fn report(report: &Report, counts: Counts, out: &Path) -> String {
    let mut text = String::new();
    text += &by_type(&report.layers);
    text.push('\n');
    text += &by_block(&report.layers);
    let _ = writeln!(text, "\n{}", summary(report, counts));
    let _ = writeln!(text, "adapter written to {}", out.display());
    text
}

fn summary(report: &Report, counts: Counts) -> String {
    let unconverged = report.layers.iter().filter(|layer| !layer.converged).count();
    let layers = report.layers.len();
    let reason = match report.stopped_by {
        Stop::Converged => "all layers converged".to_owned(),
        Stop::Exhausted => format!("end of the data, {unconverged} of {layers} layers not converged"),
        Stop::MaxBatches => format!("--max-batches, {unconverged} of {layers} layers not converged"),
        Stop::Interrupted => format!("interrupted, {unconverged} of {layers} layers not converged"),
    };
    let empty = report.layers.iter().filter(|layer| layer.rank == 0).count();
    let mut lines = vec![
        format!("{} of {} ranks given to {} of {layers} layers", report.ranks_total, report.budget, layers - empty),
        format!("{} batches, {} tokens, {} in the statistics", report.batches, report.tokens_seen, report.tokens_kept),
        format!("stopped by: {reason}"),
        format!(
            "{} on ONNX Runtime {}: {:.1} s (load {:.1}, model and sketch {:.1}, decompositions {:.1})",
            report.run.device,
            report.run.onnxruntime,
            report.seconds.total,
            report.seconds.load,
            report.seconds.forward_and_sketch,
            report.seconds.decompose,
        ),
    ];
    if counts.empty + counts.masked + counts.truncated > 0 {
        lines.push(format!(
            "{} rows cut to --max-length, {} without tokens and {} fully masked left out",
            counts.truncated, counts.empty, counts.masked
        ));
    }
    lines.join("\n")
}

/// One line a module type: how many, ranks, variance explained at the rank given, convergence.
fn by_type(layers: &[LayerReport]) -> String {
    let header = ["module", "layers", "rank min", "mean", "max", "explained", "converged"].map(str::to_owned);
    let rows = types(layers).into_iter().map(|kind| {
        let of: Vec<&LayerReport> = layers.iter().filter(|layer| leaf(&layer.module) == kind).collect();
        let ranks = || of.iter().map(|layer| layer.rank);
        let explained = |layer: &LayerReport| layer.explained_variance_ratio.iter().take(layer.rank).sum::<f64>();
        let n = of.len() as f64;
        vec![
            kind.to_owned(),
            of.len().to_string(),
            ranks().min().unwrap_or(0).to_string(),
            format!("{:.1}", ranks().sum::<usize>() as f64 / n),
            ranks().max().unwrap_or(0).to_string(),
            format!("{:.1}%", 100.0 * of.iter().map(|layer| explained(layer)).sum::<f64>() / n),
            format!("{}/{}", of.iter().filter(|layer| layer.converged).count(), of.len()),
        ]
    });
    table(&header, rows)
}

/// Ranks, one line a block and one column a module type.
fn by_block(layers: &[LayerReport]) -> String {
    let kinds = types(layers);
    let mut header = vec!["block".to_owned()];
    header.extend(kinds.iter().map(|kind| (*kind).to_owned()));
    let mut blocks: Vec<&str> = Vec::new();
    for layer in layers {
        let block = block(&layer.module);
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    let rows = blocks.into_iter().map(|name| {
        let cell = |kind: &&str| {
            let ranks = layers.iter().filter(|l| block(&l.module) == name && leaf(&l.module) == *kind);
            ranks.map(|l| l.rank.to_string()).collect::<Vec<_>>().join(" ")
        };
        let mut row = vec![if name.is_empty() { "-".to_owned() } else { name.to_owned() }];
        row.extend(kinds.iter().map(cell));
        row
    });
    table(&header, rows)
}

fn types(layers: &[LayerReport]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for layer in layers {
        let kind = leaf(&layer.module);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// What a module is called within its block: the path after the last number, `self_attn.q_proj`.
pub(crate) fn leaf(module: &str) -> &str {
    &module[split(module)..]
}

/// The block of a module: the path up to the last number, `model.layers.3`.
pub(crate) fn block(module: &str) -> &str {
    module[..split(module)].trim_end_matches('.')
}

fn split(module: &str) -> usize {
    let mut at = 0;
    let mut found = 0;
    for part in module.split_inclusive('.') {
        at += part.len();
        if part.trim_end_matches('.').parse::<u64>().is_ok() && at < module.len() {
            found = at;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(module: &str, want_block: &str, want_leaf: &str) {
        assert_eq!((block(module), leaf(module)), (want_block, want_leaf));
    }

    #[test]
    fn modules_split_at_their_last_number() {
        check("model.layers.3.self_attn.q_proj", "model.layers.3", "self_attn.q_proj");
        check("pooler.dense", "", "pooler.dense");
        check("blocks.0.seq.1", "blocks.0", "seq.1");
    }
}

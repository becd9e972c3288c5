//! Results as tables for a person.

use comfy_table::{CellAlignment, Table, presets};
use eva_onnx::results::{ModuleReport, Report, RowCounts, Stop, Summarised, split_block};
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

/// A number and what it counts: `1 layer`, `2 layers`, `2 batches`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let plural = match thing {
        _ if count == 1 => "",
        thing if thing.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {thing}{plural}")
}

/// The result of `init`.
pub(crate) fn summary(report: &Report<'_>, rows: RowCounts, out: &Path) -> String {
    let mut text = by_type(report.layers);
    text.push('\n');
    text += &by_block(report.layers);
    let _ = writeln!(text, "\n{}", totals(report, rows));
    let _ = writeln!(text, "adapter written to {}", out.display());
    text
}

/// The result of `init --summary`; `from` is the variable that says which shard it has.
pub(crate) fn summarised(run: &Summarised, from: Option<&str>) -> String {
    let (part, file) = (&run.part, run.file.display());
    let shard = part.shard;
    let of = if shard.count > 1 { format!(" of shard {shard}") } else { String::new() };
    let from = from.map_or_else(String::new, |from| format!(" ({from})"));
    if run.was_there {
        return format!("{file} holds the summary{of}{from} already: nothing was run\n");
    }
    let reason = match part.stopped_by {
        Stop::Converged => "all modules converged",
        Stop::MaxBatches => "--max-batches",
        Stop::Exhausted | Stop::Interrupted => "end of the data",
    };
    let (batches, tokens) = (counted(part.batches, "batch"), counted(part.tokens_seen, "token"));
    let kept = part.tokens_kept;
    format!(
        "{batches}, {tokens}, {kept} in the statistics\nstopped by: {reason}\nsummary{of}{from} written to {file}\n"
    )
}

fn totals(report: &Report<'_>, rows: RowCounts) -> String {
    let modules = report.layers.len();
    let unconverged = report.layers.iter().filter(|module| !module.converged).count();
    let reason = match report.stopped_by {
        Stop::Converged => "all modules converged".to_owned(),
        Stop::Exhausted => format!("end of the data, {unconverged} of {modules} modules not converged"),
        Stop::MaxBatches => format!("--max-batches, {unconverged} of {modules} modules not converged"),
        Stop::Interrupted => format!("interrupted, {unconverged} of {modules} modules not converged"),
    };
    let adapted = report.layers.iter().filter(|module| module.rank > 0).count();
    let batches = counted(report.totals.batches, "batch");
    let tokens = counted(report.totals.tokens_seen, "token");
    let Report { run, seconds, .. } = report;
    let mut lines = vec![
        format!("{} of {} ranks allocated to {adapted} of {modules} modules", report.ranks_total, report.budget),
        format!("{batches}, {tokens}, {} in the statistics", report.totals.tokens_kept),
        format!("stopped by: {reason}"),
    ];
    lines.push(if report.parts.is_empty() {
        format!(
            "{} on ONNX Runtime {}: {:.1} s (load {:.1}, model and sketch {:.1}, decompositions {:.1})",
            run.device, run.onnxruntime, seconds.total, seconds.load, seconds.forward_and_sketch, seconds.decompose,
        )
    } else {
        let parts = counted(report.parts.len(), "part");
        format!(
            "{parts} seen on {} with ONNX Runtime {}, merged in {:.1} s",
            run.device, run.onnxruntime, seconds.total
        )
    });
    if rows.empty + rows.masked + rows.truncated > 0 {
        lines.push(format!(
            "{} cut to --max-length; left out: {} without tokens, {} fully masked",
            counted(rows.truncated, "row"),
            rows.empty,
            rows.masked
        ));
    }
    lines.join("\n")
}

/// One line a module type: how many, ranks, variance explained at the rank given, convergence.
fn by_type(modules: &[ModuleReport]) -> String {
    let header = ["module type", "modules", "rank min", "mean", "max", "explained", "converged"].map(str::to_owned);
    let rows = types(modules).into_iter().map(|kind| {
        let of: Vec<&ModuleReport> = modules.iter().filter(|module| split_block(&module.name).1 == kind).collect();
        let ranks = || of.iter().map(|module| module.rank);
        let n = of.len() as f64;
        vec![
            kind.to_owned(),
            of.len().to_string(),
            ranks().min().unwrap_or(0).to_string(),
            format!("{:.1}", ranks().sum::<usize>() as f64 / n),
            ranks().max().unwrap_or(0).to_string(),
            format!("{:.1}%", 100.0 * of.iter().map(|module| module.explained_variance).sum::<f64>() / n),
            format!("{}/{}", of.iter().filter(|module| module.converged).count(), of.len()),
        ]
    });
    table(&header, rows)
}

/// Ranks, one line a block and one column a module type.
fn by_block(modules: &[ModuleReport]) -> String {
    let kinds = types(modules);
    let mut header = vec!["block".to_owned()];
    header.extend(kinds.iter().map(|kind| (*kind).to_owned()));
    let mut blocks: Vec<&str> = Vec::new();
    for module in modules {
        let (block, _) = split_block(&module.name);
        if !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    let rows = blocks.into_iter().map(|name| {
        let cell = |kind: &&str| {
            let ranks = modules.iter().filter(|m| split_block(&m.name) == (name, *kind));
            ranks.map(|m| m.rank.to_string()).collect::<Vec<_>>().join(" ")
        };
        let mut row = vec![if name.is_empty() { "-".to_owned() } else { name.to_owned() }];
        row.extend(kinds.iter().map(cell));
        row
    });
    table(&header, rows)
}

fn types(modules: &[ModuleReport]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for module in modules {
        let (_, kind) = split_block(&module.name);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

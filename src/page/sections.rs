//! The other sections of the page.

use super::chart::{Chart, Line};
use super::facts::{duration, percent, whole};
use super::grid::Grid;
use super::record::{Module, RunRecord, TrainRecord};
use maud::{Markup, html};

/// What the adapter is, beside a LoRA of one rank.
pub(super) fn overview(run: &RunRecord) -> Markup {
    let adapted: Vec<&Module> = run.layers.iter().filter(|module| module.rank > 0).collect();
    let ours: u64 = adapted.iter().map(|module| module.parameters(module.rank)).sum();
    let uniform: u64 = run.layers.iter().map(|module| module.parameters(run.rank)).sum();
    let explained = mean(adapted.iter().map(|module| module.explained()));
    html! {
        section {
            h2 { "Overview" }
            table {
                caption { "The adapter, and a LoRA of rank " (run.rank) " in every module" }
                thead { tr { td {} th scope="col" { "EVA" } th scope="col" { "uniform LoRA" } } }
                tbody {
                    tr { th scope="row" { "modules" } td { (adapted.len()) } td { (run.layers.len()) } }
                    tr { th scope="row" { "ranks" } td { (whole(run.ranks_total as u64)) } td { (whole(run.budget as u64)) } }
                    tr { th scope="row" { "parameters" } td { (whole(ours)) } td { (whole(uniform)) } }
                }
            }
            dl {
                dt { "Variance explained" } dd { (percent(explained)) ", mean of the modules" }
                dt { "Data" } dd {
                    (run.batches) @if run.batches == 1 { " batch, " } @else { " batches, " }
                    (whole(run.tokens_seen as u64)) " tokens, " (whole(run.tokens_kept as u64)) " in the statistics"
                    @if !run.data.is_empty() { " (" (run.data.join(", ")) ")" }
                }
                dt { "Ended" } dd { (ended(&run.stopped_by)) }
                dt { "Rank, rho, tau" } dd { (run.rank) ", " (run.rho) ", " (run.tau) }
            }
        }
    }
}

/// Why a run ended, as `eva.json` calls it.
fn ended(stopped_by: &str) -> &str {
    match stopped_by {
        "converged" => "when all components had converged",
        "data" => "at the end of the data",
        "max_batches" => "at the number of batches asked for",
        "interrupted" => "when it was interrupted",
        other => other,
    }
}

/// A row for each type of module.
pub(super) fn types(run: &RunRecord) -> Markup {
    let grid = Grid::of(run.layers.iter().map(|module| module.name.as_str()));
    let header = ["type", "modules", "rank: least", "mean", "most", "explained", "converged", "parameters"];
    html! {
        section {
            h2 { "Types of modules" }
            div.wide {
                table {
                    caption { "Ranks, variance explained and parameters by type of module" }
                    thead { tr { @for name in header { th scope="col" { (name) } } } }
                    tbody { @for (name, indices) in grid.by_type() { (kind(run, name, &indices)) } }
                }
            }
        }
    }
}

fn kind(run: &RunRecord, name: &str, indices: &[usize]) -> Markup {
    let of: Vec<&Module> = indices.iter().map(|&index| &run.layers[index]).collect();
    let ranks = || of.iter().map(|module| module.rank);
    let converged = of.iter().filter(|module| module.converged).count();
    html! {
        tr {
            th scope="row" { (name) }
            td { (of.len()) }
            td { (ranks().min().unwrap_or(0)) }
            td { (format!("{:.1}", mean(ranks().map(|rank| rank as f64)))) }
            td { (ranks().max().unwrap_or(0)) }
            td { (percent(mean(of.iter().map(|module| module.explained())))) }
            td { (converged) "/" (of.len()) }
            td { (whole(of.iter().map(|module| module.parameters(module.rank)).sum())) }
        }
    }
}

/// How the components settled over the batches.
pub(super) fn convergence(run: &RunRecord) -> Markup {
    let batches = || (1..).map(f64::from).zip(&run.history);
    let similarity: Vec<_> = batches().filter_map(|(at, batch)| Some((at, batch.similarity?))).collect();
    let converged: Vec<_> = batches().map(|(at, batch)| (at, batch.converged as f64)).collect();
    let last = run.history.last().map_or(0, |batch| batch.converged);
    let summary = format!("{last} of {} modules had converged after the last batch", run.layers.len());
    html! {
        section {
            h2 { "Convergence" }
            p {
                "A module has converged when each of its components has a |cosine| of at least " (run.tau)
                " with its value one batch earlier. " (summary) "."
            }
            div.charts {
                (Chart {
                    summary: "Least |cosine| of a component with its value one batch earlier, by batch".to_owned(),
                    x: "batch",
                    y: "least |cosine| of a component with its value one batch earlier",
                    range: Some((0.0, 1.0)),
                    lines: vec![Line { name: "|cosine|", points: similarity }],
                }.to_svg())
                (Chart {
                    summary,
                    x: "batch",
                    y: "modules that have converged",
                    range: Some((0.0, run.layers.len() as f64)),
                    lines: vec![Line { name: "modules", points: converged }],
                }.to_svg())
            }
        }
    }
}

/// The loss over the steps.
pub(super) fn training(training: &TrainRecord) -> Markup {
    let points = |losses: &[super::record::Loss]| losses.iter().map(|loss| (loss.step as f64, loss.loss)).collect();
    let mut lines = vec![Line { name: "each step", points: points(&training.steps) }];
    if !training.evaluations.is_empty() {
        lines.push(Line { name: "evaluation", points: points(&training.evaluations) });
    }
    let ends = training.steps.first().zip(training.steps.last());
    let steps = training.steps.len();
    let summary = ends.map_or_else(String::new, |(first, last)| {
        format!("Loss of {:.4} at step {} and {:.4} at step {}", first.loss, first.step, last.loss, last.step)
    });
    html! {
        section {
            h2 { "Training" }
            p {
                (steps) " steps on " (training.device) " in " (duration(training.seconds)) ", learning rate "
                (training.rate) ", schedule " (training.schedule) ". " (summary) "."
            }
            (Chart { summary, x: "step", y: "loss", range: None, lines }.to_svg())
        }
    }
}

/// What the user of the adapter should know.
pub(super) fn notes(run: &RunRecord) -> Markup {
    html! {
        @if !run.notes.is_empty() {
            section {
                h2 { "Notes" }
                ul { @for note in &run.notes { li { (note) } } }
            }
        }
    }
}

/// Where the time went.
pub(super) fn time(run: &RunRecord) -> Markup {
    let seconds = run.seconds;
    let parts = [
        ("before the first batch", seconds.load),
        ("model and sketch", seconds.forward_and_sketch),
        ("decompositions", seconds.decompose),
        ("writing", seconds.write),
        ("all of it", seconds.total),
    ];
    html! {
        section {
            h2 { "Time" }
            table {
                caption { (run.device) " on ONNX Runtime " (run.onnxruntime) }
                tbody {
                    @for (name, part) in parts {
                        tr {
                            th scope="row" { (name) }
                            td { (duration(part)) }
                            td.bar {
                                svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" {
                                    rect width=(format!("{:.1}", 100.0 * (part / seconds.total).clamp(0.0, 1.0))) height="6" {}
                                }
                            }
                        }
                    }
                }
            }
            @if let Some(bytes) = run.peak_rss_bytes {
                p { "Memory of the process: " (whole(bytes >> 20)) " MiB at most." }
            }
        }
    }
}

/// How to do it again.
pub(super) fn command(run: &RunRecord) -> Markup {
    html! {
        section {
            h2 { "Command" }
            @if run.command.is_empty() {
                p { "The run was started from a program." }
            } @else {
                pre { code { (run.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")) } }
            }
            p { "eva-onnx " (run.version) }
        }
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("model.onnx"), "model.onnx");
        assert_eq!(quoted("it's {a}"), "'it'\\''s {a}'");
        assert_eq!(quoted(""), "''");
    }
}

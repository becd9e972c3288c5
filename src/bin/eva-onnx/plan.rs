//! `--dry-run`: what a command would do.

use super::doctor::gib;
use super::error::Failure;
use super::printed::Printed;
use super::table::counted;
use eva_onnx::results::{MemoryNeed, Plan, RowCounts, TrainPlan};
use serde::Serialize;

pub(crate) fn of_init(plan: &Plan, json: bool) -> Result<Printed, Failure> {
    Ok(printed(plan, json, || init(plan)))
}

pub(crate) fn of_train(plan: &TrainPlan, json: bool) -> Result<Printed, Failure> {
    Ok(printed(plan, json, || train(plan)))
}

fn printed(document: &impl Serialize, json: bool, text: impl Fn() -> String) -> Printed {
    let text = if json {
        serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
    } else {
        text() + "nothing was written\n"
    };
    Printed { text, ..Printed::default() }
}

fn init(plan: &Plan) -> String {
    let (modules, groups) = (counted(plan.layers.len(), "module"), counted(plan.groups, "group"));
    let [sequences, length] = plan.largest_batch;
    let (least, all) = if plan.counted_all { ("", "all batches") } else { ("at least ", "those batches") };
    [
        format!("{modules} in {groups}, {} to allocate, at most {} a module", ranks(plan.budget), plan.largest_rank),
        format!("{} on ONNX Runtime {}", plan.device, plan.onnxruntime),
        format!("{least}{} in {}, {}", rows(&plan.rows), counted(plan.batches, "batch"), counted(plan.tokens, "token")),
        format!("largest batch: {} of {}", counted(sequences, "row"), counted(length, "token")),
        format!(
            "{} until the first batch, {} a batch, at most {} for {all}",
            time(plan.seconds_until_first_batch),
            time(plan.seconds_of_batch),
            time(plan.seconds_of_batches)
        ),
        memory(&plan.memory, &plan.device),
        String::new(),
    ]
    .join("\n")
}

fn train(plan: &TrainPlan) -> String {
    let [sequences, length] = plan.largest_batch;
    let mut lines = Vec::new();
    if let Some(plan) = &plan.initialisation {
        lines.push(format!("initialised by EVA:\n  {}", init(plan).trim_end().replace('\n', "\n  ")));
    }
    lines.extend([
        format!("{} with about {} to train on {}", counted(plan.modules, "module"), parameters(plan), plan.device),
        format!(
            "{} in {} an epoch, {} of {}",
            rows(&plan.rows),
            counted(plan.batches_of_epoch, "batch"),
            counted(plan.steps, "step"),
            counted(plan.batches_of_step, "batch")
        ),
        format!("largest batch: {} of {}; loss: {}", counted(sequences, "row"), counted(length, "token"), plan.loss),
        format!(
            "{} until the first step, {} a batch, about {} for all steps",
            time(plan.seconds_until_first_step),
            time(plan.seconds_of_batch),
            time(plan.seconds_of_steps)
        ),
        memory(&plan.memory, &plan.device),
        String::new(),
    ]);
    lines.join("\n")
}

fn parameters(plan: &TrainPlan) -> String {
    counted(plan.parameters, "parameter")
}

fn ranks(count: usize) -> String {
    counted(count, "rank")
}

fn rows(counts: &RowCounts) -> String {
    let left_out = counts.empty + counts.masked;
    let left_out = if left_out > 0 { format!(" ({left_out} left out)") } else { String::new() };
    format!("{}{left_out}", counted(counts.rows, "row"))
}

fn memory(need: &MemoryNeed, device: &str) -> String {
    let of =
        |bytes: Option<u64>| bytes.map_or_else(|| "an unknown amount".to_owned(), |b| format!("{:.1} GiB", gib(b)));
    let gpu = if device == "cpu" { "" } else { ", beside that of the GPU" };
    format!("memory: {} of {}{gpu}", of(need.peak_rss_bytes), of(need.available_bytes))
}

/// Seconds as a person says them.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

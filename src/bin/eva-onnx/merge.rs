//! `merge`: from summaries to an adapter on disk.

use super::error::Failure;
use super::merge_args::Merge;
use super::printed::Printed;
use super::report;
use super::table;
use eva_onnx::merge;
use eva_onnx::options::{Destination, MergeOptions};
use eva_onnx::results::Initialised;
use std::path::PathBuf;

pub(crate) fn run(args: &Merge, line: &[String]) -> Result<Printed, Failure> {
    let output = &args.output;
    let out = match (&output.out, &output.out_summary) {
        (None, Some(_)) => None,
        (out, _) => Some(out.clone().unwrap_or_else(|| PathBuf::from("adapter"))),
    };
    if out.is_none() && output.report.is_some() {
        return Err(Failure::usage("--report beside --out-summary needs --out: without it there is nothing to report"));
    }
    let destination = out.as_ref().map(|out| Destination::prepare(out, output.force)).transpose()?;
    report::check_page(output.report.as_deref(), output.force)?;
    let options = MergeOptions { command: line.to_vec(), ..args.to_options() };
    let merged = merge(&args.files, &options)?;
    let mut notes = merged.notes();
    let mut text = String::new();
    let made = out.as_ref().map(|_| merged.adapter(&options)).transpose()?;
    if let Some(file) = &output.out_summary {
        merged.write_summary(file, output.force)?;
        text = format!("summary of {} written to {}\n", table::counted(merged.parts.len(), "part"), file.display());
    }
    if let (Some(made), Some(destination), Some(out)) = (&made, destination, &out) {
        let report = made.save_to(destination)?;
        report::write_page(out, output.report.as_deref(), output.force)?;
        text = if output.json { report.to_json() } else { table::summary(&report, made.rows, out) + &text };
        notes.extend(made.notes.iter().cloned());
    } else if output.json {
        text = merged.to_json();
    }
    let notes = notes.iter().map(ToString::to_string).collect();
    if output.quiet {
        let text = if output.json { text } else { String::new() };
        return Ok(Printed { text, ..Printed::default() });
    }
    Ok(Printed { text, notes, ..Printed::default() })
}

/// The adapter, which is written if `--out` is given; there is no other folder.
#[allow(dead_code, reason = "only the Python module returns what it makes")]
pub(crate) fn made(args: &Merge) -> Result<Initialised, Failure> {
    let output = &args.output;
    let destination = output.out.as_ref().map(|out| Destination::prepare(out, output.force)).transpose()?;
    report::check_page(output.report.as_deref(), output.force)?;
    let options = args.to_options();
    let merged = merge(&args.files, &options)?;
    let made = merged.adapter(&options)?;
    if let Some(file) = &output.out_summary {
        merged.write_summary(file, output.force)?;
    }
    match (&output.out, destination) {
        (Some(out), Some(destination)) => {
            made.save_to(destination)?;
            report::write_page(out, output.report.as_deref(), output.force)?;
        }
        _ if output.report.is_some() => return Err(Failure::usage("--report needs --out")),
        _ => {}
    }
    Ok(made)
}

//! `splice`: an adapter into a model.

use super::adapter_args::{FormArg, Splice};
use super::error::Failure;
use super::printed::Printed;
use super::table::counted;
use eva_onnx::options::SpliceOptions;
use eva_onnx::results::Spliced;
use serde_json::json;
use std::fmt::Write as _;

pub(crate) fn run(args: &Splice) -> Result<Printed, Failure> {
    let (options, spliced) = (args.to_options(), spliced(args)?);
    let text = if args.json { document(args, &options, &spliced) } else { summary(args, &options, &spliced) };
    Ok(Printed { text, notes: spliced.notes, ..Printed::default() })
}

/// Puts the adapter into the model.
pub(crate) fn spliced(args: &Splice) -> Result<Spliced, Failure> {
    if args.required_inputs && args.form != FormArg::AdapterInputs {
        return Err(Failure::usage("--required-inputs needs --as adapter-inputs"));
    }
    Ok(eva_onnx::splice(&args.model, &args.adapter, &args.out, &args.to_options())?)
}

fn document(args: &Splice, options: &SpliceOptions, spliced: &Spliced) -> String {
    let document = json!({
        "model": args.model.display().to_string(),
        "adapter": args.adapter.display().to_string(),
        "as": options.form.as_str(),
        "out": args.out.display().to_string(),
        "modules": spliced.modules,
        "layers": spliced.layers,
        "ranks_total": spliced.ranks_total,
        "weights": {"linked_bytes": spliced.linked_bytes, "copied_bytes": spliced.copied_bytes},
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn summary(args: &Splice, options: &SpliceOptions, spliced: &Spliced) -> String {
    let Spliced { modules, ranks_total, layers, linked_bytes, copied_bytes, .. } = spliced;
    let (modules, ranks, layers) =
        (counted(*modules, "module"), counted(*ranks_total, "rank"), counted(*layers, "layer"));
    let mut text = format!("{modules} with {ranks}, {} in {layers}\n", options.form.as_str());
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    if *linked_bytes > 0 {
        let _ = writeln!(text, "{:.1} MB of weights shared with the model by hard links", megabytes(*linked_bytes));
    }
    if *copied_bytes > 0 {
        let _ = writeln!(text, "{:.1} MB of weights copied", megabytes(*copied_bytes));
    }
    let _ = writeln!(text, "written to {}", args.out.display());
    text
}

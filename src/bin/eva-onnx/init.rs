//! `init`: from a model and data to an adapter or a summary on disk.

use super::error::{ExitStatus, Failure};
use super::init_args::{Init, OutputOptions};
use super::interrupt::interrupt_flag;
use super::plan;
use super::printed::Printed;
use super::progress::Bar;
use super::report;
use super::table;
use eva_onnx::Next;
use eva_onnx::options::{Destination, Settings, SummaryOptions};
use eva_onnx::results::{Initialised, Note, Progress, Report, Stop};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The folder of an adapter, unless another one is given.
const ADAPTER: &str = "adapter";

pub(crate) fn run(args: &Init, line: &[String]) -> Result<Printed, Failure> {
    let interrupted = interrupt_flag();
    let out = match (&args.output.out, &args.parts.summary) {
        (None, Some(_)) => None,
        (out, _) => Some(out.as_deref().unwrap_or(Path::new(ADAPTER))),
    };
    let main_output = out.or(args.parts.summary.as_deref()).unwrap_or(Path::new(ADAPTER));
    let (init, from) = set_up(args, main_output)?;
    let init = init.command(line);
    if args.dry_run {
        let mut bar = Bar::new(false);
        return plan::of_init(&init.plan_with(observer(&mut bar, &interrupted))?, args.output.json);
    }
    match out {
        Some(out) => adapt(args, init, out, &interrupted),
        None => summarise(args, init, from, &interrupted),
    }
}

/// Writes an adapter, and a summary if one is named.
fn adapt(args: &Init, init: eva_onnx::Init, out: &Path, interrupted: &AtomicBool) -> Result<Printed, Failure> {
    let output = &args.output;
    let place = Place::prepare(out, output, &init)?;
    let mut bar = Bar::new(!(output.quiet || output.no_progress));
    let run = init.run_with(observer(&mut bar, interrupted))?;
    bar.finish();
    let report = place.write(&run)?;
    let text = match (output.json, output.quiet) {
        (true, _) => report.to_json(),
        (false, true) => String::new(),
        (false, false) => table::summary(&report, run.rows, out),
    };
    let status = if run.stopped_by == Stop::Interrupted { ExitStatus::Interrupted } else { ExitStatus::Done };
    let mut notes = notes(&run.notes, output.quiet);
    if status == ExitStatus::Interrupted && args.parts.summary.is_some() {
        notes.push("no summary is written, as it would lack rows".to_owned());
    }
    Ok(Printed { text, notes, status, ..Printed::default() })
}

/// Where an adapter and its page are written.
pub(crate) struct Place<'a> {
    out: &'a Path,
    destination: Destination,
    output: &'a OutputOptions,
}

impl<'a> Place<'a> {
    /// Checks that all can be written, before the run.
    pub(crate) fn prepare(out: &'a Path, output: &'a OutputOptions, init: &eva_onnx::Init) -> Result<Self, Failure> {
        let destination = Destination::prepare(out, output.force)?;
        report::check_page(output.report.as_deref(), output.force)?;
        init.check_output(&destination)?;
        Ok(Self { out, destination, output })
    }

    /// Writes the result of the run.
    pub(crate) fn write(self, run: &Initialised) -> Result<Report<'_>, Failure> {
        let report = run.save_to(self.destination)?;
        report::write_page(self.out, self.output.report.as_deref(), self.output.force)?;
        Ok(report)
    }
}

/// Writes a summary alone.
fn summarise(
    args: &Init,
    init: eva_onnx::Init,
    from: Option<&str>,
    interrupted: &AtomicBool,
) -> Result<Printed, Failure> {
    let output = &args.output;
    if output.forms().next().is_some() {
        return Err(Failure::usage("--emit beside --summary needs --out: without it no adapter is written"));
    }
    if output.report.is_some() {
        return Err(Failure::usage("--report beside --summary needs --out: without it there is nothing to report"));
    }
    let mut bar = Bar::new(!(output.quiet || output.no_progress));
    let run = init.summarise_with(observer(&mut bar, interrupted))?;
    bar.finish();
    let text = match (output.json, output.quiet) {
        (true, _) => run.to_json(),
        (false, true) => String::new(),
        (false, false) => table::summarised(&run, from),
    };
    Ok(Printed { text, notes: notes(&run.notes, output.quiet), ..Printed::default() })
}

/// Shows the state of a run, and stops it when the user says so.
fn observer(bar: &mut Bar, interrupted: &AtomicBool) -> impl FnMut(&Progress) -> Next {
    move |progress: &Progress| {
        bar.show(progress);
        if interrupted.load(Ordering::SeqCst) { Next::Stop } else { Next::Continue }
    }
}

fn notes(notes: &[Note], quiet: bool) -> Vec<String> {
    if quiet { Vec::new() } else { notes.iter().map(ToString::to_string).collect() }
}

/// The run, whose main output is `output`, and the variable that says which shard it has.
pub(crate) fn set_up(args: &Init, output: &Path) -> Result<(eva_onnx::Init, Option<&'static str>), Failure> {
    let shard = args.parts.shard()?;
    let mut init = eva_onnx::Init::new(&args.model)
        .data(&args.data)
        .settings(Settings { tau: args.statistics.tau(shard.is_some()), ..args.method.to_options() })
        .capture(args.statistics.capture.into())
        .naming(args.selection.naming.to_options())
        .selection(args.selection.to_options())
        .data_options(args.data_options.to_options())
        .runtime(args.runtime.to_options())
        .base(args.adapter.base())
        .dtype(args.adapter.dtype.into())
        .split(args.parts.split.into())
        .emit(args.output.forms());
    if let Some((shard, _)) = shard {
        init = init.shard(shard);
    }
    if let Some(file) = &args.parts.summary {
        init = init.summary(SummaryOptions { file: file.clone(), force: args.output.force });
    }
    if let Some(blocks) = args.parts.blocks()? {
        init = init.blocks(blocks);
    }
    if let Some(checkpoints) = args.parts.checkpoints(output) {
        init = init.checkpoints(checkpoints);
    }
    Ok((init, shard.and_then(|(_, from)| from)))
}

//! `init`: from a model and data to an adapter on disk.

use super::error::{ExitStatus, Failure};
use super::init_args::Init;
use super::interrupt::interrupt_flag;
use super::printed::Printed;
use super::progress::Bar;
use super::report;
use super::table;
use eva_onnx::results::Stop;
use eva_onnx::{Destination, Next};
use std::sync::atomic::Ordering;

pub(crate) fn run(args: &Init) -> Result<Printed, Failure> {
    let output = &args.output;
    let interrupted = interrupt_flag();
    let destination = Destination::prepare(&output.out, output.force)?;
    let page = output.report.as_deref();
    report::check_page(page, output.force)?;
    let init = set_up(args);
    init.check_output(&destination)?;
    let mut bar = Bar::new(!(output.quiet || output.no_progress));
    let run = init.run_with(|progress| {
        bar.show(progress);
        if interrupted.load(Ordering::SeqCst) { Next::Stop } else { Next::Continue }
    })?;
    bar.finish();
    let report = run.save_to(destination)?;
    report::write_page(&output.out, page, output.force)?;
    let text = match (output.json, output.quiet) {
        (true, _) => report.to_json(),
        (false, true) => String::new(),
        (false, false) => table::summary(&report, run.rows, &output.out),
    };
    let notes = if output.quiet { Vec::new() } else { run.notes.iter().map(ToString::to_string).collect() };
    let status = if run.stopped_by == Stop::Interrupted { ExitStatus::Interrupted } else { ExitStatus::Done };
    Ok(Printed { text, notes, status, ..Printed::default() })
}

fn set_up(args: &Init) -> eva_onnx::Init {
    eva_onnx::Init::new(&args.model)
        .data(&args.data)
        .settings(args.method.to_options())
        .capture(args.method.capture.into())
        .naming(args.selection.naming.to_options())
        .selection(args.selection.to_options())
        .data_options(args.data_options.to_options())
        .runtime(args.runtime.to_options())
        .base(args.adapter.base())
        .dtype(args.adapter.dtype.into())
        .emit(args.output.forms())
        .command(std::env::args_os().map(|word| word.to_string_lossy().into_owned()))
}

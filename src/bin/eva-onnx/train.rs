//! `train`: from a model and rows to a trained adapter on disk.

use super::error::{ExitStatus, Failure};
use super::interrupt::interrupt_flag;
use super::plan;
use super::printed::Printed;
use super::progress::TrainBar;
use super::report;
use super::train_args::{CHECKPOINTS, Checkpoints, EmitArg, Train, TrainOutput};
use eva_onnx::Next;
use eva_onnx::options::Destination;
use eva_onnx::results::{StepRecord, Trained};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

pub(crate) fn run(args: &Train) -> Result<Printed, Failure> {
    let output = &args.output;
    let interrupted = interrupt_flag();
    let train = with_checkpoints(set_up(args), args);
    if args.dry_run {
        return plan::of_train(&train.plan()?, output.json);
    }
    train.check_checkpoints()?;
    if output.emit == Some(EmitArg::StepGraph) {
        let destination = Destination::prepare(&output.out, output.force)?;
        train.emit_step_graph(destination, output.link.into())?;
        let text = if output.quiet { String::new() } else { format!("wrote {}\n", output.out.display()) };
        return Ok(Printed { text, status: ExitStatus::Done, ..Printed::default() });
    }
    let place = Place::prepare(args)?;
    let mut bar = TrainBar::new(!(output.quiet || output.no_progress));
    let trained = train.run_with(|progress| {
        bar.show(progress);
        if interrupted.load(Ordering::SeqCst) { Next::Stop } else { Next::Continue }
    })?;
    bar.finish();
    place.write(&trained, args)?;
    let text = match (output.json, output.quiet) {
        (true, _) => trained.to_json(),
        (false, true) => String::new(),
        (false, false) => summary(&trained, &output.out.display().to_string()),
    };
    let notes = if output.quiet { Vec::new() } else { notes(&trained) };
    let stopped = trained.history.len() < trained.planned;
    let status = if stopped { ExitStatus::Interrupted } else { ExitStatus::Done };
    Ok(Printed { text, notes, status, ..Printed::default() })
}

/// The training that the options describe, without checkpoints.
pub(crate) fn set_up(args: &Train) -> eva_onnx::Train {
    let train = eva_onnx::Train::new(&args.model)
        .data(&args.data)
        .eval(&args.training.eval)
        .train_modules(&args.training.train_modules)
        .settings(args.training.to_options())
        .method(args.method.to_options())
        .naming(args.selection.naming.to_options())
        .selection(args.selection.to_options())
        .data_options(args.data_options())
        .runtime(args.runtime.to_options())
        .base(args.adapter_options.base());
    match &args.adapter {
        Some(adapter) => train.adapter(adapter),
        None => train,
    }
}

/// The training with checkpoints in its output folder.
pub(crate) fn with_checkpoints(train: eva_onnx::Train, args: &Train) -> eva_onnx::Train {
    train.checkpoints(args.training.checkpoints.to_options(&args.output.out))
}

/// The output folder. It appears with the result, or before the first step if it gets checkpoints.
pub(crate) struct Place<'a> {
    out: &'a Path,
    destination: Option<Destination>,
    /// Whether the folder was made for checkpoints; if it stays empty, it goes again.
    is_new: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn prepare(args: &'a Train) -> Result<Self, Failure> {
        let TrainOutput { out, force, report, .. } = &args.output;
        report::check_page(report.as_deref(), *force)?;
        let Checkpoints { save_every, resume, .. } = args.training.checkpoints;
        let is_new = (save_every.is_some() || resume) && !out.exists() && fs::create_dir_all(out).is_ok();
        let destination = Some(Destination::prepare(out, *force || resume)?);
        Ok(Self { out, destination, is_new })
    }

    /// Writes the result and its page.
    pub(crate) fn write(self, trained: &Trained, args: &Train) -> Result<(), Failure> {
        let out = self.out;
        trained.save_to(self.destination(trained)?, args.adapter_options.dtype.into())?;
        report::write_page(out, args.output.report.as_deref(), args.output.force)
    }

    /// Where the result goes.
    fn destination(mut self, trained: &Trained) -> Result<Destination, Failure> {
        let destination = self.destination.take().filter(|_| trained.checkpoint.is_none());
        // A checkpoint may have made the folder, where the result then joins it.
        Ok(destination.map_or_else(|| Destination::prepare(self.out, true), Ok)?)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.destination = None;
        if self.is_new {
            // This removes only what is empty.
            let _ = fs::remove_dir(self.out.join(CHECKPOINTS));
            let _ = fs::remove_dir(self.out);
        }
    }
}

fn summary(trained: &Trained, out: &str) -> String {
    let steps = trained.history.len();
    // Batches differ, so the loss of single steps says little.
    let some = steps.div_ceil(4);
    let mean = |history: &[StepRecord]| history.iter().map(|step| step.loss).sum::<f64>() / some as f64;
    let [first, last] = [&trained.history[..some], &trained.history[steps - some..]].map(mean);
    let targets: usize = trained.history.iter().map(|step| step.targets).sum();
    let seconds: f64 = trained.history.iter().map(|step| step.seconds).sum();
    let mut text = format!(
        "{steps} of {} steps on {}, {:.2} s each, {:.0} predictions/s; first step after {:.1} s\nmean loss \
         ({}) of the first {some} and the last {some} steps: {first:.4}, {last:.4}\n",
        trained.planned,
        trained.device,
        seconds / steps as f64,
        targets as f64 / seconds,
        trained.ready,
        trained.loss.as_str(),
    );
    for evaluation in &trained.evaluations {
        text.push_str(&format!("evaluation after step {}: loss {:.4}\n", evaluation.step, evaluation.loss));
    }
    text.push_str(&format!("wrote {out}\n"));
    text
}

fn notes(trained: &Trained) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(resumed) = &trained.resumed {
        notes.push(format!("went on after step {}, from `{}`", resumed.steps, resumed.path.display()));
        notes.extend(resumed.damaged.iter().map(|path| format!("`{}` is damaged and was passed over", path.display())));
    }
    if trained.history.len() < trained.planned {
        notes.push("stopped; the same command with --resume goes on".to_owned());
    }
    if trained.split_batches > 0 {
        notes.push(format!(
            "{} batches were run in two halves, because memory ran out; the result is the same",
            trained.split_batches
        ));
    }
    if !trained.rounded.is_empty() {
        notes.push(format!(
            "the gradient passes the rounding of {} straight through, and was not compared with the loss: rounded values \
             change in steps",
            trained.rounded.join(" and ")
        ));
    }
    if let Some(first) = trained.unreached.first() {
        let count = trained.unreached.len();
        notes
            .push(format!("the loss does not depend on {count} modules, which stay as they were: `{first}` and so on"));
    }
    notes
}

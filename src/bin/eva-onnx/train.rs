//! `train`: from a model and rows to a trained adapter on disk.

use super::error::{ExitStatus, Failure};
use super::interrupt::interrupt_flag;
use super::printed::Printed;
use super::progress::TrainBar;
use super::train_args::Train;
use eva_onnx::results::StepRecord;
use eva_onnx::{Destination, Next, Trained};
use std::sync::atomic::Ordering;

pub(crate) fn run(args: &Train) -> Result<Printed, Failure> {
    let output = &args.output;
    let interrupted = interrupt_flag();
    let destination = Destination::prepare(&output.out, output.force)?;
    let mut train = eva_onnx::Train::new(&args.model)
        .data(&args.data)
        .eval(&args.training.eval)
        .train_modules(&args.training.train_modules)
        .settings(args.training.to_options())
        .naming(args.selection.naming.to_options())
        .selection(args.selection.to_options())
        .data_options(args.data_options())
        .runtime(args.runtime.to_options());
    if let Some(adapter) = &args.adapter {
        train = train.adapter(adapter);
    }
    let mut bar = TrainBar::new(!(output.quiet || output.no_progress));
    let mut trained = train.run_with(|progress| {
        bar.show(progress);
        if interrupted.load(Ordering::SeqCst) { Next::Stop } else { Next::Continue }
    })?;
    bar.finish();
    let base = args.adapter_options.base();
    trained.base.name = base.name.or(trained.base.name);
    trained.base.task_type = base.task_type.or(trained.base.task_type);
    trained.save_to(destination, args.adapter_options.dtype.into())?;
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

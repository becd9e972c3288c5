//! The progress bar on stderr.

use eva_onnx::results::{BlockProgress, Progress, TrainProgress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

/// Where the number of batches is known, and before.
const TEMPLATE: &str = "{bar:24} {pos}/{len} batches  {msg}  {elapsed} elapsed, at most {eta} left";
const OPEN_TEMPLATE: &str = "{spinner} {pos} batches  {msg}  {elapsed} elapsed";
/// Batches of all blocks count.
const BLOCK_TEMPLATE: &str = "{bar:24} {msg}  {elapsed} elapsed, about {eta} left";
const TRAIN_TEMPLATE: &str = "{bar:24} {pos}/{len} steps  {msg}  {elapsed} elapsed, {eta} left";

/// A bar that shows batches, converged modules and tokens per second; nothing when stderr is no terminal.
pub(crate) struct Bar {
    visible: bool,
    /// The bar and when it appeared, once the model is loaded.
    shown: Option<(ProgressBar, Instant)>,
}

impl Bar {
    pub(crate) fn new(visible: bool) -> Self {
        Self { visible, shown: None }
    }

    /// Shows the state of the run.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let Progress { converged, modules, planned, .. } = *progress;
        if modules == 0 {
            return;
        }
        if let Some(at) = progress.block {
            return self.show_block(progress, at);
        }
        let visible = self.visible;
        let (bar, started) = self.shown.get_or_insert_with(|| (bar(OPEN_TEMPLATE, None, visible), Instant::now()));
        let planned = planned.map(|planned| planned as u64);
        if let Some(planned) = planned.filter(|_| bar.length() != planned) {
            bar.set_length(planned);
            style(bar, TEMPLATE);
        }
        let rate = progress.tokens_seen as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("{converged}/{modules} modules converged  {rate:.0} tokens/s"));
        bar.set_position(progress.batches as u64);
    }

    /// Shows the state of a run in blocks.
    fn show_block(&mut self, progress: &Progress, at: BlockProgress) {
        let (visible, batches) = (self.visible, progress.planned.unwrap_or(progress.batches) as u64);
        let all = batches * at.of as u64;
        let (bar, _) = self.shown.get_or_insert_with(|| (bar(BLOCK_TEMPLATE, Some(all), visible), Instant::now()));
        let states = at.states as f64 / 1e6;
        let BlockProgress { block, of, .. } = at;
        bar.set_message(format!(
            "block {block}/{of}  {}/{batches} batches  {states:.0} MB of hidden states",
            progress.batches
        ));
        bar.set_position((block as u64 - 1) * batches + (progress.batches as u64).min(batches));
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some((bar, _)) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A bar that shows steps, loss and predictions per second; nothing when stderr is no terminal.
pub(crate) struct TrainBar {
    visible: bool,
    /// The bar, when it appeared, and the tokens predicted before, once the model is loaded.
    shown: Option<(ProgressBar, Instant, usize)>,
}

impl TrainBar {
    pub(crate) fn new(visible: bool) -> Self {
        Self { visible, shown: None }
    }

    /// Shows the state of the training.
    pub(crate) fn show(&mut self, progress: &TrainProgress) {
        let TrainProgress { planned, steps, targets, .. } = *progress;
        if planned == 0 {
            return;
        }
        let visible = self.visible;
        let new = || {
            let bar = bar(TRAIN_TEMPLATE, Some(planned as u64), visible).with_position(steps as u64);
            bar.reset_eta();
            (bar, Instant::now(), targets)
        };
        let (bar, started, before) = self.shown.get_or_insert_with(new);
        let rate = (targets - *before) as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!("loss {:.4}  {rate:.0} predictions/s", progress.loss));
        bar.set_position(steps as u64);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some((bar, ..)) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(template: &str, length: Option<u64>, visible: bool) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(length, target);
    style(&bar, template);
    bar
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

//! The progress bar on stderr.

use eva_onnx::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

const TEMPLATE: &str = "{bar:24} {pos}/{len} batches  {msg}  {elapsed} elapsed, at most {eta} left";

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
        let visible = self.visible;
        let (bar, started) = self.shown.get_or_insert_with(|| (bar(progress.planned, visible), Instant::now()));
        let rate = progress.tokens_seen as f64 / started.elapsed().as_secs_f64().max(1e-9);
        let Progress { converged, modules, .. } = progress;
        bar.set_message(format!("{converged}/{modules} modules converged  {rate:.0} tokens/s"));
        bar.set_position(progress.batches as u64);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some((bar, _)) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(batches: usize, visible: bool) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(batches as u64), target);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

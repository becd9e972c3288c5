//! The progress bar on stderr.

use eva_onnx::eva::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Instant;

const TEMPLATE: &str = "{bar:24} {pos}/{len} batches  {msg}  {elapsed} elapsed, at most {eta} left";

/// A bar that shows batches, converged layers and tokens per second; nothing when stderr is no terminal.
pub(crate) struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    /// Starts a bar for this many batches.
    pub(crate) fn start(batches: usize, visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(batches as u64), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, started: Instant::now() }
    }

    /// Shows the state after a batch.
    pub(crate) fn show(&self, progress: &Progress) {
        let rate = progress.tokens_seen as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        self.bar
            .set_message(format!("{}/{} layers converged  {rate:.0} tokens/s", progress.converged, progress.modules));
        self.bar.set_position(progress.batches as u64);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

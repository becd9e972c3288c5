//! How far a training is.

use super::history::Done;

/// The state of a training before the first step and after each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrainProgress {
    /// Steps planned.
    pub planned: usize,
    /// Steps done.
    pub steps: usize,
    /// Loss of the last step.
    pub loss: f64,
    /// Predictions so far: tokens, or numbers of rows.
    pub targets: usize,
}

impl TrainProgress {
    /// After what was done before.
    pub(super) fn of(planned: usize, done: &Done) -> Self {
        let history = &done.history;
        Self {
            planned,
            steps: history.len(),
            loss: history.last().map_or(0.0, |step| step.loss),
            targets: history.iter().map(|step| step.targets).sum(),
        }
    }
}

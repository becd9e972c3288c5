//! What a training did, step by step.

use serde::Serialize;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepRecord {
    /// The step, counted from 1.
    pub step: usize,
    /// Mean loss of what is predicted, before the step.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Norm of the gradient, before it was clipped.
    pub norm: f64,
    /// Predictions: tokens, or numbers of rows.
    pub targets: usize,
    /// Wall time.
    pub seconds: f64,
}

/// The loss on the evaluation rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Steps done.
    pub step: usize,
    /// Mean loss of what is predicted.
    pub loss: f64,
    /// Predictions: tokens, or numbers of rows.
    pub targets: usize,
}

/// What a training has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Done {
    pub(crate) history: Vec<StepRecord>,
    pub(crate) evaluations: Vec<Evaluation>,
}

//! Where a training keeps its state, and how often.

use std::path::PathBuf;

/// Where a training keeps its state, and how often.
///
/// A checkpoint is a folder `step-` with the number of the step: a PEFT folder, and `state.safetensors`. It is written when
/// the observer stops the training, and every so many steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// The folder of the checkpoints.
    pub dir: PathBuf,
    /// Steps between checkpoints; without it, one is only written when the training is stopped.
    pub every: Option<usize>,
    /// How many are kept, at least 1: the newest.
    pub keep: usize,
    /// Whether the training goes on from the newest checkpoint.
    pub resume: bool,
}

impl CheckpointOptions {
    /// The defaults of the command line, for checkpoints in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), every: None, keep: 2, resume: false }
    }
}

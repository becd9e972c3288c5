//! Why there are no statistics.

use crate::calib;
use crate::capture;
use crate::hint::Hint;

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows of a batch cannot be read or do not fit the model.
    #[error(transparent)]
    Data(Box<calib::Error>),
    /// Statistics could not be gathered.
    #[error(transparent)]
    Capture(capture::Error),
    /// A layer input holds NaN or infinities.
    #[error("the input of {modules} (tensor `{tensor}`) is not finite in batch {batch}{}", capture::and_others(*others))]
    NotFinite {
        /// The layers that read it.
        modules: String,
        /// Tensor name.
        tensor: String,
        /// Batch number, from 1.
        batch: usize,
        /// How many other layer inputs are not finite there; this one is the first in the model.
        others: usize,
    },
    /// No token entered the statistics.
    #[error("no token of the calibration data enters the statistics: all {batches} batches are masked out")]
    NoRows {
        /// Batches seen.
        batches: usize,
    },
    /// All rows of every input are equal.
    #[error("no layer input varies over the calibration data ({rows} tokens), so that there are no components")]
    NoVariance {
        /// Tokens that entered the statistics.
        rows: usize,
    },
    /// The user stopped before the first batch ended.
    #[error("interrupted before the first batch was done")]
    Interrupted,
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Capture(error) => error.hint(),
            Self::NotFinite { others, .. } => Some(capture::overflows(*others)),
            Self::NoRows { .. } => Some("check `labels` and `attention_mask`, or drop --completion-only".to_owned()),
            Self::NoVariance { .. } => Some("give rows with different tokens".to_owned()),
            Self::Interrupted => None,
        }
    }
}

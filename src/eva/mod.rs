//! Explained Variance Adaptation (Paischer et al. 2025, arXiv 2410.07170), in three steps.
//!
//! 1. [`gather()`] runs calibration batches through a [`Capture`](crate::capture::Capture) until the principal components
//!    of the layer inputs stop changing, and returns [`Statistics`].
//! 2. [`allocate()`] distributes the rank budget over the modules by explained variance.
//! 3. [`factors()`] makes the leading components of a module's input its A: an [`Adapter`](crate::adapter::Adapter).
//!
//! Statistics that were gathered elsewhere enter by [`Statistics::from_summaries`]; another initialiser replaces the
//! last step.

mod allocate;
mod factors;
mod gather;
mod ranks;
mod settings;
mod statistics;

pub use allocate::{Allocation, allocate};
pub use factors::factors;
pub use gather::{Next, Progress, gather};
pub use settings::{Ranks, Settings};
pub use statistics::{BatchRecord, GroupStatistics, Statistics, Stop};

use crate::capture;
use crate::hint::Hint;

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Statistics could not be gathered.
    #[error(transparent)]
    Capture(capture::Error),
    /// A layer input holds NaN or infinities.
    #[error("the input of {modules} (tensor `{tensor}`) is not finite in batch {batch}")]
    NotFinite {
        /// The layers that read it.
        modules: String,
        /// Tensor name.
        tensor: String,
        /// Batch number, from 1.
        batch: usize,
    },
    /// No token entered the statistics.
    #[error("no token of the calibration data enters the statistics: all {batches} batches are masked out")]
    NoRows {
        /// Batches seen.
        batches: usize,
    },
    /// The user stopped before the first batch ended.
    #[error("interrupted before the first batch was done")]
    Interrupted,
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Capture(error) => error.hint(),
            Self::NotFinite { .. } => Some(capture::OVERFLOWS.to_owned()),
            Self::NoRows { .. } => Some("check `labels` and `attention_mask`, or drop --completion-only".to_owned()),
            Self::Interrupted => None,
        }
    }
}

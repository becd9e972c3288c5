//! Explained Variance Adaptation (Paischer et al. 2025, arXiv 2410.07170), in three steps.
//!
//! 1. [`gather()`] runs calibration batches through a [`Capture`](crate::capture::Capture) until the principal
//!    components of the layer inputs stop changing, and returns [`Statistics`].
//! 2. [`allocate()`] distributes the rank budget over the modules by explained variance.
//! 3. [`factors()`] makes the leading components of a module's input its A: an [`Adapter`](crate::adapter::Adapter).
//!
//! Statistics that were gathered elsewhere enter by [`Statistics::from_summaries`]; another initialiser replaces the
//! last step.

mod allocate;
mod error;
mod factors;
mod gather;
mod ranks;
mod settings;
mod statistics;

pub use allocate::{Allocation, allocate};
pub use error::Error;
pub use factors::factors;
pub use gather::{Going, Keep, Next, Progress, check_variance, gather, gather_on, record, with_modules};
pub use settings::{Ranks, Settings};
pub use statistics::{BatchRecord, GroupStatistics, Statistics, Stop};

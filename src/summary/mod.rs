//! What a run knows of its rows, as a file that merges with those of other rows: docs/summary.md.
//!
//! [`Facts`] say what was run and which rows were seen; for each group, [`SummaryFile::group`] reads a
//! [`Summary`](crate::pca::Summary) of a size that depends on the model alone. [`join()`] checks that files belong
//! together, and merges them.

mod error;
mod facts;
mod file;
mod group;
mod join;
mod sound;

pub use error::Error;
pub(crate) use facts::fields;
pub use facts::{BaseFacts, Facts, Part, RunFacts};
pub use file::{SummaryFile, encode};
pub use group::GroupSummary;
pub use join::{Joined, join};

//! The state of a training on disk, from which it goes on as if it had not stopped.

mod error;
mod fingerprint;
mod folder;
mod options;
mod record;
mod state_file;

pub use error::{Difference, Error};
pub(super) use fingerprint::{of_rows, of_vector};
pub(super) use folder::{Folder, Newest};
pub use options::CheckpointOptions;
pub(super) use record::Record;
pub(super) use state_file::{Checkpoint, Position};

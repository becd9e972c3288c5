//! Principal components from statistics or from rows; the only owner of faer.
//!
//! [`StreamingPca`] is the host half of the sketch in the graph; [`IncrementalSvd`] is the paper's algorithm on
//! activations; a [`Summary`] holds what either knows, and merges with those of other rows. All centre the data, order
//! components by falling variance, and make the entry of largest magnitude of every component positive.

mod basis;
mod dense;
mod error;
mod factor;
mod incremental;
pub mod low_rank;
mod pending;
mod precision;
mod signs;
mod spectrum;
mod statistics;
mod streaming;
mod summary;

pub use basis::{Basis, Rotation};
pub use error::Error;
pub use incremental::IncrementalSvd;
pub use precision::{Precision, RANGE, RANGE_APART};
pub use spectrum::{Spectrum, joint_similarity};
pub use statistics::{Deflation, PreviousProducts, SketchSize, SketchStats};
pub use streaming::StreamingPca;
pub use summary::Summary;

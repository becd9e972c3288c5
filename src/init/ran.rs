//! What a run met and found.

use super::note::Note;
use crate::calib::{BadRows, RowCounts};
use crate::eva::Statistics;
use crate::pca::Summary;
use crate::runtime::Device;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a run met.
pub(super) struct Circumstances {
    pub(super) onnxruntime: String,
    pub(super) devices: Vec<Device>,
    pub(super) rows: RowCounts,
    pub(super) bad: BadRows,
    /// Fields of the rows that change nothing.
    pub(super) unused: Vec<String>,
    /// Time until the first batch.
    pub(super) loaded: Duration,
    pub(super) started: Instant,
    /// The checkpoint to remove when the result is there.
    pub(super) checkpoint: Option<PathBuf>,
    /// What is to be said of the way in which the model ran.
    pub(super) notes: Vec<Note>,
}

/// What a run found.
pub(super) struct Ran {
    pub(super) statistics: Statistics,
    /// Of every group, if a summary is wanted.
    pub(super) summaries: Option<Vec<Summary>>,
    pub(super) met: Circumstances,
}

/// Devices, as text.
pub(super) fn names(devices: &[Device]) -> String {
    devices.iter().map(Device::to_string).collect::<Vec<_>>().join(",")
}

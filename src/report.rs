//! `eva.json`: what a run was given and what it found.

use crate::calib::BadRows;
use crate::eva::{BatchRecord, Stop};
use crate::linear::GraphNames;
use crate::summary::Part;
use serde::Serialize;

/// File name of the report.
pub const REPORT: &str = "eva.json";

/// File name of the report of a training.
pub const TRAINING: &str = "train.json";

/// What a run was given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Version of this program.
    pub version: &'static str,
    /// Model file.
    pub model: String,
    /// Calibration files.
    pub data: Vec<String>,
    /// The names of the graph by which the modules are called, if those are not the names of PyTorch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<GraphNames>,
    /// Device used.
    pub device: String,
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// How statistics were gathered: `sketch` or `outputs`.
    pub capture: &'static str,
    /// Seed.
    pub seed: u64,
    /// LoRA rank r that the budget is counted in.
    pub rank: usize,
    /// LoRA alpha at rank r.
    pub alpha: f64,
    /// Largest rank as a multiple of r.
    pub rho: f64,
    /// Convergence threshold.
    pub tau: f64,
    /// The command that started the run and its arguments; empty if a program did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Where the time went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Opening the model, reading the data and creating the session.
    pub load: f64,
    /// Running the model, the sketch included.
    pub forward_and_sketch: f64,
    /// Decompositions on the host.
    pub decompose: f64,
    /// Serialising and writing.
    pub write: f64,
    /// All of it.
    pub total: f64,
}

/// What all batches added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Batches run.
    pub batches: usize,
    /// Attended tokens seen.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
}

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report<'a> {
    /// What the run was given.
    #[serde(flatten)]
    pub run: &'a Run,
    /// Rank budget N * r.
    pub budget: usize,
    /// Ranks allocated.
    pub ranks_total: usize,
    /// What all batches added.
    #[serde(flatten)]
    pub totals: Totals,
    /// Whether all assigned components converged.
    pub converged: bool,
    /// Why the run ended.
    pub stopped_by: Stop,
    /// What the user of the adapter should know.
    pub notes: Vec<String>,
    /// Rows that were passed over.
    pub bad_rows: &'a BadRows,
    /// Where the time went.
    pub seconds: Seconds,
    /// Largest resident set of the process, where the system records it.
    pub peak_rss_bytes: Option<u64>,
    /// The rows that were merged, by the runs that saw them.
    #[serde(skip_serializing_if = "<[Part]>::is_empty")]
    pub parts: &'a [Part],
    /// One entry a module, in graph order.
    pub layers: &'a [ModuleReport],
    /// One entry a group.
    pub groups: &'a [GroupReport],
    /// One entry a batch.
    pub history: &'a [BatchRecord],
}

/// What a run found for one module.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModuleReport {
    /// Full PyTorch name.
    #[serde(rename = "module")]
    pub name: String,
    /// Number of its group.
    pub group: usize,
    /// Rank allocated; 0 for a module without an adapter.
    pub rank: usize,
    /// LoRA alpha of the module.
    pub alpha: f64,
    /// Features of the input.
    pub in_features: usize,
    /// Features of the output.
    pub out_features: usize,
    /// Share of the input's variance that the module's components explain, from 0 to 1.
    #[serde(skip)]
    pub explained_variance: f64,
    /// Share of the input's variance on each component that the module could have got.
    pub explained_variance_ratio: Vec<f64>,
    /// |cosine| of each component with its value one batch earlier.
    pub similarity: Vec<f64>,
    /// Whether all assigned components converged.
    pub converged: bool,
}

/// What a run found for one group of modules that read the same tensors.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroupReport {
    /// Number.
    pub id: usize,
    /// Tensors analysed together.
    pub tensors: Vec<String>,
    /// Features d.
    pub features: usize,
    /// Rows seen.
    pub rows: u64,
    /// Sum over features of squared deviations from the mean.
    pub total_variance: f64,
    /// Singular values of the centred rows.
    pub singular_values: Vec<f64>,
    /// How many of them have more variance than rounding leaves.
    pub directions: usize,
}

impl Report<'_> {
    /// The document as pretty JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

//! `eva.json`: what a run was given and what it found.

use crate::eva::{Allocation, Settings, Statistics, Stop};
use crate::group::Grouping;
use serde::Serialize;

/// File name of the report.
pub const REPORT: &str = "eva.json";

/// The circumstances of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Version of this program.
    pub version: &'static str,
    /// Model file.
    pub model: String,
    /// Calibration files.
    pub data: Vec<String>,
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

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The circumstances.
    #[serde(flatten)]
    pub run: Run,
    /// Rank budget N * r.
    pub budget: usize,
    /// Ranks given out.
    pub ranks_total: usize,
    /// Batches run.
    pub batches: usize,
    /// Attended tokens seen.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// Whether all assigned components converged.
    pub converged: bool,
    /// Why the run ended.
    pub stopped_by: Stop,
    /// Where the time went.
    pub seconds: Seconds,
    /// Largest resident set of the process, where the system tells it.
    pub peak_rss_bytes: Option<u64>,
    /// One entry a module, in graph order.
    pub layers: Vec<LayerReport>,
    /// One entry a group.
    pub groups: Vec<GroupReport>,
}

/// What was found for one module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// Full PyTorch name.
    pub module: String,
    /// Number of its group.
    pub group: usize,
    /// Rank given.
    pub rank: usize,
    /// LoRA alpha of the module.
    pub alpha: f64,
    /// Features of the input.
    pub in_features: usize,
    /// Features of the output.
    pub out_features: usize,
    /// Share of the input's variance on each component that the module could have got.
    pub explained_variance_ratio: Vec<f64>,
    /// |cosine| of each component with its value one batch earlier.
    pub similarity: Vec<f64>,
    /// Whether all assigned components converged.
    pub converged: bool,
}

/// What was found for one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
}

impl Report {
    /// Joins a run and what it found, one allocation a module; time and memory are filled in by the caller.
    pub fn new(
        run: Run,
        grouping: &Grouping,
        statistics: &Statistics,
        allocations: &[Allocation],
        settings: &Settings,
    ) -> Self {
        let (tokens_seen, tokens_kept) = statistics.tokens();
        let layers: Vec<LayerReport> = grouping
            .modules
            .iter()
            .zip(allocations)
            .map(|(module, allocation)| {
                let spectrum = &statistics.groups[module.group].spectrum;
                LayerReport {
                    module: module.name.clone(),
                    group: module.group,
                    rank: allocation.rank,
                    alpha: settings.alpha_at(allocation.rank),
                    in_features: module.in_features,
                    out_features: module.out_features,
                    explained_variance_ratio: spectrum.explained_variance_ratio(),
                    similarity: spectrum.similarity.clone(),
                    converged: allocation.converged,
                }
            })
            .collect();
        let spectra = statistics.spectra();
        let groups = grouping.groups.iter().zip(spectra).enumerate().map(|(id, (group, spectrum))| GroupReport {
            id,
            tensors: group.tensors.clone(),
            features: group.features,
            rows: spectrum.rows,
            total_variance: spectrum.total_variance,
            singular_values: spectrum.singular_values.clone(),
        });
        Self {
            budget: settings.budget(layers.len()),
            ranks_total: layers.iter().map(|layer| layer.rank).sum(),
            batches: statistics.history.len(),
            tokens_seen,
            tokens_kept,
            converged: allocations.iter().all(|allocation| allocation.converged),
            stopped_by: statistics.stopped_by,
            seconds: Seconds::default(),
            peak_rss_bytes: None,
            groups: groups.collect(),
            layers,
            run,
        }
    }

    /// The document as pretty JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

//! Explained Variance Adaptation (Paischer et al. 2025, arXiv 2410.07170): the loop that joins the parts.

mod allocate;

use crate::adapter::{Adapter, AdapterModule};
use crate::calib::Batch;
use crate::capture::{self, Capture};
use crate::group::{Grouping, Module};
use crate::pca::Spectrum;
use allocate::Candidate;
use ndarray::Array2;

/// How ranks are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    /// By explained variance.
    Eva,
    /// The same rank everywhere.
    Uniform,
}

/// The parameters of the method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Rank r that the budget N * r is counted in.
    pub rank: usize,
    /// LoRA alpha at rank r; every module gets `alpha * rank_i / rank`, so that the scale is the same everywhere.
    pub alpha: f64,
    /// Largest rank of a module, as a multiple of r.
    pub rho: f64,
    /// Cosine similarity at which a component counts as converged; at 1 the run never stops early.
    pub tau: f64,
    /// Smallest rank of a module.
    pub min_rank: usize,
    /// How ranks are given out.
    pub ranks: Ranks,
    /// Divide every row of A by the square root of its singular value, as PEFT's `whiten` defines it.
    pub whiten: bool,
}

impl Settings {
    /// Components that the analysis must keep: the largest rank a module may get.
    pub fn components(&self) -> usize {
        match self.ranks {
            Ranks::Eva => allocate::rank_cap(self.rank, self.rho).max(self.min_rank),
            Ranks::Uniform => self.rank,
        }
    }
}

/// Why the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// All assigned components converged.
    Converged,
    /// All calibration data was used.
    Data,
    /// The limit on batches was reached.
    MaxBatches,
    /// The user asked to stop.
    Interrupted,
}

/// State of the run after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Batches run.
    pub batches: usize,
    /// Attended tokens seen.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// Modules whose assigned components converged.
    pub converged: usize,
    /// Modules in all.
    pub modules: usize,
}

/// What the observer of the run answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Continue,
    /// Finish with what there is.
    Stop,
}

/// What the run found for one module.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Rank given.
    pub rank: usize,
    /// Whether all assigned components converged.
    pub converged: bool,
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// One entry a module.
    pub layers: Vec<Layer>,
    /// One entry a group.
    pub spectra: Vec<Spectrum>,
    /// Rank budget N * r.
    pub budget: usize,
    /// Counts at the end.
    pub progress: Progress,
    /// Why it ended.
    pub stopped_by: Stop,
    /// The adapter.
    pub adapter: Adapter,
}

/// Why no adapter came out.
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
    #[error("interrupted before the first batch was done: nothing to write")]
    Interrupted,
}

impl Error {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Capture(error) => error.hint(),
            Self::NotFinite { .. } => Some(capture::OVERFLOWS.to_owned()),
            Self::NoRows { .. } => Some("check `labels` and `attention_mask`, or drop --completion-only".to_owned()),
            Self::Interrupted => None,
        }
    }
}

/// Runs batches until the components converge, the batches end or the observer stops it, and makes the adapter.
///
/// `end` is what the end of `batches` means: all data used, or a limit reached.
///
/// # Errors
/// [`Error`]; nothing is kept of the run then.
pub fn run(
    capture: &mut dyn Capture,
    grouping: &Grouping,
    batches: impl Iterator<Item = Batch>,
    end: Stop,
    settings: &Settings,
    observe: &mut dyn FnMut(&Progress) -> Next,
) -> Result<Outcome, Error> {
    let Grouping { modules, groups } = grouping;
    let mut progress = Progress { modules: modules.len(), ..Progress::default() };
    let mut stopped_by = end;
    if observe(&progress) == Next::Stop {
        return Err(Error::Interrupted);
    }
    for batch in batches {
        capture.absorb(&batch).map_err(|error| named(error, modules))?;
        let layers = assess(capture, modules, groups.len(), settings);
        progress.batches += 1;
        progress.tokens_seen += batch.tokens();
        progress.tokens_kept += batch.kept();
        progress.converged = layers.iter().filter(|layer| layer.converged).count();
        let next = observe(&progress);
        if progress.converged == modules.len() {
            stopped_by = Stop::Converged;
            break;
        }
        if next == Next::Stop {
            stopped_by = Stop::Interrupted;
            break;
        }
    }
    if progress.tokens_kept == 0 {
        return Err(Error::NoRows { batches: progress.batches });
    }
    capture.finish().map_err(|error| named(error, modules))?;
    let layers = assess(capture, modules, groups.len(), settings);
    progress.converged = layers.iter().filter(|layer| layer.converged).count();
    let spectra: Vec<Spectrum> = (0..groups.len()).map(|g| capture.spectrum(g).clone()).collect();
    let adapter = adapter(capture, modules, &spectra, &layers, settings).map_err(|error| named(error, modules))?;
    let budget = modules.len() * settings.rank;
    Ok(Outcome { layers, spectra, budget, progress, stopped_by, adapter })
}

/// Ranks by what is known now, and which modules have converged at these ranks.
fn assess(capture: &dyn Capture, modules: &[Module], groups: usize, settings: &Settings) -> Vec<Layer> {
    let ratios: Vec<Vec<f64>> = (0..groups).map(|g| capture.spectrum(g).explained_variance_ratio()).collect();
    let cap = settings.components();
    let candidates: Vec<_> = modules.iter().map(|m| Candidate { scores: &ratios[m.group], cap }).collect();
    let ranks = match settings.ranks {
        Ranks::Eva => allocate::redistribute(&candidates, modules.len() * settings.rank, settings.min_rank),
        Ranks::Uniform => allocate::uniform(&candidates, settings.rank),
    };
    let converged = |module: &Module, rank: usize| {
        let spectrum = capture.spectrum(module.group);
        settings.tau < 1.0
            && spectrum.similarity.len() >= rank.max(1)
            && spectrum.similarity[..rank].iter().all(|s| *s >= settings.tau)
    };
    modules.iter().zip(ranks).map(|(m, rank)| Layer { rank, converged: converged(m, rank) }).collect()
}

fn adapter(
    capture: &dyn Capture,
    modules: &[Module],
    spectra: &[Spectrum],
    layers: &[Layer],
    settings: &Settings,
) -> Result<Adapter, capture::Error> {
    let components = capture.components()?;
    let mut adapter = Adapter::default();
    for (module, layer) in modules.iter().zip(layers) {
        if layer.rank == 0 {
            adapter.untouched.push(module.name.clone());
            continue;
        }
        let mut a = components[module.group].slice(ndarray::s![..layer.rank, ..]).to_owned();
        if settings.whiten {
            whiten(&mut a, &spectra[module.group]);
        }
        adapter.modules.push(AdapterModule {
            module: module.name.clone(),
            a: a.mapv(|v| v as f32),
            out_features: module.out_features,
            b: None,
            alpha: settings.alpha * layer.rank as f64 / settings.rank as f64,
            fan_in_fan_out: module.fan_in_fan_out,
        });
    }
    Ok(adapter)
}

/// Divides row j by the square root of singular value j. A direction without variance is left as it is.
fn whiten(a: &mut Array2<f64>, spectrum: &Spectrum) {
    let floor = spectrum.singular_values.first().map_or(0.0, |s| s * f64::from(f32::EPSILON));
    for (mut row, &s) in a.rows_mut().into_iter().zip(&spectrum.singular_values) {
        if s > floor {
            row /= s.sqrt();
        }
    }
}

fn named(error: capture::Error, modules: &[Module]) -> Error {
    let capture::Error::NotFinite { group, tensor, batch } = error else { return Error::Capture(error) };
    let readers: Vec<_> = modules.iter().filter(|m| m.group == group).map(|m| format!("`{}`", m.name)).collect();
    Error::NotFinite { modules: readers.join(", "), tensor, batch }
}

//! Statistics from calibration batches.

use super::allocate::{Allocation, allocate_by};
use super::error::Error;
use super::settings::Settings;
use super::statistics::{BatchRecord, GroupStatistics, Statistics, Stop};
use crate::calib::{self, Arrival, Batch};
use crate::capture::{self, Capture};
use crate::group::{Grouping, Module};
use crate::pca::Spectrum;

/// State of the run after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Batches run.
    pub batches: usize,
    /// Tokens seen that are not padding.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// Modules whose allocated components have converged.
    pub converged: usize,
    /// All modules.
    pub modules: usize,
}

/// What the observer of a run answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run the next batch.
    Continue,
    /// End the run and keep its statistics.
    Stop,
}

/// Runs batches until the components converge at the ranks that they would get, the batches end, or the observer stops
/// the run. The observer is called before the first batch, after each one, and while the next one is waited for.
///
/// # Errors
/// [`Error`]; nothing of the run is kept then.
pub fn gather(
    capture: &mut dyn Capture,
    grouping: &Grouping,
    batches: impl IntoIterator<Item = Result<Arrival, calib::Error>>,
    settings: &Settings,
    observe: &mut dyn FnMut(&Progress) -> Next,
) -> Result<Statistics, Error> {
    let modules = &grouping.modules;
    let mut progress = Progress { modules: modules.len(), ..Progress::default() };
    let (mut history, mut stopped_by) = (Vec::new(), Stop::Exhausted);
    if observe(&progress) == Next::Stop {
        return Err(Error::Interrupted);
    }
    for arrival in batches {
        let Arrival::Batch(batch) = arrival.map_err(|error| Error::Data(Box::new(error)))? else {
            if observe(&progress) == Next::Stop {
                stopped_by = Stop::Interrupted;
                break;
            }
            continue;
        };
        capture.absorb(&batch).map_err(|error| with_modules(error, modules))?;
        let record = record(&batch, &*capture, grouping, settings);
        history.push(record);
        progress.batches += 1;
        progress.tokens_seen += record.tokens_seen;
        progress.tokens_kept += record.tokens_kept;
        progress.converged = record.converged;
        let next = observe(&progress);
        if record.converged == modules.len() {
            stopped_by = Stop::Converged;
            break;
        }
        if next == Next::Stop {
            stopped_by = Stop::Interrupted;
            break;
        }
    }
    if progress.batches == 0 && stopped_by == Stop::Interrupted {
        return Err(Error::Interrupted);
    }
    if progress.tokens_kept == 0 {
        return Err(Error::NoRows { batches: progress.batches });
    }
    let events = capture.finish().map_err(|error| with_modules(error, modules))?;
    let groups = found(&*capture, grouping, progress.tokens_kept)?;
    Ok(Statistics { groups, history, stopped_by, events, timing: capture.timing() })
}

/// What was found of every group in so many `rows`.
fn found(capture: &dyn Capture, grouping: &Grouping, rows: usize) -> Result<Vec<GroupStatistics>, Error> {
    let components = capture.components().map_err(|error| with_modules(error, &grouping.modules))?;
    let spectra = (0..grouping.groups.len()).map(|group| capture.spectrum(group).clone());
    let found = spectra.zip(components).map(|(spectrum, components)| GroupStatistics { spectrum, components });
    let found: Vec<_> = found.collect();
    if found.iter().all(|group| group.spectrum.directions() == 0) {
        return Err(Error::NoVariance { rows });
    }
    Ok(found)
}

/// What a batch added, when it has been absorbed.
fn record(batch: &Batch, capture: &dyn Capture, grouping: &Grouping, settings: &Settings) -> BatchRecord {
    let spectra: Vec<&Spectrum> = (0..grouping.groups.len()).map(|group| capture.spectrum(group)).collect();
    let allocations = allocate_by(&spectra, &grouping.modules, settings);
    let used = grouping.modules.iter().zip(&allocations);
    let similarity =
        used.flat_map(|(module, &Allocation { rank, .. })| spectra[module.group].similarity.iter().take(rank).copied());
    BatchRecord {
        tokens_seen: batch.attended(),
        tokens_kept: batch.kept(),
        converged: allocations.iter().filter(|allocation| allocation.converged).count(),
        similarity: similarity.reduce(f64::min),
    }
}

/// Names the modules that read a tensor, where that is what the error is about.
fn with_modules(error: capture::Error, modules: &[Module]) -> Error {
    let capture::Error::NotFinite { group, tensor, batch } = error else { return Error::Capture(error) };
    let readers = modules.iter().filter(|module| module.group == group).map(|module| format!("`{}`", module.name));
    Error::NotFinite { modules: readers.collect::<Vec<_>>().join(", "), tensor, batch }
}

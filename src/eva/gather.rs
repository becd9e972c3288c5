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

impl Progress {
    fn count(&mut self, batch: &BatchRecord) {
        self.batches += 1;
        self.tokens_seen += batch.tokens_seen;
        self.tokens_kept += batch.tokens_kept;
        self.converged = batch.converged;
    }
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
    gather_on(capture, grouping, batches, settings, Going { history: Vec::new(), observe, keep: &mut |_, _, _| Ok(()) })
}

/// How a run goes on that may have begun elsewhere.
pub struct Going<'a, E> {
    /// What the batches added whose statistics the capture has already.
    pub history: Vec<BatchRecord>,
    /// The observer.
    pub observe: &'a mut dyn FnMut(&Progress) -> Next,
    /// Called after each batch but the last one, and when the observer stops the run, with the capture and what each batch
    /// added: what it saves of them continues the run. Its error ends the run.
    pub keep: &'a mut Keep<'a, E>,
}

/// What is done between two batches.
pub type Keep<'a, E> = dyn FnMut(&mut dyn Capture, &[BatchRecord], Next) -> Result<(), E> + 'a;

/// As [`gather`], for a run that has begun elsewhere, or may go on elsewhere.
///
/// # Errors
/// As [`gather`], and those of [`Going::keep`].
pub fn gather_on<E: From<Error>>(
    capture: &mut dyn Capture,
    grouping: &Grouping,
    batches: impl IntoIterator<Item = Result<Arrival, calib::Error>>,
    settings: &Settings,
    going: Going<'_, E>,
) -> Result<Statistics, E> {
    let Going { mut history, observe, keep } = going;
    let modules = &grouping.modules;
    let mut stopped_by = Stop::Exhausted;
    let mut state = Progress { modules: modules.len(), ..Progress::default() };
    history.iter().for_each(|batch| state.count(batch));
    if observe(&state) == Next::Stop {
        return Err(Error::Interrupted.into());
    }
    for arrival in batches {
        let arrived = arrival.map_err(|error| Error::Data(Box::new(error)))?;
        if let Arrival::Batch(batch) = &arrived {
            capture.absorb(batch).map_err(|error| with_modules(error, modules))?;
            let spectra: Vec<&Spectrum> = (0..grouping.groups.len()).map(|group| capture.spectrum(group)).collect();
            let record = record(batch, &spectra, grouping, settings);
            state.count(&record);
            history.push(record);
        }
        let next = observe(&state);
        if matches!(arrived, Arrival::Batch(_)) && state.converged == modules.len() {
            stopped_by = Stop::Converged;
            break;
        }
        if next == Next::Stop && state.batches == 0 {
            return Err(Error::Interrupted.into());
        }
        if next == Next::Stop || matches!(arrived, Arrival::Batch(_)) {
            keep(capture, &history, next)?;
        }
        if next == Next::Stop {
            stopped_by = Stop::Interrupted;
            break;
        }
    }
    let Progress { batches, tokens_kept, .. } = state;
    if tokens_kept == 0 {
        return Err(Error::NoRows { batches }.into());
    }
    let events = capture.finish().map_err(|error| with_modules(error, modules))?;
    let groups = found(&*capture, grouping, tokens_kept)?;
    Ok(Statistics { groups, history, stopped_by, events, timing: capture.timing() })
}

/// What was found of every group in so many `rows`.
fn found(capture: &dyn Capture, grouping: &Grouping, rows: usize) -> Result<Vec<GroupStatistics>, Error> {
    let components = capture.components().map_err(|error| with_modules(error, &grouping.modules))?;
    let spectra = (0..grouping.groups.len()).map(|group| capture.spectrum(group).clone());
    let found = spectra.zip(components).map(|(spectrum, components)| GroupStatistics { spectrum, components });
    let found: Vec<_> = found.collect();
    check_variance(&found, rows)?;
    Ok(found)
}

/// Checks that the input of some group varies in so many `rows`.
///
/// # Errors
/// [`Error::NoVariance`].
pub fn check_variance(groups: &[GroupStatistics], rows: usize) -> Result<(), Error> {
    match groups.iter().all(|group| group.spectrum.directions() == 0) {
        true => Err(Error::NoVariance { rows }),
        false => Ok(()),
    }
}

/// What a batch added to the spectra of all groups, which are those after it.
pub fn record(batch: &Batch, spectra: &[&Spectrum], grouping: &Grouping, settings: &Settings) -> BatchRecord {
    let allocations = allocate_by(spectra, &grouping.modules, settings);
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
pub fn with_modules(error: capture::Error, modules: &[Module]) -> Error {
    let capture::Error::NotFinite { group, tensor, batch } = error else { return Error::Capture(error) };
    let readers = modules.iter().filter(|module| module.group == group).map(|module| format!("`{}`", module.name));
    Error::NotFinite { modules: readers.collect::<Vec<_>>().join(", "), tensor, batch }
}

//! Statistics from calibration batches.

use super::allocate::{Allocation, allocate_by};
use super::error::Error;
use super::settings::Settings;
use super::statistics::{BatchRecord, GroupStatistics, Statistics, Stop};
use crate::calib::{self, Arrival, Batch};
use crate::capture::{self, Capture};
use crate::group::{Grouping, Module};
use crate::pca::Spectrum;
use std::collections::VecDeque;

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
    let going = Going { history: Vec::new(), observe, due: &|_| false, keep: &mut |_, _, _| Ok(()) };
    gather_on(capture, grouping, batches, settings, going)
}

/// How a run goes on that may have begun elsewhere.
pub struct Going<'a, E> {
    /// What the batches added whose statistics the capture has already.
    pub history: Vec<BatchRecord>,
    /// The observer.
    pub observe: &'a mut dyn FnMut(&Progress) -> Next,
    /// Whether the state is kept after so many batches, so that no batch may be under way then.
    pub due: &'a dyn Fn(usize) -> bool,
    /// Called after each batch but the last one, and when the observer stops the run, with the capture and what each batch
    /// added: what it saves of them continues the run. Its error ends the run. It is not called while batches are under way.
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
    let Going { history, observe, due, keep } = going;
    let mut run = Run::new(capture, grouping, settings, history);
    let mut stopped_by = Stop::Exhausted;
    if observe(&run.state) == Next::Stop {
        return Err(Error::Interrupted.into());
    }
    for arrival in batches {
        let arrived = arrival.map_err(|error| Error::Data(Box::new(error)))?;
        let is_batch = matches!(arrived, Arrival::Batch(_));
        if let Arrival::Batch(batch) = &arrived {
            run.take(batch)?;
        }
        let settled = run.settle(run.capture.depth(), observe)?;
        let next = settled.unwrap_or_else(|| observe(&run.state));
        if next == Next::Stop && run.taken() == 0 {
            return Err(Error::Interrupted.into());
        }
        if next == Next::Stop || (is_batch && due(run.taken())) {
            run.settle(0, observe)?;
        }
        if run.has_converged() {
            break;
        }
        if run.under_way.is_empty() && (next == Next::Stop || is_batch) {
            keep(&mut *run.capture, &run.history, next)?;
        }
        if next == Next::Stop {
            stopped_by = Stop::Interrupted;
            break;
        }
    }
    if run.settle(0, observe)? == Some(Next::Stop) && !run.has_converged() {
        keep(&mut *run.capture, &run.history, Next::Stop)?;
        stopped_by = Stop::Interrupted;
    }
    Ok(run.end(stopped_by)?)
}

/// A run between two batches.
struct Run<'a> {
    capture: &'a mut dyn Capture,
    grouping: &'a Grouping,
    settings: &'a Settings,
    history: Vec<BatchRecord>,
    state: Progress,
    /// Tokens of the batches that the spectra do not show yet, as they are counted.
    under_way: VecDeque<(usize, usize)>,
}

impl<'a> Run<'a> {
    fn new(
        capture: &'a mut dyn Capture,
        grouping: &'a Grouping,
        settings: &'a Settings,
        history: Vec<BatchRecord>,
    ) -> Self {
        let mut state = Progress { modules: grouping.modules.len(), ..Progress::default() };
        history.iter().for_each(|batch| state.count(batch));
        Self { capture, grouping, settings, history, state, under_way: VecDeque::new() }
    }

    fn take(&mut self, batch: &Batch) -> Result<(), Error> {
        self.capture.absorb(batch).map_err(|error| with_modules(error, &self.grouping.modules))?;
        self.under_way.push_back((batch.attended(), batch.kept()));
        Ok(())
    }

    /// Batches that were taken.
    fn taken(&self) -> usize {
        self.history.len() + self.under_way.len()
    }

    /// Waits until at most so many batches are under way, or all components have converged; the others are given up then.
    /// What the observer says of the batches that have settled, if any have.
    fn settle(&mut self, most: usize, observe: &mut dyn FnMut(&Progress) -> Next) -> Result<Option<Next>, Error> {
        let modules = &self.grouping.modules;
        let mut said = None;
        while self.under_way.len() > most && !self.has_converged() {
            self.capture.settle().map_err(|error| with_modules(error, modules))?;
            let Some(tokens) = self.under_way.pop_front() else { break };
            let spectra: Vec<_> = (0..self.grouping.groups.len()).map(|group| self.capture.spectrum(group)).collect();
            let record = record(tokens, &spectra, self.grouping, self.settings);
            self.state.count(&record);
            self.history.push(record);
            said = if observe(&self.state) == Next::Stop { Some(Next::Stop) } else { said.or(Some(Next::Continue)) };
        }
        if self.has_converged() && !self.under_way.is_empty() {
            self.capture.abandon().map_err(|error| with_modules(error, modules))?;
            self.under_way.clear();
        }
        Ok(said)
    }

    fn has_converged(&self) -> bool {
        self.state.batches > 0 && self.state.converged == self.state.modules
    }

    /// What was found.
    fn end(self, stopped_by: Stop) -> Result<Statistics, Error> {
        let stopped_by = if self.has_converged() { Stop::Converged } else { stopped_by };
        let Self { capture, grouping, history, state: Progress { batches, tokens_kept, .. }, .. } = self;
        if tokens_kept == 0 {
            return Err(Error::NoRows { batches });
        }
        let events = capture.finish().map_err(|error| with_modules(error, &grouping.modules))?;
        let groups = found(&*capture, grouping, tokens_kept)?;
        Ok(Statistics { groups, history, stopped_by, events, timing: capture.timing() })
    }
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

/// What a batch of so many tokens, seen and kept, added to the spectra of all groups, which are those after it.
pub fn record(
    (seen, kept): (usize, usize),
    spectra: &[&Spectrum],
    grouping: &Grouping,
    settings: &Settings,
) -> BatchRecord {
    let allocations = allocate_by(spectra, &grouping.modules, settings);
    let used = grouping.modules.iter().zip(&allocations);
    let similarity =
        used.flat_map(|(module, &Allocation { rank, .. })| spectra[module.group].similarity.iter().take(rank).copied());
    BatchRecord {
        tokens_seen: seen,
        tokens_kept: kept,
        converged: allocations.iter().filter(|allocation| allocation.converged).count(),
        similarity: similarity.reduce(f64::min),
    }
}

/// Names the modules that read a tensor, where that is what the error is about.
pub fn with_modules(error: capture::Error, modules: &[Module]) -> Error {
    let capture::Error::NotFinite { group, tensor, batch, others } = error else { return Error::Capture(error) };
    let readers = modules.iter().filter(|module| module.group == group).map(|module| format!("`{}`", module.name));
    Error::NotFinite { modules: readers.collect::<Vec<_>>().join(", "), tensor, batch, others }
}

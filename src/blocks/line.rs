//! The parts of a model side by side, and what one has made of a batch for the next ones.
//!
//! Batches have numbers. What the parts hand on for a batch, and for others that are run on its account, such as its halves,
//! is kept in host memory until the last part that reads it is done with the batch.

use super::parts::Parts;
use super::requests::{Request, Requests, key};
use super::store::Store;
use crate::calib::Batch;
use crate::capture::{Error as CaptureError, PartCapture};
use crate::feeds::{Carry, Error};
use crate::onnx::ValueInfo;
use crate::runtime::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A loaded part, which works for its own batches and for the part after it.
pub(super) type Seat = Mutex<Box<dyn PartCapture + Send>>;

/// What all parts know of each other.
pub(super) struct Line {
    pub(super) parts: Parts,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The batch that each part runs, or runs something for.
    current: Vec<usize>,
    /// The last batch that each part is done with.
    done: Vec<usize>,
    /// The first batch that some part could not run, or that nobody wants any more.
    broken: Option<usize>,
    flights: BTreeMap<usize, Flight>,
}

/// What is known of a batch that is under way.
#[derive(Default)]
struct Flight {
    store: Store,
    requests: Requests,
}

impl State {
    fn flight(&mut self, number: usize) -> &mut Flight {
        self.flights.entry(number).or_default()
    }
}

impl Line {
    pub(super) fn new(parts: Parts) -> Self {
        let (current, done) = (vec![0; parts.len()], vec![0; parts.len()]);
        let state = State { current, done, broken: None, flights: BTreeMap::new() };
        Self { parts, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Announces a batch.
    pub(super) fn begin(&self, number: usize, batch: &Batch) {
        self.state().flight(number).requests.announce_data(batch);
    }

    /// Forgets what was handed on for a batch.
    pub(super) fn forget(&self, number: usize) {
        self.state().flights.remove(&number);
    }

    /// What `work` returns, which has a part run a batch, or something for it.
    pub(super) fn on_account_of<T>(&self, number: usize, at: usize, work: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.state().current[at], number);
        let returned = work();
        self.state().current[at] = before;
        returned
    }

    /// Waits until a part may run a batch, after the part before it; `false` if it must not.
    pub(super) fn admits(&self, number: usize, at: usize) -> bool {
        let mut state = self.state();
        loop {
            if state.broken.is_some_and(|broken| broken <= number) {
                return false;
            }
            if at == 0 || state.done[at - 1] >= number {
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a part is done with a batch, and forgets what none of those after it reads.
    pub(super) fn leave(&self, number: usize, at: usize) {
        let needed = self.parts.needed(at + 1);
        let mut state = self.state();
        let flight = state.flight(number);
        // One that was fed and came to no end was too large, and was run in halves.
        flight.requests.fail_left(at);
        flight.store.keep_only(|name| needed.contains(name));
        if at + 1 == self.parts.len() {
            state.flights.remove(&number);
        }
        state.done[at] = number;
        self.changed.notify_all();
    }

    /// Lets no part run this batch, nor those after it.
    pub(super) fn break_at(&self, number: usize) {
        let mut state = self.state();
        state.broken = Some(state.broken.map_or(number, |broken| broken.min(number)));
        self.changed.notify_all();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state().broken.is_some()
    }

    /// Goes on after a batch that all parts are done with; nothing is running.
    pub(super) fn go_on_after(&self, number: usize) {
        let mut state = self.state();
        state.broken = None;
        state.done.fill(number);
        state.flights.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part in its place.
pub(super) struct Place {
    pub(super) line: Arc<Line>,
    pub(super) at: usize,
    /// The part before it.
    pub(super) before: Option<Arc<Seat>>,
}

impl Place {
    /// Has the parts before run a batch.
    fn pull(&self, number: usize, key: &str, batch: &Batch) -> Result<(), Error> {
        let line = &self.line;
        let Some(before) = &self.before else {
            line.state().flight(number).requests.begin(key, batch);
            for (name, tensor) in line.parts.made(batch)? {
                line.state().flight(number).store.put(key, &name, tensor)?;
            }
            return Ok(());
        };
        tracing::debug!(part = self.at + 1, sequences = batch.dim().0, "a new batch runs through the part before");
        let mut part = before.lock().unwrap_or_else(PoisonError::into_inner);
        line.on_account_of(number, self.at - 1, || part.forward(batch)).map_err(CaptureError::of_part)
    }
}

impl Carry for Place {
    fn returned(&self) -> Vec<String> {
        self.line.parts.returned(self.at)
    }

    fn loaded(&self, outputs: &[ValueInfo]) {
        self.line.parts.loaded(outputs);
    }

    fn fed(&self, batch: &Batch) -> Result<Vec<(String, Value)>, Error> {
        let (line, at, key) = (&self.line, self.at, key(batch));
        let number = line.state().current[at];
        let known = line.state().flight(number).requests.get(&key);
        match known {
            Some(Request { failed: Some(failure), .. }) => return Err(failure.error().into()),
            Some(Request { reached, .. }) if reached >= Some(at) => {
                let fed = line.parts.fed_from(&line.state().flight(number).store, at, &key);
                // It may have been forgotten.
                if !matches!(fed, Err(Error::NoTensor { .. })) {
                    return fed;
                }
            }
            _ => {}
        }
        self.pull(number, &key, batch)?;
        line.parts.fed_from(&line.state().flight(number).store, at, &key)
    }

    fn keep(&self, batch: &Batch, values: &[&Value]) -> Result<(), Error> {
        let (line, key) = (&self.line, key(batch));
        let mut state = line.state();
        let number = state.current[self.at];
        let flight = state.flight(number);
        line.parts.keep_in(&mut flight.store, self.at, &key, values)?;
        flight.requests.reach(&key, self.at + 1);
        Ok(())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("at", &self.at).finish_non_exhaustive()
    }
}

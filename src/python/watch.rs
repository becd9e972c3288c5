//! What Python sees of a run, and what ends it.

use crate::Next;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// The first exception that was raised while a command ran.
#[derive(Clone, Default)]
pub(super) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    pub(super) fn set(&self, error: PyErr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// # Errors
    /// The exception.
    pub(super) fn check(&self) -> PyResult<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Calls a function of Python with the state of a run, when that has changed, and lets Python handle signals.
pub(super) struct Watch<P> {
    observe: Option<Py<PyAny>>,
    raised: Raised,
    last: P,
}

impl<P: Copy + Default + PartialEq> Watch<P> {
    pub(super) fn new(observe: Option<Py<PyAny>>, raised: Raised) -> Self {
        Self { observe, raised, last: P::default() }
    }

    /// Whether the run goes on: not after an exception, or when the function returns False. `arguments` are those of the
    /// function for a state.
    pub(super) fn next<A>(&mut self, state: &P, arguments: impl FnOnce(&P) -> A) -> Next
    where
        A: for<'py> PyCallArgs<'py>,
    {
        let changed = *state != self.last;
        self.last = *state;
        let goes_on: PyResult<bool> = Python::attach(|py| {
            py.check_signals()?;
            match self.observe.as_ref().filter(|_| changed) {
                None => Ok(true),
                Some(observe) => Ok(observe.bind(py).call1(arguments(state))?.extract::<bool>().unwrap_or(true)),
            }
        });
        match goes_on {
            Ok(true) if !self.raised.is_set() => Next::Continue,
            Ok(_) => Next::Stop,
            Err(error) => {
                self.raised.set(error);
                Next::Stop
            }
        }
    }
}

//! One capture on a thread of its own.

use super::error::Error;
use super::interface::{Capture, Timing};
use crate::pca::Spectrum;
use crate::worker::{Answer, Worker};
use serde::{Deserialize, Serialize};

/// One capture on its thread.
pub(super) struct Shard {
    worker: Worker<Box<dyn Capture + Send>>,
    pub(super) running: Option<Answer<Result<Known, Error>>>,
    pub(super) known: Known,
}

/// What a capture knows after its last batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// The spectrum of each group.
    pub spectra: Vec<Spectrum>,
    /// Time spent so far.
    pub timing: Timing,
}

impl Shard {
    pub(super) fn start(capture: Box<dyn Capture + Send>, groups: usize) -> Self {
        let known = Known::of(&*capture, groups);
        Self { worker: Worker::start(capture), running: None, known }
    }

    /// Sends a job.
    pub(super) fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut dyn Capture) -> T + Send + 'static) -> Answer<T> {
        self.worker.ask(move |capture| job(&mut **capture))
    }

    /// Waits until the batch that is running, if any, has ended, without taking notice of it: what is known then.
    pub(super) fn pause(&mut self) -> Result<Option<Known>, Error> {
        let Some(running) = self.running.take() else { return Ok(None) };
        let ended = running.wait()?;
        self.running = Some(Answer::ready(Ok(ended.clone())));
        Ok(Some(ended))
    }

    /// Waits for the batch that is running, if any.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        if let Some(running) = self.running.take() {
            self.known = running.wait()?;
        }
        Ok(())
    }
}

impl Known {
    /// What a capture of so many groups knows.
    pub fn of(capture: &dyn Capture, groups: usize) -> Self {
        Self { spectra: (0..groups).map(|group| capture.spectrum(group).clone()).collect(), timing: capture.timing() }
    }
}

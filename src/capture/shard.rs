//! One capture on a thread of its own.

use super::error::Error;
use super::interface::{Capture, Timing};
use crate::pca::Spectrum;
use serde::{Deserialize, Serialize};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce(&mut dyn Capture) + Send>;

/// The answer of a shard, to wait for. A panic of the shard continues in the thread that waits.
pub(super) struct Answer<T>(Receiver<std::thread::Result<T>>);

/// One capture on its thread.
pub(super) struct Shard {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(super) running: Option<Answer<Result<Known, Error>>>,
    pub(super) known: Known,
}

/// What a shard knows after its last batch.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) spectra: Vec<Spectrum>,
    pub(super) timing: Timing,
}

impl Shard {
    pub(super) fn start(mut capture: Box<dyn Capture + Send>, groups: usize) -> Self {
        let known = Known::of(&*capture, groups);
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::spawn(move || queue.into_iter().for_each(|job| job(&mut *capture)));
        Self { jobs: Some(jobs), thread: Some(thread), running: None, known }
    }

    /// Sends a job.
    pub(super) fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut dyn Capture) -> T + Send + 'static) -> Answer<T> {
        let (sender, answer) = mpsc::channel();
        let job: Job = Box::new(move |capture| {
            // Nobody waits for the answer if the run has failed elsewhere.
            let _ = sender.send(panic::catch_unwind(AssertUnwindSafe(|| job(capture))));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        debug_assert!(matches!(sent, Some(Ok(()))), "the thread takes jobs as long as the shard exists");
        Answer(answer)
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

impl Drop for Shard {
    fn drop(&mut self) {
        self.jobs = None;
        // Its panics were caught with the jobs.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<T> Answer<T> {
    /// An answer that is there.
    pub(super) fn ready(answer: T) -> Self {
        let (sender, receiver) = mpsc::channel();
        // The receiver is here.
        let _ = sender.send(Ok(answer));
        Self(receiver)
    }

    pub(super) fn wait(self) -> T {
        match self.0.recv() {
            Ok(answer) => answer.unwrap_or_else(|panic| panic::resume_unwind(panic)),
            Err(_) => unreachable!("every job is answered"),
        }
    }
}

impl Known {
    pub(super) fn of(capture: &dyn Capture, groups: usize) -> Self {
        Self { spectra: (0..groups).map(|group| capture.spectrum(group).clone()).collect(), timing: capture.timing() }
    }
}

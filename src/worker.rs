//! A thread of its own for something that works on one job after the other.

use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Something on a thread, which ends with this value, after all jobs.
pub(crate) struct Worker<S> {
    jobs: Option<Sender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
}

/// The answer to a job, to wait for. A panic of the job continues in the thread that waits.
pub(crate) struct Answer<T>(Receiver<std::thread::Result<T>>);

impl<S: Send + 'static> Worker<S> {
    pub(crate) fn start(mut state: S) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let thread = std::thread::spawn(move || queue.into_iter().for_each(|job| job(&mut state)));
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Sends a job.
    pub(crate) fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut S) -> T + Send + 'static) -> Answer<T> {
        let (sender, answer) = mpsc::channel();
        let job: Job<S> = Box::new(move |state| {
            // Nobody waits for the answer if the run has failed elsewhere.
            let _ = sender.send(panic::catch_unwind(AssertUnwindSafe(|| job(state))));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        debug_assert!(matches!(sent, Some(Ok(()))), "the thread takes jobs as long as the worker exists");
        Answer(answer)
    }
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.jobs = None;
        // Its panics were caught with the jobs.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<T> Answer<T> {
    /// An answer that is there.
    pub(crate) fn ready(answer: T) -> Self {
        let (sender, receiver) = mpsc::channel();
        // The receiver is here.
        let _ = sender.send(Ok(answer));
        Self(receiver)
    }

    pub(crate) fn wait(self) -> T {
        match self.0.recv() {
            Ok(answer) => answer.unwrap_or_else(|panic| panic::resume_unwind(panic)),
            Err(_) => unreachable!("every job is answered"),
        }
    }
}

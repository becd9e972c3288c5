//! Batches while their rows are read.

use std::panic;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::bad_rows::BadRows;
use super::batch::Batch;
use super::calibration::{Calibration, RowCounts};
use super::error::Error;
use super::options::LoadOptions;
use super::source::RowSource;
use super::windows::Windows;

/// How long batches are waited for before the caller is asked again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A batch, or none yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// The next batch.
    Batch(Box<Batch>),
    /// The rows of the next batch are still being read: ask again.
    Waiting,
}

impl From<Batch> for Arrival {
    fn from(batch: Batch) -> Self {
        Self::Batch(Box::new(batch))
    }
}

/// Batches whose rows are read and tokenised on a thread of its own, at most two windows ahead.
///
/// The thread ends with the rows, or soon after this value is dropped.
#[derive(Debug)]
pub struct Arrivals {
    windows: Receiver<Result<Calibration, Error>>,
    thread: Option<JoinHandle<()>>,
    window: Calibration,
    /// Batches of earlier windows.
    before: usize,
    /// Batches of this window that were handed out.
    handed: usize,
    /// Whether the padding of rows is kept.
    as_given: bool,
}

impl Arrivals {
    /// Starts to read, and waits for the first window as long as `go_on` agrees; `None` when it does not.
    ///
    /// # Errors
    /// As [`load`](super::load()), of the rows of the first window.
    pub fn start(
        source: Box<dyn RowSource + Send>,
        options: LoadOptions,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, Error> {
        let (sender, windows) = mpsc::sync_channel(0);
        let thread = thread::spawn(move || read(source, &options, &sender));
        let received = loop {
            match windows.recv_timeout(PATIENCE) {
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                received => break received,
            }
        };
        match received {
            Ok(window) => {
                let (thread, window) = (Some(thread), window?);
                Ok(Some(Self { windows, thread, window, before: 0, handed: 0, as_given: false }))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                ended(thread);
                Ok(None)
            }
        }
    }

    /// The batches that are planned by now, those handed out included.
    pub fn window(&self) -> &Calibration {
        &self.window
    }

    /// Keeps the padding that rows came with, as some models take only some lengths; `false` if no row of the window came
    /// with any.
    pub fn pad_as_given(&mut self) -> bool {
        self.as_given = self.window.pad_as_given();
        self.as_given
    }

    /// Hands all batches to `take`, window by window, as long as `go_on` agrees to wait; `false` when it does not.
    ///
    /// # Errors
    /// As [`load`](super::load()), and those of `take`.
    pub fn each_window<E: From<Error>>(
        mut self,
        go_on: &mut dyn FnMut() -> bool,
        take: &mut dyn FnMut(Calibration) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut last = self.window.last;
        take(self.window)?;
        while !last {
            match self.windows.recv_timeout(PATIENCE) {
                Ok(window) => {
                    let window = window?;
                    last = window.last;
                    take(window)?;
                }
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(thread) = self.thread.take() {
                        ended(thread);
                    }
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Number of all batches, as soon as that is known.
    pub fn planned(&self) -> Option<usize> {
        self.window.last.then(|| self.before + self.window.len())
    }

    /// How many rows were read, dropped and cut until the last batch handed out was planned.
    pub fn counts(&self) -> RowCounts {
        self.window.counts()
    }

    /// Rows that were passed over so far.
    pub fn bad(&self) -> &BadRows {
        self.window.bad()
    }

    /// Fields that some row has so far and that change nothing, unless the user said which to read.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.window.unused()
    }
}

impl Iterator for Arrivals {
    type Item = Result<Arrival, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.handed == self.window.len() {
            if self.window.last {
                return None;
            }
            match self.windows.recv_timeout(PATIENCE) {
                Ok(Ok(window)) => {
                    self.before += std::mem::replace(&mut self.window, window).len();
                    self.handed = 0;
                    if self.as_given {
                        self.window.pad_as_given();
                    }
                }
                Ok(Err(error)) => return Some(Err(error)),
                Err(RecvTimeoutError::Timeout) => return Some(Ok(Arrival::Waiting)),
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(thread) = self.thread.take() {
                        ended(thread);
                    }
                    return None;
                }
            }
        }
        self.handed += 1;
        Some(Ok(self.window.batch(self.handed - 1).into()))
    }
}

/// Sends windows until the last one, an error, or nobody waits for them.
fn read(mut source: Box<dyn RowSource + Send>, options: &LoadOptions, sender: &SyncSender<Result<Calibration, Error>>) {
    let mut windows = match Windows::open(&mut *source, options) {
        Ok(windows) => windows,
        Err(error) => {
            let _ = sender.send(Err(error));
            return;
        }
    };
    loop {
        let window = windows.next_window();
        let more = window.as_ref().is_ok_and(|window| !window.last);
        if sender.send(window).is_err() || !more {
            return;
        }
    }
}

/// A panic of the thread that reads continues here.
fn ended(thread: JoinHandle<()>) {
    if let Err(panicked) = thread.join() {
        panic::resume_unwind(panicked);
    }
}

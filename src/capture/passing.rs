//! A part of a model without layers to analyse: it makes what other parts read.

use super::error::Error;
use super::interface::{Capture, Events, PartCapture, Timing};
use super::matching::{Demands, Unlearnt};
use super::setup::Setup;
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::pca::{Spectrum, Summary};
use crate::runtime::{self, Session};
use ndarray::Array2;
use std::time::Instant;

/// A part that has no groups.
pub struct Passing {
    session: Session,
    feeds: Feeds,
    demands: Demands,
    nothing: Spectrum,
    events: Events,
    timing: Timing,
}

impl Passing {
    /// Loads the part.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn new(setup: Setup<'_>) -> Result<Self, Error> {
        let session = Session::load(setup.runtime, setup.model, setup.options)?;
        setup.feeds.loaded(&session.outputs());
        Ok(Self {
            session,
            feeds: setup.feeds.clone(),
            demands: setup.demands,
            nothing: Spectrum::default(),
            events: Events::default(),
            timing: Timing::default(),
        })
    }

    /// Runs a batch, in halves when the device has not enough memory for all of it.
    fn run(&mut self, batch: &Batch) -> Result<(), Error> {
        let full = match self.forward(batch) {
            Err(Error::Runtime(full @ runtime::Error::OutOfMemory { .. })) => full,
            done => return done,
        };
        let halves = batch.halves().filter(|_| self.feeds.shape().batch.is_none()).ok_or(full)?;
        self.events.split_batches += 1;
        halves.iter().try_for_each(|half| self.run(half))
    }
}

impl PartCapture for Passing {
    fn demands(&self) -> Demands {
        self.demands
    }

    fn obey(&mut self, demands: Demands) {
        self.demands = self.demands.and(demands);
    }

    fn unlearnt(&self) -> Unlearnt {
        Unlearnt::NOTHING
    }

    fn learn_order(&mut self, _: &Batch) -> Result<(), Error> {
        Ok(())
    }

    fn learn_padding(&mut self, _: &Batch) -> Result<(), Error> {
        Ok(())
    }

    fn mark(&mut self, _: usize, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn return_to(&mut self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn forward(&mut self, batch: &Batch) -> Result<(), Error> {
        let started = Instant::now();
        let feeds = self.feeds.bind(batch)?;
        let outputs = self.session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        self.feeds.keep(batch, &outputs.iter().collect::<Vec<_>>())?;
        self.timing.forward += started.elapsed();
        Ok(())
    }
}

impl Capture for Passing {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.kept() == 0 {
            return Ok(());
        }
        let parts = self.demands.parts(batch, self.feeds.shape(), true);
        if parts.is_empty() {
            return self.run(batch);
        }
        parts.iter().filter(|part| part.kept() > 0).try_for_each(|part| self.run(part))
    }

    fn finish(&mut self) -> Result<Events, Error> {
        Ok(self.events)
    }

    /// It has no groups.
    fn spectrum(&self, _: usize) -> &Spectrum {
        &self.nothing
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, Error> {
        Ok(Vec::new())
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        Ok(Vec::new())
    }

    fn save(&mut self) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}

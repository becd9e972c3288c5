//! The parts of a model on several devices, through which batches run as through a pipeline.
//!
//! Each part has a thread. While it runs a batch, the part before it runs the next one. The parts count what the whole model
//! counts: how batches are split is learnt in all parts before any of them counts the batch that tells, and where the run
//! ends with a batch, parts that are further go back to it.

use super::cut::Block;
use super::line::{Line, Place, Seat};
use super::parts::Parts;
use crate::calib::Batch;
use crate::capture::{Capture, Error, Events, Known, PartCapture, Timing, Unlearnt};
use crate::feeds::Feeds;
use crate::onnx::{self, Model};
use crate::pca::{Spectrum, Summary};
use crate::worker::{Answer, Worker};
use ndarray::Array2;
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

/// What a part answers of a batch; nothing if it did not run it.
type Ended = Option<Result<Known, Error>>;

/// Parts of a model, one after the other, each on a thread of its own.
pub struct Pipeline {
    line: Arc<Line>,
    stations: Vec<Station>,
    /// Of each batch that is under way, the answers of all parts.
    under_way: VecDeque<Vec<Answer<Ended>>>,
    taken: usize,
    settled: usize,
    spectra: Vec<Spectrum>,
    /// Whether the run may end with a batch while others are under way.
    may_end: bool,
}

/// A part with its thread.
struct Station {
    seat: Arc<Seat>,
    worker: Worker<Arc<Seat>>,
    /// The groups of the model that it has.
    numbers: Vec<usize>,
    known: Known,
    unlearnt: Unlearnt,
}

impl Station {
    fn part(&self) -> MutexGuard<'_, Box<dyn PartCapture + Send>> {
        locked(&self.seat)
    }

    /// The answer to a job, on the thread of the part.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn PartCapture) -> Result<T, Error> + Send + 'static,
    ) -> Answer<Result<T, Error>> {
        self.worker.ask(move |seat| job(&mut **locked(seat)))
    }
}

fn locked(seat: &Seat) -> MutexGuard<'_, Box<dyn PartCapture + Send>> {
    seat.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the other parts when one does not get to the end of a batch, also when it panics.
struct Attempt<'a> {
    line: &'a Line,
    number: usize,
    ended: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.line.break_at(self.number);
        }
    }
}

impl Pipeline {
    /// No part is loaded yet. `model` is fed `feeds` and has so many groups; `first` is the first batch of the data.
    /// `may_end` says whether the run may end with a batch while others are under way.
    pub fn new(
        model: Model,
        blocks: Vec<Block>,
        feeds: Feeds,
        (groups, first): (usize, &Batch),
        may_end: bool,
    ) -> Self {
        let line = Line::new(Parts::new(model, blocks, feeds));
        line.begin(0, first);
        Self {
            line: Arc::new(line),
            stations: Vec::new(),
            under_way: VecDeque::new(),
            taken: 0,
            settled: 0,
            spectra: vec![Spectrum::default(); groups],
            may_end,
        }
    }

    /// The model of the next part, and what it is fed.
    ///
    /// # Errors
    /// When it is no whole graph.
    pub fn next_part(&self) -> Result<(Model, Feeds), onnx::Error> {
        let at = self.stations.len();
        let part = self.line.parts.part(at)?;
        let before = self.stations.last().map(|station| Arc::clone(&station.seat));
        let place = Arc::new(Place { line: Arc::clone(&self.line), at, before });
        let feeds = self.line.parts.feeds(&part).carried_by(place);
        Ok((part, feeds))
    }

    /// Adds the next part, which has the groups `numbers` of the model. After the last one, batches may come.
    pub fn add(&mut self, part: Box<dyn PartCapture + Send>, numbers: Vec<usize>) {
        let known = Known::of(&*part, numbers.len());
        let unlearnt = part.unlearnt();
        let seat = Arc::new(Seat::new(part));
        let worker = Worker::start(Arc::clone(&seat));
        self.stations.push(Station { seat, worker, numbers, known, unlearnt });
        if self.stations.len() == self.line.parts.len() {
            self.line.forget(0);
            self.agree();
        }
    }

    /// Lets each part split batches as any of them demands.
    fn agree(&mut self) {
        let demands = self.stations.iter().map(|station| station.part().demands()).reduce(|a, b| a.and(b));
        for station in &mut self.stations {
            let mut part = locked(&station.seat);
            demands.into_iter().for_each(|demands| part.obey(demands));
            station.unlearnt = part.unlearnt();
        }
    }

    /// Has all parts learn from a batch, one after the other.
    fn learn(&mut self, number: usize, batch: &Batch) -> Result<(), Error> {
        type Learn = fn(&mut dyn PartCapture, &Batch) -> Result<(), Error>;
        let order: Learn = |part, batch| part.learn_order(batch);
        let padding: Learn = |part, batch| part.learn_padding(batch);
        for learn in [order, padding] {
            for (at, station) in self.stations.iter().enumerate() {
                let mut part = station.part();
                let learnt = self.line.on_account_of(number, at, || learn(&mut **part, batch));
                learnt.map_err(|error| error.with_numbers(&station.numbers))?;
            }
            self.agree();
        }
        Ok(())
    }

    /// Sends a batch to a part.
    fn send(&self, at: usize, number: usize, batch: &Arc<Batch>) -> Answer<Ended> {
        let station = &self.stations[at];
        let (line, batch, numbers) = (Arc::clone(&self.line), Arc::clone(batch), station.numbers.clone());
        let marks = if self.may_end { self.depth() + 1 } else { 0 };
        station.worker.ask(move |seat| {
            if !line.admits(number, at) {
                return None;
            }
            let mut attempt = Attempt { line: &line, number, ended: false };
            let mut part = locked(seat);
            let mut absorb = || -> Result<Known, Error> {
                line.on_account_of(number, at, || part.absorb(&batch))?;
                if marks > 0 {
                    part.mark(number, marks)?;
                }
                Ok(Known::of(&**part, numbers.len()))
            };
            let ran = absorb().map_err(|error| error.with_numbers(&numbers));
            attempt.ended = ran.is_ok();
            if ran.is_ok() {
                line.leave(number, at);
            }
            Some(ran)
        })
    }

    /// The answers of all parts to the same job, which they do at the same time.
    fn ask_all<T: Send + 'static>(
        &self,
        job: impl Fn(&mut dyn PartCapture) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let answers: Vec<_> = self.stations.iter().map(|station| station.ask(job.clone())).collect();
        let answers = answers.into_iter().zip(&self.stations);
        answers.map(|(answer, station)| answer.wait().map_err(|error| error.with_numbers(&station.numbers))).collect()
    }

    /// One value for each group, from those of the parts.
    fn by_group<T>(&self, found: Vec<Vec<T>>) -> Vec<T> {
        let of_parts = self.stations.iter().zip(found);
        let mut all: Vec<(usize, T)> =
            of_parts.flat_map(|(station, found)| station.numbers.iter().copied().zip(found)).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes notice of what parts know.
    fn show(&mut self, known: Vec<Known>) {
        for (station, known) in self.stations.iter_mut().zip(known) {
            let groups = station.numbers.iter().zip(&known.spectra);
            groups.for_each(|(number, spectrum)| self.spectra[*number].clone_from(spectrum));
            station.known = known;
        }
    }

    fn wait_for_all(&mut self) {
        for answers in &mut self.under_way {
            *answers = std::mem::take(answers).into_iter().map(|answer| Answer::ready(answer.wait())).collect();
        }
    }
}

impl Capture for Pipeline {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        let number = self.taken + 1;
        self.taken = number;
        let tells = self.stations.iter().any(|station| station.unlearnt.is_told_by(batch));
        let mut failed = None;
        if batch.kept() > 0 && tells {
            self.wait_for_all();
            if !self.line.is_broken() {
                self.line.begin(number, batch);
                // It is the error of this batch, and comes after those of the batches that are under way.
                failed = self.learn(number, batch).err();
                self.line.forget(number);
            }
        }
        if let Some(error) = failed {
            self.line.break_at(number);
            self.under_way.push_back(vec![Answer::ready(Some(Err(error)))]);
            return Ok(());
        }
        self.line.begin(number, batch);
        let batch = Arc::new(batch.clone());
        let answers = (0..self.stations.len()).map(|at| self.send(at, number, &batch)).collect();
        self.under_way.push_back(answers);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        let Some(answers) = self.under_way.pop_front() else { return Ok(()) };
        let mut known = Vec::with_capacity(self.stations.len());
        for answer in answers {
            known.push(answer.wait().unwrap_or(Err(Error::State { what: "a part before has failed" }))?);
        }
        self.settled += 1;
        self.show(known);
        Ok(())
    }

    fn depth(&self) -> usize {
        self.stations.len()
    }

    fn abandon(&mut self) -> Result<(), Error> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let settled = self.settled;
        self.line.break_at(settled + 1);
        self.wait_for_all();
        self.under_way.clear();
        self.ask_all(move |part| part.return_to(settled))?;
        self.line.go_on_after(settled);
        self.taken = settled;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Error> {
        while !self.under_way.is_empty() {
            self.settle()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        self.wait()?;
        let events = self.ask_all(|part| part.finish())?;
        let known = |station: &Station| Known::of(&**station.part(), station.numbers.len());
        let known = self.stations.iter().map(known).collect();
        self.show(known);
        Ok(events.into_iter().fold(Events::default(), Events::and))
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        &self.spectra[group]
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, Error> {
        Ok(self.by_group(self.ask_all(|part| part.components())?))
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        Ok(self.by_group(self.ask_all(|part| part.summaries())?))
    }

    fn save(&mut self) -> Result<Vec<u8>, Error> {
        self.wait()?;
        let states = self.ask_all(|part| part.save())?;
        postcard::to_stdvec(&(self.settled, states)).map_err(|_| Error::State { what: "it has no encoding" })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Error> {
        let decoded = postcard::from_bytes::<(usize, Vec<Vec<u8>>)>(state);
        let (batches, states) = decoded.map_err(|_| Error::State { what: "it is no state of parts of a model" })?;
        if states.len() != self.stations.len() {
            return Err(Error::State { what: "it has another number of parts" });
        }
        let mut known = Vec::with_capacity(states.len());
        for (station, state) in self.stations.iter().zip(&states) {
            let mut part = station.part();
            part.restore(state)?;
            known.push(Known::of(&**part, station.numbers.len()));
        }
        self.show(known);
        self.agree();
        self.line.go_on_after(batches);
        (self.taken, self.settled) = (batches, batches);
        Ok(())
    }

    /// Of the part that took longest.
    fn timing(&self) -> Timing {
        let all = self.stations.iter().map(|station| station.known.timing);
        all.reduce(Timing::longest).unwrap_or_default()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Nobody wants what is under way.
        self.line.break_at(self.settled + 1);
    }
}

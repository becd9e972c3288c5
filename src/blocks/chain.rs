//! The blocks of a model one after the other: what each is fed, and what it hands on.
//!
//! Whoever runs a block asks for what the blocks before have made of a batch, and gives back what the block makes of it. A
//! batch that was not run through the blocks before, such as a part of another one, is run through them then.

use super::cut::Block;
use super::parts::{Parts, SavedType};
use super::requests::{Failure, Request, Requests, key};
use super::store::{Store, Written};
use crate::calib::Batch;
use crate::capture;
use crate::feeds::{Carry, Error, Feeds};
use crate::onnx::{self, Model, ValueInfo};
use crate::runtime::{Runtime, Session, SessionOptions, Value};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The blocks of a model, and what they have returned.
pub struct Chain {
    parts: Parts,
    runtime: Runtime,
    options: SessionOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The block that runs.
    at: usize,
    store: Store,
    requests: Requests,
}

/// What another process needs to go on with the next block.
#[derive(Serialize, Deserialize)]
pub struct SavedChain {
    types: Vec<SavedType>,
    written: Written,
    requests: Vec<(String, usize)>,
}

/// A block in a session of its own.
struct Loaded {
    session: Session,
    feeds: Feeds,
}

impl Chain {
    /// The blocks of `model`, which is fed `feeds`. What they return is written to the folder `spill`, or held in memory.
    pub fn new(
        model: Model,
        blocks: Vec<Block>,
        feeds: Feeds,
        (runtime, options): (Runtime, SessionOptions),
        spill: Option<PathBuf>,
    ) -> Self {
        let state = Mutex::new(State { store: Store::new(spill), ..State::default() });
        Self { parts: Parts::new(model, blocks, feeds), runtime, options, state }
    }

    /// Goes to a block, and forgets what it and those after it do not read.
    pub fn enter(&self, at: usize) {
        let needed = self.parts.needed(at);
        let mut state = self.state();
        state.at = at;
        state.store.keep_only(|name| needed.contains(name));
    }

    /// The model of a block. Types of what it reads are those that blocks before have returned.
    ///
    /// # Errors
    /// When it is no whole graph.
    pub fn part(&self, at: usize) -> Result<Model, onnx::Error> {
        self.parts.part(at)
    }

    /// What the model of a block is fed beside what is handed to it.
    pub fn feeds(&self, part: &Model) -> Feeds {
        self.parts.feeds(part)
    }

    /// Calls `forward` with the batches that have not been run through the block and may be asked for later. Where it
    /// fails, it would fail again.
    ///
    /// # Errors
    /// Those of `forward` that are not about the batch.
    pub fn for_rest(
        &self,
        at: usize,
        forward: &mut dyn FnMut(&Batch) -> Result<(), capture::Error>,
    ) -> Result<(), capture::Error> {
        let rest = self.state().requests.waiting(at);
        for (key, batch) in rest {
            match forward(&batch) {
                Err(capture::Error::Runtime(error)) => match Failure::of(&error) {
                    Some(failure) => self.state().requests.fail(&key, failure),
                    None => return Err(error.into()),
                },
                done => done?,
            }
        }
        self.state().requests.fail_left(at);
        Ok(())
    }

    /// Announces batches that will be asked for.
    pub fn announce(&self, batches: impl IntoIterator<Item = Batch>) {
        let mut state = self.state();
        batches.into_iter().for_each(|batch| state.requests.announce(batch));
    }

    /// Announces the batches of the data, which come again for every block.
    pub fn announce_data(&self, batches: impl IntoIterator<Item = Batch>) {
        let mut state = self.state();
        batches.into_iter().for_each(|batch| state.requests.announce_data(&batch));
    }

    /// Bytes of what is handed on now, and the most that it was.
    pub fn bytes(&self) -> (u64, u64) {
        let state = self.state();
        (state.store.bytes(), state.store.most())
    }

    /// Asks the system to read the weights of a block.
    pub fn read_ahead(&self, at: usize) {
        self.parts.read_ahead(at);
    }

    /// What another process needs to go on with block `next`.
    pub fn save(&self, next: usize) -> SavedChain {
        let needed = self.parts.needed(next);
        let state = self.state();
        SavedChain {
            types: self.parts.save(),
            written: state.store.written(|name| needed.contains(name)),
            requests: state.requests.save(),
        }
    }

    /// Goes on where another process was.
    ///
    /// # Errors
    /// When a file is not there any more.
    pub fn restore(&self, saved: SavedChain) -> Result<(), Error> {
        self.parts.restore(saved.types);
        let mut state = self.state();
        state.requests.restore(saved.requests);
        state.store.find(saved.written)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, at: usize) -> Result<Loaded, capture::Error> {
        let part = self.part(at)?;
        let session = Session::load(&self.runtime, &part, self.options)?;
        self.parts.loaded(&session.outputs());
        Ok(Loaded { feeds: self.feeds(&part), session })
    }

    /// Runs a batch through a loaded block.
    fn run(&self, loaded: &mut Loaded, at: usize, batch: &Batch) -> Result<(), Error> {
        let mut feeds = loaded.feeds.bind(batch)?;
        feeds.extend(self.fed_to(at, batch)?);
        let outputs = loaded.session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        self.keep_of(at, batch, &outputs.iter().collect::<Vec<_>>())
    }

    /// What a block is fed by those before it, which run first if they have not.
    fn fed_to(&self, at: usize, batch: &Batch) -> Result<Vec<(String, Value)>, Error> {
        let key = key(batch);
        let known = self.state().requests.get(&key);
        match known {
            Some(Request { failed: Some(failure), .. }) => return Err(failure.error().into()),
            Some(Request { reached: Some(reached), .. }) if reached >= at => {}
            _ => self.catch_up(at, &key, batch)?,
        }
        self.parts.fed_from(&self.state().store, at, &key)
    }

    /// Runs a batch through all blocks before one.
    fn catch_up(&self, at: usize, key: &str, batch: &Batch) -> Result<(), Error> {
        self.state().requests.begin(key, batch);
        for (name, tensor) in self.parts.made(batch)? {
            self.state().store.put(key, &name, tensor)?;
        }
        if at > 0 {
            tracing::debug!(block = at + 1, sequences = batch.dim().0, "a new batch runs through the blocks before");
        }
        for before in 0..at {
            let mut loaded = self.load(before).map_err(capture::Error::of_part)?;
            self.run(&mut loaded, before, batch)?;
        }
        Ok(())
    }

    /// Keeps what a block returned for a batch.
    fn keep_of(&self, at: usize, batch: &Batch, values: &[&Value]) -> Result<(), Error> {
        let key = key(batch);
        let mut state = self.state();
        if state.requests.get(&key).is_some_and(|request| request.reached > Some(at)) {
            return Ok(());
        }
        self.parts.keep_in(&mut state.store, at, &key, values)?;
        state.requests.reach(&key, at + 1);
        Ok(())
    }
}

impl Carry for Chain {
    fn returned(&self) -> Vec<String> {
        self.parts.returned(self.state().at)
    }

    fn loaded(&self, outputs: &[ValueInfo]) {
        self.parts.loaded(outputs);
    }

    fn fed(&self, batch: &Batch) -> Result<Vec<(String, Value)>, Error> {
        let at = self.state().at;
        self.fed_to(at, batch)
    }

    fn keep(&self, batch: &Batch, values: &[&Value]) -> Result<(), Error> {
        let at = self.state().at;
        self.keep_of(at, batch, values)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("blocks", &self.parts.len()).finish_non_exhaustive()
    }
}

//! The blocks of a model one after the other: what each is fed, and what it hands on.
//!
//! Whoever runs a block asks for what the blocks before have made of a batch, and gives back what the block makes of it. A
//! batch that was not run through the blocks before, such as a part of another one, is run through them then.

use super::cut::Block;
use super::requests::{Failure, Request, Requests, key};
use super::store::{Store, Written};
use crate::calib::Batch;
use crate::capture;
use crate::dtype::DType;
use crate::feeds::{Carry, Error, Feeds};
use crate::onnx::{self, Dim, Model, Part, ValueInfo};
use crate::runtime::{self, Runtime, Session, SessionOptions, Value};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The blocks of a model, and what they have returned.
pub struct Chain {
    model: Model,
    blocks: Vec<Block>,
    runtime: Runtime,
    options: SessionOptions,
    /// The feeds of inputs that other models make, and of all others.
    made: Feeds,
    others: Feeds,
    /// Sizes by name that inputs of the model declare, which mean the same in all blocks.
    symbols: HashSet<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The block that runs.
    at: usize,
    /// Types of what blocks return.
    types: HashMap<String, ValueInfo>,
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

/// Name, element type and sizes.
type SavedType = (String, i32, Option<Vec<SavedDim>>);

#[derive(Serialize, Deserialize)]
enum SavedDim {
    Fixed(i64),
    Symbol(String),
    Unknown,
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
        let (made, others) = feeds.apart();
        let dims = model.inputs().into_iter().filter_map(|input| input.shape).flatten();
        let symbols = dims.filter_map(|dim| if let Dim::Symbol(symbol) = dim { Some(symbol) } else { None }).collect();
        let state = Mutex::new(State { store: Store::new(spill), ..State::default() });
        Self { model, blocks, runtime, options, made, others, symbols, state }
    }

    /// Goes to a block, and forgets what it and those after it do not read.
    pub fn enter(&self, at: usize) {
        let needed = self.needed(at);
        let mut state = self.state();
        state.at = at;
        state.store.keep_only(|name| needed.contains(name));
    }

    /// What the blocks from one on read of others.
    fn needed(&self, from: usize) -> HashSet<&str> {
        let blocks = self.blocks.iter().skip(from);
        let carried = blocks.flat_map(|block| &block.reads).map(|carried| carried.tensor.as_str());
        carried.chain(self.made.names()).collect()
    }

    /// The model of a block. Types of what it reads are those that blocks before have returned.
    ///
    /// # Errors
    /// When it is no whole graph.
    pub fn part(&self, at: usize) -> Result<Model, onnx::Error> {
        let block = &self.blocks[at];
        let state = self.state();
        let typed = |name: &String| {
            let known = state.types.get(name).cloned().or_else(|| self.model.declared(name));
            known.unwrap_or_else(|| ValueInfo { name: name.clone(), dtype: DType::F32, shape: None })
        };
        let fed: Vec<ValueInfo> = block.reads.iter().map(|carried| typed(&carried.tensor)).collect();
        let returned: Vec<String> = block.returns.iter().map(|carried| carried.tensor.clone()).collect();
        self.model.extract(Part { nodes: &block.nodes, inputs: &block.inputs, fed: &fed, returned: &returned })
    }

    /// What the model of a block is fed beside what is handed to it.
    pub fn feeds(&self, part: &Model) -> Feeds {
        self.others.only(&part.inputs())
    }

    /// Runs batches through a block that has no groups: `all` those that are known. One for which the memory of the device
    /// is not enough is run in halves.
    ///
    /// # Errors
    /// When the block does not load, or does not run a batch of the data.
    pub fn run_through(
        &self,
        at: usize,
        batches: &mut dyn Iterator<Item = Batch>,
        done: &mut dyn FnMut(&Batch) -> bool,
    ) -> Result<bool, capture::Error> {
        let mut loaded = self.load(at)?;
        for batch in batches {
            self.run_batch(&mut loaded, at, &batch)?;
            if !done(&batch) {
                return Ok(false);
            }
        }
        self.for_rest(at, &mut |batch| self.run(&mut loaded, at, batch).map_err(capture::Error::from))?;
        Ok(true)
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
        let Some(block) = self.blocks.get(at) else { return };
        let names: HashSet<&str> = block.tensors.iter().map(String::as_str).collect();
        self.model.tensors().filter(|tensor| names.contains(tensor.name())).for_each(|tensor| tensor.prefetch());
    }

    /// What another process needs to go on with block `next`.
    pub fn save(&self, next: usize) -> SavedChain {
        let needed = self.needed(next);
        let state = self.state();
        let types = state.types.values().map(|info| {
            let dims = info.shape.as_ref().map(|dims| dims.iter().map(SavedDim::of).collect());
            (info.name.clone(), info.dtype.to_onnx(), dims)
        });
        SavedChain {
            types: types.collect(),
            written: state.store.written(|name| needed.contains(name)),
            requests: state.requests.save(),
        }
    }

    /// Goes on where another process was.
    ///
    /// # Errors
    /// When a file is not there any more.
    pub fn restore(&self, saved: SavedChain) -> Result<(), Error> {
        let mut state = self.state();
        state.types = saved
            .types
            .into_iter()
            .map(|(name, dtype, dims)| {
                let shape = dims.map(|dims| dims.into_iter().map(SavedDim::dim).collect());
                (name.clone(), ValueInfo { name, dtype: DType::from_onnx(dtype), shape })
            })
            .collect();
        state.requests.restore(saved.requests);
        state.store.find(saved.written)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, at: usize) -> Result<Loaded, capture::Error> {
        let part = self.part(at)?;
        let session = Session::load(&self.runtime, &part, self.options)?;
        self.loaded(&session.outputs());
        Ok(Loaded { feeds: self.feeds(&part), session })
    }

    /// Runs a batch through a block, in halves if the memory is not enough.
    fn run_batch(&self, loaded: &mut Loaded, at: usize, batch: &Batch) -> Result<(), capture::Error> {
        match self.run(loaded, at, batch) {
            Err(Error::Runtime(error @ runtime::Error::OutOfMemory { .. })) => {
                let halves = batch.halves().filter(|_| self.others.shape().batch.is_none());
                let Some(halves) = halves else { return Err(error.into()) };
                halves.iter().try_for_each(|half| self.run_batch(loaded, at, half))
            }
            run => Ok(run?),
        }
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
        let made = self.made.names().map(str::to_owned);
        let names = self.blocks[at].reads.iter().map(|carried| carried.tensor.clone()).chain(made);
        let state = self.state();
        let value = |name: String| {
            let value = state.store.get(&key, &name, |tensor| Ok(Value::from_tensor(tensor)?))?;
            Ok::<_, Error>((name.clone(), value.ok_or(Error::NoTensor { name })?))
        };
        names.filter(|name| self.reads(at, name)).map(value).collect()
    }

    /// Whether a block reads a tensor from outside.
    fn reads(&self, at: usize, name: &str) -> bool {
        let block = &self.blocks[at];
        block.reads.iter().any(|carried| carried.tensor == name) || block.inputs.iter().any(|input| input == name)
    }

    /// Runs a batch through all blocks before one.
    fn catch_up(&self, at: usize, key: &str, batch: &Batch) -> Result<(), Error> {
        self.state().requests.begin(key, batch);
        for (name, value) in self.made.bind(batch)? {
            let tensor = value.to_host()?.to_tensor()?;
            self.state().store.put(key, &name, tensor)?;
        }
        if at > 0 {
            tracing::debug!(block = at + 1, sequences = batch.dim().0, "a new batch runs through the blocks before");
        }
        for before in 0..at {
            let mut loaded = self.load(before).map_err(|error| match error {
                capture::Error::Runtime(error) => Error::Runtime(error),
                capture::Error::Feeds(error) => error,
                other => Error::Runtime(runtime::Error::Run { reason: other.to_string() }),
            })?;
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
        for (carried, value) in self.blocks[at].returns.iter().zip(values) {
            state.store.put(&key, &carried.tensor, value.to_tensor()?)?;
        }
        state.requests.reach(&key, at + 1);
        Ok(())
    }
}

impl Carry for Chain {
    fn returned(&self) -> Vec<String> {
        let at = self.state().at;
        self.blocks[at].returns.iter().map(|carried| carried.tensor.clone()).collect()
    }

    fn loaded(&self, outputs: &[ValueInfo]) {
        let mut state = self.state();
        let returned = |name: &str| self.blocks.iter().any(|block| block.returns.iter().any(|r| r.tensor == name));
        for output in outputs.iter().filter(|output| returned(&output.name)) {
            let kept = |dim: &Dim| match dim {
                Dim::Symbol(symbol) if !self.symbols.contains(symbol) => Dim::Unknown,
                dim => dim.clone(),
            };
            let shape = output.shape.as_ref().map(|dims| dims.iter().map(kept).collect());
            state.types.insert(output.name.clone(), ValueInfo { shape, ..output.clone() });
        }
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
        f.debug_struct("Chain").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl SavedDim {
    fn of(dim: &Dim) -> Self {
        match dim {
            Dim::Fixed(size) => Self::Fixed(*size),
            Dim::Symbol(symbol) => Self::Symbol(symbol.clone()),
            Dim::Unknown => Self::Unknown,
        }
    }

    fn dim(self) -> Dim {
        match self {
            Self::Fixed(size) => Dim::Fixed(size),
            Self::Symbol(symbol) => Dim::Symbol(symbol),
            Self::Unknown => Dim::Unknown,
        }
    }
}

//! The parts of a model: their graphs, what they are fed, and what they hand on.

use super::cut::Block;
use super::store::Store;
use crate::calib::Batch;
use crate::dtype::DType;
use crate::feeds::{Error, Feeds};
use crate::onnx::{self, Dim, Model, Part, ValueInfo};
use crate::runtime::Value;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A model in parts, each of which runs after those before it.
pub(super) struct Parts {
    model: Model,
    blocks: Vec<Block>,
    /// The feeds of inputs that other models make, and of all others.
    made: Feeds,
    others: Feeds,
    /// Sizes by name that inputs of the model declare, which mean the same in all parts.
    symbols: HashSet<String>,
    /// Types of what parts return.
    types: Mutex<HashMap<String, ValueInfo>>,
}

/// Name, element type and sizes.
pub(super) type SavedType = (String, i32, Option<Vec<SavedDim>>);

#[derive(Serialize, Deserialize)]
pub(super) enum SavedDim {
    Fixed(i64),
    Symbol(String),
    Unknown,
}

impl Parts {
    /// The parts of `model`, which is fed `feeds`.
    pub(super) fn new(model: Model, blocks: Vec<Block>, feeds: Feeds) -> Self {
        let (made, others) = feeds.apart();
        let dims = model.inputs().into_iter().filter_map(|input| input.shape).flatten();
        let symbols = dims.filter_map(|dim| if let Dim::Symbol(symbol) = dim { Some(symbol) } else { None }).collect();
        Self { model, blocks, made, others, symbols, types: Mutex::default() }
    }

    /// Number of parts.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// What the parts from one on read of others.
    pub(super) fn needed(&self, from: usize) -> HashSet<&str> {
        let blocks = self.blocks.iter().skip(from);
        let carried = blocks.flat_map(|block| &block.reads).map(|carried| carried.tensor.as_str());
        let inputs = self.blocks.iter().skip(from).flat_map(|block| &block.inputs).map(String::as_str);
        let made: HashSet<&str> = self.made.names().collect();
        carried.chain(inputs.filter(|input| made.contains(input))).collect()
    }

    /// The model of a part. Types of what it reads are those that parts before have returned.
    ///
    /// # Errors
    /// When it is no whole graph.
    pub(super) fn part(&self, at: usize) -> Result<Model, onnx::Error> {
        let block = &self.blocks[at];
        let types = self.types();
        let typed = |name: &String| {
            let known = types.get(name).cloned().or_else(|| self.model.declared(name));
            known.unwrap_or_else(|| ValueInfo { name: name.clone(), dtype: DType::F32, shape: None })
        };
        let fed: Vec<ValueInfo> = block.reads.iter().map(|carried| typed(&carried.tensor)).collect();
        let returned = self.returned(at);
        self.model.extract(Part { nodes: &block.nodes, inputs: &block.inputs, fed: &fed, returned: &returned })
    }

    /// What the model of a part is fed beside what is handed to it.
    pub(super) fn feeds(&self, part: &Model) -> Feeds {
        self.others.only(&part.inputs())
    }

    /// The tensors that a part returns for those after it.
    pub(super) fn returned(&self, at: usize) -> Vec<String> {
        self.blocks[at].returns.iter().map(|carried| carried.tensor.clone()).collect()
    }

    /// Takes notice of the outputs of a part as ONNX Runtime infers their types.
    pub(super) fn loaded(&self, outputs: &[ValueInfo]) {
        let mut types = self.types();
        let returned = |name: &str| self.blocks.iter().any(|block| block.returns.iter().any(|r| r.tensor == name));
        for output in outputs.iter().filter(|output| returned(&output.name)) {
            let kept = |dim: &Dim| match dim {
                Dim::Symbol(symbol) if !self.symbols.contains(symbol) => Dim::Unknown,
                dim => dim.clone(),
            };
            let shape = output.shape.as_ref().map(|dims| dims.iter().map(kept).collect());
            types.insert(output.name.clone(), ValueInfo { shape, ..output.clone() });
        }
    }

    /// What other models make of a batch.
    ///
    /// # Errors
    /// When one of them fails on the batch.
    pub(super) fn made(&self, batch: &Batch) -> Result<Vec<(String, Tensor)>, Error> {
        let to_host = |(name, value): (String, Value)| Ok::<_, Error>((name, value.to_host()?.to_tensor()?));
        self.made.bind(batch)?.into_iter().map(to_host).collect()
    }

    /// What a part reads from outside of what is kept of a batch.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn fed_from(&self, store: &Store, at: usize, key: &str) -> Result<Vec<(String, Value)>, Error> {
        let block = &self.blocks[at];
        let made = self.made.names().filter(|name| block.inputs.iter().any(|input| input == name));
        let names = block.reads.iter().map(|carried| carried.tensor.as_str()).chain(made);
        let value = |name: &str| {
            let value = store.get(key, name, |tensor| Ok(Value::from_tensor(tensor)?))?;
            Ok::<_, Error>((name.to_owned(), value.ok_or_else(|| Error::NoTensor { name: name.to_owned() })?))
        };
        names.map(value).collect()
    }

    /// Keeps what a part returned for a batch, in the order of [`returned`](Self::returned).
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn keep_in(&self, store: &mut Store, at: usize, key: &str, values: &[&Value]) -> Result<(), Error> {
        let mut all = self.blocks[at].returns.iter().zip(values);
        all.try_for_each(|(carried, value)| store.put(key, &carried.tensor, value.to_tensor()?))
    }

    /// Asks the system to read the weights of a part.
    pub(super) fn read_ahead(&self, at: usize) {
        let Some(block) = self.blocks.get(at) else { return };
        let names: HashSet<&str> = block.tensors.iter().map(String::as_str).collect();
        self.model.tensors().filter(|tensor| names.contains(tensor.name())).for_each(|tensor| tensor.prefetch());
    }

    /// The types of what parts have returned.
    pub(super) fn save(&self) -> Vec<SavedType> {
        let saved = |info: &ValueInfo| {
            let dims = info.shape.as_ref().map(|dims| dims.iter().map(SavedDim::of).collect());
            (info.name.clone(), info.dtype.to_onnx(), dims)
        };
        self.types().values().map(saved).collect()
    }

    /// Takes the types that another process knew.
    pub(super) fn restore(&self, saved: Vec<SavedType>) {
        let info = |(name, dtype, dims): SavedType| {
            let shape = dims.map(|dims| dims.into_iter().map(SavedDim::dim).collect());
            (name.clone(), ValueInfo { name, dtype: DType::from_onnx(dtype), shape })
        };
        *self.types() = saved.into_iter().map(info).collect();
    }

    fn types(&self) -> MutexGuard<'_, HashMap<String, ValueInfo>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
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

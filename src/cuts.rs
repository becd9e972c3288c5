//! The blocks in which `init` runs a model, without running it.

use crate::blocks::{Blocks, Carried, Plan};
use crate::error::Error;
use crate::init::{Prepared, RuntimeOptions, plan_blocks};
use crate::named::{Naming, Selection};
use crate::runtime::Device;
use serde::Serialize;
use std::path::Path;

/// The blocks of a model.
///
/// Serialises as the document of `eva-onnx inspect --blocks --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Cuts {
    /// The blocks in the order in which they run; none if the model runs as it is.
    pub blocks: Vec<BlockInfo>,
    /// Remarks on the names, as sentences.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// A part of a model that runs before the next one.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BlockInfo {
    /// Nodes of the graph that run in it.
    pub nodes: usize,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// What it reads of the blocks before.
    pub reads: Vec<Carried>,
    /// The modules whose inputs it analyses.
    pub modules: Vec<String>,
}

impl BlockInfo {
    /// Bytes that it reads of the blocks before, for each token; `None` where the graph does not tell.
    pub fn bytes_per_token(&self) -> Option<u64> {
        self.reads.iter().map(|carried| carried.bytes_per_token).sum()
    }
}

/// Finds the blocks in which `init` runs the model at `path` on the CPU.
///
/// # Errors
/// When the model cannot be read or fed, no module is chosen, or the graph cannot be cut.
pub fn cuts(path: impl AsRef<Path>, naming: &Naming, selection: &Selection, blocks: Blocks) -> Result<Cuts, Error> {
    let prepared = Prepared::open(path.as_ref(), naming, selection, &RuntimeOptions::default())?;
    let plan = plan_blocks(&prepared, blocks, &[Device::Cpu]).map_err(|error| error.in_file(prepared.named.path()))?;
    let modules = &prepared.chosen.grouping.modules;
    let blocks = match plan {
        Plan::Whole => Vec::new(),
        Plan::Cut(blocks) => blocks,
    };
    let info = blocks.into_iter().map(|block| BlockInfo {
        nodes: block.nodes.len(),
        weight_bytes: block.weights,
        reads: block.reads,
        modules: modules.iter().filter(|m| block.groups.contains(&m.group)).map(|m| m.name.clone()).collect(),
    });
    Ok(Cuts { blocks: info.collect(), notes: prepared.named.layers.notes.clone() })
}

//! The state of a run in blocks after each block, as files of a folder.

use super::block_rows::PREFIX as ROWS;
use super::checkpoint::{self, Checkpoint, CheckpointOptions, Machine};
use super::error::Error as InitError;
use crate::blocks::{STATES, SavedChain};
use crate::capture::{self, Demands, Events, Timing};
use crate::error::Error;
use crate::eva::GroupStatistics;
use crate::pca::{Spectrum, Summary};
use crate::summary::Facts;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How the files begin.
const PREFIX: &str = "eva-block-";

/// What was found in one block.
#[derive(Serialize, Deserialize)]
pub(super) struct BlockFound {
    /// Of each of its groups.
    pub(super) groups: Vec<GroupFound>,
    /// The spectra of its groups after each batch.
    pub(super) trace: Vec<Vec<Spectrum>>,
    pub(super) events: Events,
    pub(super) timing: Timing,
}

/// The number of a group, its statistics, and its summary if that is wanted.
pub(super) type GroupFound = (usize, GroupStatistics, Option<Summary>);

/// What a file of a block holds.
type Saved = (BlockFound, Manner, SavedChain);

/// Whether bytes are the state of a run, or of a block of one, whatever the run is. `resume` reads as much of them before it
/// compares them with its own run; the fuzz targets call this.
pub fn is_state(bytes: &[u8]) -> bool {
    let of_block = |state: &[u8]| postcard::from_bytes::<Saved>(state).is_ok();
    checkpoint::state(bytes).is_some_and(|state| capture::is_state(state) || of_block(state))
}

/// How batches were run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manner {
    pub(super) demands: Demands,
    /// Whether the padding that rows came with was kept.
    pub(super) as_given: bool,
}

/// The folder of a run.
pub(super) struct States {
    folder: PathBuf,
    facts: Facts,
    machine: Machine,
    blocks: String,
    /// The threads of an earlier process, where they were others.
    other_threads: OnceLock<usize>,
}

/// Where a run goes on.
#[derive(Default)]
pub(super) struct Begun {
    pub(super) found: Vec<BlockFound>,
    pub(super) manner: Option<Manner>,
    pub(super) chain: Option<SavedChain>,
}

impl States {
    /// The folder, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn new(folder: &Path, facts: &Facts, (machine, blocks): (Machine, String)) -> Result<Self, InitError> {
        fs::create_dir_all(folder).map_err(|source| InitError::Io { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), facts: facts.clone(), machine, blocks, other_threads: OnceLock::new() })
    }

    /// What an earlier process has found, if this one is to go on with it.
    ///
    /// # Errors
    /// When it is of another run, or nobody asks to go on.
    pub(super) fn begun(&self, resume: bool) -> Result<Begun, Error> {
        let mut begun = Begun::default();
        let there = (0..).take_while(|block| self.path(*block).exists()).count();
        if there == 0 {
            // What is left of a run whose result was there would be taken for this one's.
            self.clear()?;
        }
        if there > 0 && !resume {
            return Err(InitError::UnfinishedBlocks { path: self.folder.clone(), blocks: there }.into());
        }
        for block in 0..there {
            let Checkpoint { state: Some(state), other_threads, .. } = self.checkpoint(block)? else { break };
            let damaged = |_| InitError::Damaged { path: self.path(block) };
            let (found, manner, chain): Saved = postcard::from_bytes(&state).map_err(damaged)?;
            begun.found.push(found);
            if let Some(threads) = other_threads {
                self.other_threads.get_or_init(|| threads);
            }
            (begun.manner, begun.chain) = (Some(manner), Some(chain));
        }
        Ok(begun)
    }

    /// The threads of the process whose blocks [`begun`](Self::begun) has found, where they were others.
    pub(super) fn other_threads(&self) -> Option<usize> {
        self.other_threads.get().copied()
    }

    /// Writes what was found in a block.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(
        &self,
        block: usize,
        (found, manner, chain): (&BlockFound, Manner, &SavedChain),
    ) -> Result<(), Error> {
        let state = postcard::to_stdvec(&(found, manner, chain)).unwrap_or_default();
        self.checkpoint(block)?.write(&[], &state)?;
        Ok(())
    }

    /// Removes what is there of a run that begins anew.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn clear(&self) -> Result<(), InitError> {
        clear(&self.folder, &[PREFIX, STATES])?;
        fs::create_dir_all(&self.folder).map_err(|source| InitError::Io { path: self.folder.clone(), source })
    }

    fn path(&self, block: usize) -> PathBuf {
        self.folder.join(format!("{PREFIX}{}", block + 1))
    }

    fn checkpoint(&self, block: usize) -> Result<Checkpoint, InitError> {
        let options = CheckpointOptions { file: self.path(block), every: None, resume: true };
        Checkpoint::open(&options, &self.facts, (self.machine.clone(), self.blocks.clone()))
    }
}

/// Removes the state of a run whose result is there, a file or a folder.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn remove(path: &Path) -> Result<(), InitError> {
    if path.is_dir() { clear(path, &[PREFIX, STATES, ROWS]) } else { checkpoint::remove(path) }
}

/// Removes the files of a run with these prefixes from a folder, and the folder if nothing else is in it.
fn clear(folder: &Path, prefixes: &[&str]) -> Result<(), InitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Io { path, source }
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(folder))?,
    };
    // The first block first, so that what a kill leaves is no state, and the hidden states, which others need, last.
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort_by_key(|file| number(file));
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            fs::remove_file(&file).map_err(failed(&file))?;
        }
    }
    // It may hold other files.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// The number of the block whose state a file is; other files come after all blocks.
fn number(file: &Path) -> usize {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
    name.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}

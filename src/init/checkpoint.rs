//! A run that goes on where another one ended: the exact state between two batches, as a file.
//!
//! The file has the lengths of its parts, what the run is (JSON), what its batches added (postcard), the state of the
//! capture ([`Capture::save`](crate::capture::Capture::save)), and the SHA-256 of all of it. Only the same version of this
//! program reads it.

use super::error::Error;
use crate::eva::BatchRecord;
use crate::output::{self, SingleFile};
use crate::regular;
use crate::summary::Facts;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"evaonnx1";
const DIGEST: usize = 32;
/// Bytes of the magic and the three lengths.
const START: usize = 32;

/// When the state of a run is kept, and whether it goes on from a state that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// The file. It is removed when the result of the run is there.
    pub file: PathBuf,
    /// After how many batches it is written, again and again; it is also written when the observer stops the run.
    pub every: Option<usize>,
    /// Whether to go on from the file if it is there.
    pub resume: bool,
}

/// What a run is; checkpoints of others are refused.
#[derive(Serialize, Deserialize)]
struct Identity {
    facts: Facts,
    devices: String,
    /// The parts of a model that does not run as it is.
    #[serde(default)]
    blocks: String,
    /// The threads of ONNX Runtime, on which the last digits depend.
    #[serde(default)]
    threads: usize,
}

/// What runs a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// The devices, as text.
    pub(super) devices: String,
    /// The threads of ONNX Runtime.
    pub(super) threads: usize,
}

/// The file of a run, and what it began with.
pub(super) struct Checkpoint {
    options: CheckpointOptions,
    identity: Vec<u8>,
    /// What the batches of the run before added.
    pub(super) history: Vec<BatchRecord>,
    /// The state after them.
    pub(super) state: Option<Vec<u8>>,
    /// The threads of the run before, where they were others.
    pub(super) other_threads: Option<usize>,
}

impl Checkpoint {
    /// Reads what is there of the run `facts` on a machine, in these `blocks` if it has any.
    ///
    /// # Errors
    /// [`Error`] when the file is of another run, or nobody asks to go on.
    pub(super) fn open(
        options: &CheckpointOptions,
        facts: &Facts,
        (Machine { devices, threads }, blocks): (Machine, String),
    ) -> Result<Self, Error> {
        let own = Identity { facts: facts.clone(), devices, blocks, threads };
        let identity = serde_json::to_vec(&own).unwrap_or_default();
        let mut opened =
            Self { options: options.clone(), identity, history: Vec::new(), state: None, other_threads: None };
        let path = &options.file;
        let bytes = match regular::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(opened),
            read => read.map_err(|source| Error::Io { path: path.clone(), source })?,
        };
        let (there, history, state) = read(&bytes).ok_or_else(|| Error::Damaged { path: path.clone() })?;
        opened.history = history;
        if !options.resume {
            return Err(Error::Unfinished { path: path.clone(), batches: opened.history.len() });
        }
        let mut what = own.facts.differences_in_all(&there.facts);
        let version = |identity: &Identity| identity.facts.parts.first().map(|part| part.version.clone());
        if version(&own) != version(&there) {
            what.push("the version of eva-onnx".to_owned());
        }
        if own.devices != there.devices {
            what.push(format!("--device ({} and {})", own.devices, there.devices));
        }
        if own.blocks != there.blocks {
            what.push("--blocks or --split".to_owned());
        }
        if !what.is_empty() {
            return Err(Error::Another { path: path.clone(), what });
        }
        opened.other_threads = Some(there.threads).filter(|threads| *threads != own.threads);
        opened.state = Some(state.to_vec());
        Ok(opened)
    }

    pub(super) fn path(&self) -> &Path {
        &self.options.file
    }

    /// Whether the state is kept after so many batches.
    pub(super) fn is_due(&self, batches: usize) -> bool {
        self.options.every.is_some_and(|every| batches.is_multiple_of(every.max(1)))
    }

    /// Writes the state after these batches in place of the one before.
    ///
    /// # Errors
    /// When the file cannot be written; the one before stays.
    pub(super) fn write(&self, history: &[BatchRecord], state: &[u8]) -> Result<(), output::Error> {
        let history = postcard::to_stdvec(history).unwrap_or_default();
        let mut start = MAGIC.to_vec();
        let pieces = [&self.identity[..], &history[..], state];
        pieces.iter().for_each(|piece| start.extend((piece.len() as u64).to_le_bytes()));
        let mut hash = Sha256::new_with_prefix(&start);
        pieces.iter().for_each(|piece| hash.update(piece));
        let digest = hash.finalize();
        let file = SingleFile::prepare(&self.options.file)?;
        file.write(&[&start[..], pieces[0], pieces[1], pieces[2], &digest[..]], true)
    }
}

/// Removes the checkpoint of a run whose result is there.
///
/// # Errors
/// When it cannot be removed.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// What a file holds, with the state of the capture as its bytes.
type Held<'b> = (Identity, Vec<BatchRecord>, &'b [u8]);

/// What a whole file holds; `None` if it is none.
fn read(bytes: &[u8]) -> Option<Held<'_>> {
    let [identity, history, state] = parts(bytes)?;
    Some((serde_json::from_slice(identity).ok()?, postcard::from_bytes(history).ok()?, state))
}

/// The state of the capture in a whole file; `None` if it is none.
pub(super) fn state(bytes: &[u8]) -> Option<&[u8]> {
    read(bytes).map(|(_, _, state)| state)
}

/// The parts of a whole file; `None` if it is none.
fn parts(bytes: &[u8]) -> Option<[&[u8]; 3]> {
    let (all, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    let (start, mut rest) = all.split_at_checked(START)?;
    let lengths = start.strip_prefix(MAGIC)?;
    if Sha256::digest(all)[..] != *digest {
        return None;
    }
    let mut parts = [&[][..]; 3];
    for (part, length) in parts.iter_mut().zip(lengths.chunks_exact(8)) {
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        (*part, rest) = rest.split_at_checked(length)?;
    }
    rest.is_empty().then_some(parts)
}

//! The folder of a training's checkpoints.

use super::error::Error;
use super::options::CheckpointOptions;
use super::state_file::Checkpoint;
use crate::output::{self, Destination};
use crate::regular;
use std::fs;
use std::path::{Path, PathBuf};

/// The start of the name of a checkpoint; the number of its step follows.
const STEP: &str = "step-";
/// The file of a checkpoint that has the state.
const STATE: &str = "state.safetensors";

/// The folder of a training's checkpoints.
pub(crate) struct Folder {
    dir: PathBuf,
    keep: usize,
}

/// The newest checkpoint that can be read.
pub(crate) struct Newest {
    pub(crate) path: PathBuf,
    pub(crate) checkpoint: Checkpoint,
    /// Newer ones, which are damaged.
    pub(crate) damaged: Vec<PathBuf>,
}

impl Folder {
    /// The folder, without checkpoints unless the training goes on from them.
    ///
    /// # Errors
    /// [`Error::Earlier`].
    pub(crate) fn open(options: &CheckpointOptions) -> Result<Self, Error> {
        let folder = Self { dir: options.dir.clone(), keep: options.keep.max(1) };
        if options.resume || folder.all().is_empty() { Ok(folder) } else { Err(Error::Earlier { dir: folder.dir }) }
    }

    /// The checkpoints by their steps, the oldest first.
    fn all(&self) -> Vec<(usize, PathBuf)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let step = |name: &str| name.strip_prefix(STEP).and_then(|number| number.parse().ok());
        let mut all: Vec<_> =
            entries.filter_map(|entry| Some((step(entry.file_name().to_str()?)?, entry.path()))).collect();
        all.sort();
        all
    }

    /// The newest checkpoint that can be read. What killed runs left of others is removed.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`]; [`Error::Write`] when another run writes one.
    pub(crate) fn newest(&self) -> Result<Newest, Error> {
        self.remove_partial()?;
        let (mut damaged, mut first) = (Vec::new(), None);
        for (_, path) in self.all().into_iter().rev() {
            match read(&path) {
                Ok(checkpoint) => return Ok(Newest { path, checkpoint, damaged }),
                Err(reason) => {
                    first.get_or_insert(Error::Damaged { path: path.clone(), reason });
                    damaged.push(path);
                }
            }
        }
        Err(first.unwrap_or_else(|| Error::Missing { dir: self.dir.clone() }))
    }

    /// Writes a checkpoint, which appears whole or not at all, with other files beside the state, and removes the oldest.
    ///
    /// # Errors
    /// [`Error::Write`]; the checkpoints before are then as they were.
    pub(crate) fn write(&self, checkpoint: &Checkpoint, mut files: Vec<(&str, Vec<u8>)>) -> Result<PathBuf, Error> {
        let step = checkpoint.state.steps;
        let path = self.dir.join(format!("{STEP}{step:08}"));
        let before = self.all().into_iter().rfind(|(other, _)| *other < step).map(|(step, _)| step);
        let failed = |source| Error::Write { step, source: Box::new(source), last: before };
        let unwritable = |source| failed(output::Error::Io { path: path.clone(), source });
        if path.is_dir() {
            // One that is damaged: the training did not go on from it.
            fs::remove_dir_all(&path).map_err(unwritable)?;
        }
        let state = checkpoint.to_bytes().map_err(|reason| unwritable(std::io::Error::other(reason)))?;
        files.push((STATE, state));
        Destination::prepare(&path, false).and_then(|destination| destination.commit(&files)).map_err(failed)?;
        let all = self.all();
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            // A checkpoint too many does no harm.
            if let Err(error) = fs::remove_dir_all(old) {
                tracing::debug!(path = %old.display(), %error, "an old checkpoint is still there");
            }
        }
        Ok(path)
    }

    /// Removes what killed runs left of checkpoints, and the folder if it has none.
    ///
    /// # Errors
    /// [`Error::Write`] when another run writes one.
    pub(crate) fn clear_dead(&self) -> Result<(), Error> {
        self.remove_partial()?;
        // This removes only what is empty.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// Removes what killed runs left of checkpoints.
    fn remove_partial(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let begun = name.to_str().and_then(|name| name.strip_prefix('.')?.split_once(".eva-onnx-partial"));
            let Some((name, _)) = begun.filter(|(name, _)| name.starts_with(STEP)) else { continue };
            let step = name.trim_start_matches(STEP).parse().unwrap_or_default();
            let prepared = Destination::prepare(&self.dir.join(name), true);
            prepared.map_err(|source| Error::Write { step, source: Box::new(source), last: None })?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Checkpoint, String> {
    let bytes = regular::read(&path.join(STATE)).map_err(|error| format!("`{STATE}`: {error}"))?;
    Checkpoint::from_bytes(&bytes).map_err(|reason| format!("`{STATE}`: {reason}"))
}

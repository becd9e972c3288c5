//! Putting files down: a folder appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why the output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds something already.
    #[error("the output folder `{}` exists and is not empty", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The path is a file.
    #[error("the output `{}` is not a folder", dir.display())]
    NotAFolder {
        /// The path.
        dir: PathBuf,
    },
    /// The system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Exists { .. } => "give another --out, or --force to replace the files of the same names in it",
            Self::NotAFolder { .. } => "give the path of a folder with --out",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or give an --out on another disk"
            }
            Self::Io { .. } => "give an --out in a folder that you may write to",
        };
        Some(hint.to_owned())
    }
}

/// A folder that is about to be written: its place is checked and a staging folder beside it is made.
///
/// Dropped without [`commit`](Self::commit), it leaves nothing behind.
#[derive(Debug)]
pub struct Destination {
    dir: PathBuf,
    staging: PathBuf,
}

impl Destination {
    /// Checks that `dir` can be written before the work begins.
    ///
    /// # Errors
    /// [`Error::Exists`] when it holds something and `force` is not given; [`Error::Io`] when nothing can be made
    /// there.
    pub fn prepare(dir: &Path, force: bool) -> Result<Self, Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        if dir.exists() {
            if !dir.is_dir() {
                return Err(Error::NotAFolder { dir: dir.to_owned() });
            }
            let occupied = fs::read_dir(dir).map_err(at(dir))?.next().is_some();
            if occupied && !force {
                return Err(Error::Exists { dir: dir.to_owned() });
            }
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(at(parent))?;
        let name = dir.file_name().map_or_else(|| "adapter".into(), |n| n.to_string_lossy());
        let staging = parent.join(format!(".{name}.partial-{}", std::process::id()));
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(at(&staging))?;
        }
        fs::create_dir(&staging).map_err(at(&staging))?;
        Ok(Self { dir: dir.to_owned(), staging })
    }

    /// Writes all files and makes them appear: a new folder in one step, an existing one file by file.
    ///
    /// # Errors
    /// [`Error::Io`]; when a new folder could not be completed, none has appeared.
    pub fn commit(self, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
        for (name, bytes) in files {
            let path = self.staging.join(name);
            let write = || -> io::Result<()> {
                let mut file = File::create(&path)?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            write().map_err(|source| Error::Io { path: self.dir.join(name), source })?;
        }
        let fresh = fs::read_dir(&self.dir).map_or(true, |mut entries| entries.next().is_none());
        if fresh {
            return fs::rename(&self.staging, &self.dir).map_err(|source| Error::Io { path: self.dir.clone(), source });
        }
        for (name, _) in files {
            let path = self.dir.join(name);
            fs::rename(self.staging.join(name), &path).map_err(|source| Error::Io { path, source })?;
        }
        Ok(())
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // After a commit the staging folder is gone or empty; after a failure there is nobody left to tell.
        let _ = fs::remove_dir_all(&self.staging);
    }
}

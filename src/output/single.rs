//! One file that appears whole or not at all.

use super::error::{Error, at};
use super::staging::{Staging, parent};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is about to be written.
///
/// Dropped without [`write`](Self::write), it leaves nothing behind.
#[derive(Debug)]
pub struct SingleFile {
    path: PathBuf,
    staging: Staging,
}

impl SingleFile {
    /// Checks that a file can be made in the folder of `path`, before the work begins, and keeps other runs from making the
    /// same file meanwhile. What a killed run left there is removed.
    ///
    /// # Errors
    /// [`Error::Busy`] when another run makes it, [`Error::Io`].
    pub fn prepare(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Err(at(path)(io::ErrorKind::IsADirectory.into()));
        }
        let folder = parent(path);
        fs::create_dir_all(folder).map_err(at(folder))?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename.into()).map_err(at(path))?;
        Ok(Self { path: path.to_owned(), staging: Staging::new(folder, name)? })
    }

    /// Where the file will appear.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file appear with these bytes, one piece after the other. One that is there is replaced if `force` says so.
    ///
    /// # Errors
    /// [`Error::FileExists`], [`Error::Io`].
    pub fn write(self, pieces: &[&[u8]], force: bool) -> Result<(), Error> {
        let Self { path, staging } = self;
        let name = path.file_name().unwrap_or_default();
        let write = || {
            let mut file = File::create_new(staging.path().join(name))?;
            pieces.iter().try_for_each(|piece| file.write_all(piece))?;
            file.sync_all()
        };
        write().and_then(|()| staging.place(name, &path, force)).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::FileExists { path: path.clone() },
            _ => at(&path)(source),
        })
    }
}

/// Checks that a file may be written.
///
/// # Errors
/// [`Error::FileExists`] when it exists and `force` is false.
pub fn check_file(path: &Path, force: bool) -> Result<(), Error> {
    match path.symlink_metadata() {
        Ok(_) if !force => Err(Error::FileExists { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Writes one file, which appears whole or not at all.
///
/// # Errors
/// [`Error::FileExists`] when it exists and `force` is false; [`Error::Io`].
pub fn file(path: &Path, bytes: &[u8], force: bool) -> Result<(), Error> {
    check_file(path, force)?;
    SingleFile::prepare(path)?.write(&[bytes], force)
}

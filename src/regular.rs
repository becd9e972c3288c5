//! Files of folders that others made: what has the name of one may be a device that never ends, or a pipe that nobody
//! writes to.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file.
///
/// # Errors
/// Those of the system, and for what is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    check(path)?;
    File::open(path)
}

/// The bytes of a file.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    check(path)?;
    fs::read(path)
}

/// The text of a file.
///
/// # Errors
/// As [`open`], and where it is not UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    check(path)?;
    fs::read_to_string(path)
}

/// Checks that there is a regular file.
///
/// # Errors
/// As [`open`].
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a device or a pipe, and no file"));
    }
    Ok(())
}

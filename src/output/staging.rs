//! Folders in which an output is made before it appears.
//!
//! A staging folder is locked while its process lives. Its name follows from the output, so that a second run with the
//! same output is refused, and the next run finds what a killed one left.

use super::error::{Error, at};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// End of the name of a folder whose output is being made.
const PARTIAL: &str = ".eva-onnx-partial";
/// Name of a folder in the output folder whose files are being moved there.
const COMPLETE: &str = ".eva-onnx-complete";
/// Longest name that is a part of another; file systems allow 255 bytes in all.
const LONGEST: usize = 200;
/// The highest number after the name of an output that cannot have its own.
const SPARE: usize = 99;
/// How often a folder is made anew when another run takes it for one that a killed run left.
const TRIES: usize = 100;

/// The staging folders of this process. Whoever holds the lock may make, move and remove files in them.
static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The staging folders of this process, for as long as no other thread changes them.
pub(super) fn hold() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes everything that is staged; from then on, a thread that stages or commits files waits for ever. For a program
/// that is about to end.
pub(super) fn abandon() {
    let open = hold();
    for path in open.iter() {
        let _ = fs::remove_dir_all(path);
    }
    std::mem::forget(open);
}

/// Whether a file of an output folder is a staging folder.
pub(super) fn is_staging(name: &OsStr) -> bool {
    name.to_string_lossy().ends_with(PARTIAL) || name == COMPLETE
}

/// A staging folder, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    /// `None` where the file system has no locks.
    _lock: Option<File>,
}

impl Staging {
    /// An empty folder in `around` for the output `name`. What a killed run left there is removed.
    ///
    /// # Errors
    /// [`Error::Busy`] when another run has it, [`Error::Io`].
    pub(super) fn new(around: &Path, name: &OsStr) -> Result<Self, Error> {
        let path = around.join(staging_name(name));
        let mut open = hold();
        for _ in 0..TRIES {
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    remove_dead(&path)?;
                    continue;
                }
                Err(error) => return Err(at(&path)(error)),
            }
            let Ok(lock) = File::open(&path) else { continue };
            let lock = match lock.try_lock() {
                Ok(()) => Some(lock),
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(_)) => None,
            };
            if lock.as_ref().is_none_or(|lock| is_at(lock, &path)) {
                open.insert(path.clone());
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(Error::Busy { staging: path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder appear as `dir`, where nothing may be. If it cannot, it stays beside it.
    ///
    /// # Errors
    /// [`Error::Kept`].
    pub(super) fn appear(self, dir: &Path) -> Result<(), Error> {
        let mut open = hold();
        open.remove(&self.path);
        let Err(source) = rename_new(&self.path, dir) else {
            sync(parent(dir));
            return Ok(());
        };
        let mut others = (2..=SPARE).map(|number| numbered(dir, number));
        let kept = others.find(|other| rename_new(&self.path, other).is_ok());
        let kept = kept.unwrap_or_else(|| self.path.clone());
        Err(Error::Kept { path: dir.to_owned(), kept, source })
    }

    /// Moves the staged `files` into `dir`, the folder around it. The old files of these names are removed before the
    /// first is moved, so that nobody ever reads old and new files together.
    ///
    /// # Errors
    /// [`Error::Kept`].
    pub(super) fn merge(self, dir: &Path, files: &[String]) -> Result<(), Error> {
        let mut open = hold();
        open.remove(&self.path);
        let complete = dir.join(COMPLETE);
        let kept = |kept: &Path, source| Error::Kept { path: dir.to_owned(), kept: kept.to_owned(), source };
        rename_new(&self.path, &complete).map_err(|source| kept(&self.path, source))?;
        let remove = |name: &String| match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let moved = files.iter().try_for_each(remove).and_then(|()| move_files(&complete, dir));
        moved.map_err(|source| kept(&complete, source))?;
        let _ = fs::remove_dir_all(&complete);
        Ok(())
    }

    /// Moves the staged file `name` to `path`; a file that is there is replaced if `force` says so.
    pub(super) fn place(self, name: &OsStr, path: &Path, force: bool) -> io::Result<()> {
        let _open = hold();
        let staged = self.path.join(name);
        if force {
            fs::rename(staged, path)?
        } else {
            rename_new(&staged, path)?
        }
        sync(parent(path));
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let mut open = hold();
        if open.remove(&self.path) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Moves the files that a killed run had completed, but not all moved, into their folder `dir`.
///
/// # Errors
/// [`Error::Busy`] when that run lives, [`Error::Kept`].
pub(super) fn finish_dead(dir: &Path) -> Result<(), Error> {
    let complete = dir.join(COMPLETE);
    if !complete.is_dir() {
        return Ok(());
    }
    let _open = hold();
    let _lock = lock_dead(&complete)?;
    let moved = move_files(&complete, dir);
    moved.map_err(|source| Error::Kept { path: dir.to_owned(), kept: complete.clone(), source })?;
    fs::remove_dir_all(&complete).map_err(at(&complete))
}

/// Moves every file below `from` to the same place below `to`, where nothing may be, in the order of their names.
fn move_files(from: &Path, to: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&to)?;
            move_files(&from, &to)?;
        } else {
            rename_new(&from, &to)?;
        }
    }
    sync(to);
    Ok(())
}

/// Makes the names in a folder outlast a power failure, where the file system can.
fn sync(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

/// Renames a file or folder if `to` does not exist.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems cannot.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
            result => return result.map_err(io::Error::from),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// `path` with a number after its name.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    path.with_file_name(name)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of the staging folder of an output; the end of a long name is left out.
fn staging_name(output: &OsStr) -> OsString {
    let mut name = OsString::from(if output.is_empty() { "" } else { "." });
    if output.len() <= LONGEST {
        name.push(output);
    } else {
        let text = output.to_string_lossy();
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        name.push(&text[..end]);
    }
    name.push(PARTIAL);
    name
}

/// Removes the staging folder `path` of a process that has ended.
fn remove_dead(path: &Path) -> Result<(), Error> {
    let lock = match lock_dead(path) {
        // Its owner has just removed it.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    if is_at(&lock, path) {
        fs::remove_dir_all(path).map_err(at(path))?;
    }
    Ok(())
}

/// Locks the staging folder `path` of a process that has ended.
fn lock_dead(path: &Path) -> Result<File, Error> {
    if !path.symlink_metadata().map_err(at(path))?.is_dir() {
        return Err(at(path)(io::ErrorKind::AlreadyExists.into()));
    }
    let folder = File::open(path).map_err(at(path))?;
    folder.try_lock().map_err(|_| Error::Busy { staging: path.to_owned() })?;
    Ok(folder)
}

/// Whether the open folder is the one at `path`.
fn is_at(folder: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (here, there) = (folder.metadata().map(id), path.symlink_metadata().map(id));
        here.is_ok_and(|here| there.is_ok_and(|there| here == there))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        path.is_dir()
    }
}

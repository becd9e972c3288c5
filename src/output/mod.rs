//! Writes files so that they appear whole or not at all: they are staged in a temporary folder and then moved.

mod beside;
mod error;
pub mod model;
mod pack;
mod single;
mod staging;

pub use error::Error;
pub use single::{SingleFile, check_file, file};

use error::at;
use staging::{Staging, parent};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An output folder that is about to be written, with the files staged so far.
///
/// Dropped without [`commit`](Self::commit), it leaves nothing behind.
#[derive(Debug)]
pub struct Destination {
    dir: PathBuf,
    staging: Staging,
    /// Whether `dir` is there already: then `staging` is a folder inside it, otherwise one beside it.
    exists: bool,
    /// Whether files of `dir` may be replaced.
    force: bool,
    /// Names of the staged files, with `/` between folders.
    staged: Vec<String>,
    /// Real paths of files that must not be replaced.
    inputs: Vec<PathBuf>,
    link: Link,
}

/// How files that are the same as others come into a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// They are copied; the file system shares their blocks if it can.
    #[default]
    Copy,
    /// The file system shares their blocks, or they are refused.
    Reflink,
    /// They are the same files under second names where the file system allows it, else copies. The onnx package (from
    /// 1.21) refuses external data with several hard links.
    Hard,
}

/// How a file came into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// It is the same file under a second name.
    Linked,
    /// It was copied, or cloned where the file system can.
    Copied,
}

impl Destination {
    /// Removes everything that this process has staged; from then on, a thread that stages or commits files waits for
    /// ever. For a program that is about to end.
    pub fn abandon_all() {
        staging::abandon();
    }

    /// Checks that the folder `dir` can be written, before the work begins. What a killed run with the same folder left
    /// is removed, or moved to its place if it was complete.
    ///
    /// # Errors
    /// [`Error::Exists`] when it is not empty and `force` is false; [`Error::NotAFolder`]; [`Error::Busy`] when another
    /// run has it; [`Error::Io`] when nothing can be created there.
    pub fn prepare(dir: &Path, force: bool) -> Result<Self, Error> {
        let exists = dir.is_dir();
        let staging = if exists {
            staging::finish_dead(dir)?;
            let mut entries = fs::read_dir(dir).map_err(at(dir))?.flatten();
            if !force && entries.any(|entry| !staging::is_staging(&entry.file_name())) {
                return Err(Error::Exists { dir: dir.to_owned() });
            }
            Staging::new(dir, OsStr::new(""))?
        } else {
            match dir.symlink_metadata() {
                Ok(_) => return Err(Error::NotAFolder { dir: dir.to_owned() }),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(dir)(error)),
                Err(_) => {}
            }
            let parent = parent(dir);
            fs::create_dir_all(parent).map_err(at(parent))?;
            Staging::new(parent, dir.file_name().unwrap_or_default())?
        };
        let (staged, inputs) = (Vec::new(), Vec::new());
        Ok(Self { dir: dir.to_owned(), staging, exists, force, staged, inputs, link: Link::default() })
    }

    /// The folder that will appear.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The names, within the folder `inside` of the output, of the files staged there. `inside` is empty or ends in a
    /// slash.
    pub fn staged(&self, inside: &str) -> impl Iterator<Item = &str> {
        self.staged.iter().filter_map(move |name| name.strip_prefix(inside))
    }

    /// Refuses to replace the existing file `path` in [`commit`](Self::commit).
    pub fn protect(&mut self, path: &Path) {
        self.inputs.extend(path.canonicalize());
    }

    /// How [`share`](Self::share) makes files from now on.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// How [`share`](Self::share) makes files.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Stages the existing file `source`, which is not written later, as `name`.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Read`], [`Error::Io`]; [`Error::NoReflink`].
    pub fn share(&mut self, source: &Path, name: &str) -> Result<Shared, Error> {
        let source = source.canonicalize().map_err(reading(source))?;
        match self.link {
            Link::Copy => {}
            Link::Reflink => {
                let file = File::open(&source).map_err(reading(&source))?;
                let clone = self.stage(name, |path| reflink(&file, path));
                return clone.map(|()| Shared::Copied).map_err(|error| match error {
                    Error::Io { path, source } => Error::NoReflink { path, source },
                    other => other,
                });
            }
            Link::Hard => match self.stage(name, |path| fs::hard_link(&source, path)) {
                Err(Error::Io { .. }) => {}
                other => return other.map(|()| Shared::Linked),
            },
        }
        self.copy(&source, name).map(|()| Shared::Copied)
    }

    /// Stages a copy of the existing file `source` as `name`. The system copies without reading the file into this
    /// process, and clones the file where it can.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Read`], [`Error::Io`].
    pub fn copy(&mut self, source: &Path, name: &str) -> Result<(), Error> {
        let mut from = File::open(source).map_err(reading(source))?;
        let mut file = self.create(name)?;
        let copied = io::copy(&mut from, &mut file).and_then(|_| file.sync_all());
        copied.map_err(at(&self.dir.join(name)))
    }

    /// Stages a new file; whoever writes it must flush it.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Io`].
    pub fn create(&mut self, name: &str) -> Result<File, Error> {
        self.stage(name, |path| File::create_new(path))
    }

    /// Stages a file with these bytes.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Io`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.create(name)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(at(&self.dir.join(name)))
    }

    /// Makes the staged file `name`, which does not exist yet; its folder does.
    fn stage<T>(&mut self, name: &str, make: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, Error> {
        let _open = staging::hold();
        let path = self.staging.path().join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::Twice { path: self.dir.join(name) });
        }
        let made = fs::create_dir_all(parent(&path)).and_then(|()| make(&path));
        let made = made.map_err(at(&self.dir.join(name)))?;
        self.staged.push(name.to_owned());
        Ok(made)
    }

    /// Stages `files` too and makes all staged files appear: a new folder in one step, in an existing one file by file.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::FileExists`] and [`Error::Link`] before anything has appeared. [`Error::Kept`] when the
    /// files could not get their place, and where they are.
    pub fn commit(mut self, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
        for (name, bytes) in files {
            self.write(name, bytes)?;
        }
        if !self.exists {
            return self.staging.appear(&self.dir);
        }
        self.staged.iter().try_for_each(|name| self.check(name))?;
        self.staging.merge(&self.dir, &self.staged)
    }

    /// Checks that files of these names can be committed, before they are made.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::FileExists`], [`Error::Link`]; [`Error::Io`] when a folder is where a file should be, or the reverse.
    pub fn check_names<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<(), Error> {
        names.into_iter().filter(|_| self.exists).try_for_each(|name| self.check(name))
    }

    /// Checks that moving `name` into the existing folder replaces no input and no folder, and passes through no link and
    /// no file.
    fn check(&self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        if path.is_dir() {
            return Err(at(&path)(io::ErrorKind::IsADirectory.into()));
        }
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(Error::FileExists { path });
        }
        if path.canonicalize().is_ok_and(|real| self.inputs.contains(&real)) {
            return Err(Error::Input { path });
        }
        let folders = Path::new(name).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        for folder in folders.map(|folder| self.dir.join(folder)) {
            if folder.is_symlink() {
                return Err(Error::Link { path: folder });
            }
            if folder.is_file() {
                return Err(at(&folder)(io::ErrorKind::NotADirectory.into()));
            }
        }
        Ok(())
    }
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}

/// Makes the file `path`, which shares its blocks with `source`.
fn reflink(source: &File, path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::ioctl_ficlone(File::create_new(path)?, source)?);
    #[cfg(target_vendor = "apple")]
    return Ok(rustix::fs::fclonefileat(source, rustix::fs::CWD, path, rustix::fs::CloneFlags::empty())?);
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    {
        let _ = (source, path);
        Err(io::ErrorKind::Unsupported.into())
    }
}

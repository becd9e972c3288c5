//! Putting files down: a folder appears whole or not at all.

pub mod model;

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
    /// The file is there already.
    #[error("the output `{}` exists", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
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
            Self::FileExists { .. } => "give another name, or --force to replace it",
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
    /// Names put into the staging folder so far.
    staged: Vec<String>,
    /// Whether files may be shared by hard links.
    links: bool,
}

/// How a file came into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// It is the same file under a second name.
    Linked,
    /// It was copied, or cloned by the file system where that can.
    Copied,
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
        Ok(Self { dir: dir.to_owned(), staging, staged: Vec::new(), links: true })
    }

    /// The folder that will appear.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts the existing file `source` into the folder as `name`: a hard link, or where the file system allows none, a
    /// copy that the system makes without reading it into this process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn share(&mut self, source: &Path, name: &str) -> Result<Shared, Error> {
        let path = self.place(name)?;
        if self.links && fs::hard_link(source, &path).is_ok() {
            return Ok(Shared::Linked);
        }
        self.fill(source, &path, name).map(|()| Shared::Copied)
    }

    /// From now on, files are copied rather than linked.
    pub fn without_links(&mut self) {
        self.links = false;
    }

    /// Puts a copy of the existing file `source` into the folder as `name`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy(&mut self, source: &Path, name: &str) -> Result<(), Error> {
        let path = self.place(name)?;
        self.fill(source, &path, name)
    }

    fn fill(&self, source: &Path, path: &Path, name: &str) -> Result<(), Error> {
        let copied = fs::copy(source, path).and_then(|_| File::open(path)?.sync_all());
        copied.map_err(|source| Error::Io { path: self.dir.join(name), source })
    }

    /// Opens a new file of the folder for writing; whoever writes it must flush it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&mut self, name: &str) -> Result<File, Error> {
        let path = self.place(name)?;
        File::create(path).map_err(|source| Error::Io { path: self.dir.join(name), source })
    }

    /// Writes a file of the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.create(name)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|source| Error::Io { path: self.dir.join(name), source })
    }

    /// Where `name` is until the commit; it may lie in a folder inside.
    fn place(&mut self, name: &str) -> Result<PathBuf, Error> {
        let path = self.staging.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| Error::Io { path: self.dir.join(name), source })?;
        }
        self.staged.push(name.to_owned());
        Ok(path)
    }

    /// Writes all files and makes them appear with those put there before: a new folder in one step, an existing one
    /// file by file.
    ///
    /// # Errors
    /// [`Error::Io`]; when a new folder could not be completed, none has appeared.
    pub fn commit(mut self, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
        for (name, bytes) in files {
            self.write(name, bytes)?;
        }
        let fresh = fs::read_dir(&self.dir).map_or(true, |mut entries| entries.next().is_none());
        if fresh {
            return fs::rename(&self.staging, &self.dir).map_err(|source| Error::Io { path: self.dir.clone(), source });
        }
        for name in &self.staged {
            let path = self.dir.join(name);
            let moved = path.parent().map_or(Ok(()), fs::create_dir_all);
            moved
                .and_then(|()| fs::rename(self.staging.join(name), &path))
                .map_err(|source| Error::Io { path: path.clone(), source })?;
        }
        Ok(())
    }
}

/// Writes one file, which appears whole or not at all.
///
/// # Errors
/// [`Error::FileExists`] when it is there and `force` is not given; [`Error::Io`].
pub fn file(path: &Path, bytes: &[u8], force: bool) -> Result<(), Error> {
    if path.exists() && !force {
        return Err(Error::FileExists { path: path.to_owned() });
    }
    let at = |source| Error::Io { path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at)?;
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(at)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(at)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(at)?;
    }
    file.persist(path).map(|_| ()).map_err(|error| at(error.error))
}

impl Drop for Destination {
    fn drop(&mut self) {
        // After a commit the staging folder is gone or empty; after a failure there is nobody left to tell.
        let _ = fs::remove_dir_all(&self.staging);
    }
}

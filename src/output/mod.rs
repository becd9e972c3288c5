//! Writes files so that they appear whole or not at all: they are staged in a temporary folder and then moved.

mod error;
pub mod model;

pub use error::Error;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Start of the names of staging folders.
const STAGING: &str = ".partial-";

/// An output folder that is about to be written, with the files staged so far.
///
/// Dropped without [`commit`](Self::commit), it leaves nothing behind.
#[derive(Debug)]
pub struct Destination {
    dir: PathBuf,
    staging: TempDir,
    /// Whether `dir` is there already: then `staging` is a folder inside it, otherwise one beside it.
    exists: bool,
    /// Names of the staged files, with `/` between folders.
    staged: Vec<String>,
    /// Real paths of files that must not be replaced.
    inputs: Vec<PathBuf>,
    /// Whether files may be shared by hard links.
    links: bool,
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
    /// Checks that the folder `dir` can be written, before the work begins.
    ///
    /// # Errors
    /// [`Error::Exists`] when it is not empty and `force` is false; [`Error::NotAFolder`]; [`Error::Io`] when nothing
    /// can be created there.
    pub fn prepare(dir: &Path, force: bool) -> Result<Self, Error> {
        if dir.is_dir() {
            let entries = fs::read_dir(dir).map_err(at(dir))?;
            let is_ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(STAGING);
            let occupied = entries.flatten().any(|entry| !is_ours(&entry));
            if occupied && !force {
                return Err(Error::Exists { dir: dir.to_owned() });
            }
            return Self::new(dir, dir, true);
        }
        if dir.symlink_metadata().is_ok() {
            return Err(Error::NotAFolder { dir: dir.to_owned() });
        }
        let parent = parent(dir);
        fs::create_dir_all(parent).map_err(at(parent))?;
        Self::new(dir, parent, false)
    }

    fn new(dir: &Path, around: &Path, exists: bool) -> Result<Self, Error> {
        let mut folder = tempfile::Builder::new();
        folder.prefix(STAGING);
        #[cfg(unix)]
        folder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let staging = folder.tempdir_in(around).map_err(at(around))?;
        let (staged, inputs) = (Vec::new(), Vec::new());
        Ok(Self { dir: dir.to_owned(), staging, exists, staged, inputs, links: false })
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

    /// From now on, [`share`](Self::share) makes hard links where the file system allows it.
    ///
    /// The onnx package (from 1.21) refuses external data with several hard links.
    pub fn with_hard_links(&mut self) {
        self.links = true;
    }

    /// Stages the existing file `source`, which is not written later, as `name`.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Io`].
    pub fn share(&mut self, source: &Path, name: &str) -> Result<Shared, Error> {
        let source = source.canonicalize().map_err(at(source))?;
        let path = self.stage(name)?;
        if self.links && fs::hard_link(&source, &path).is_ok() {
            return Ok(Shared::Linked);
        }
        self.fill(&source, &path, name).map(|()| Shared::Copied)
    }

    /// Stages a copy of the existing file `source` as `name`.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Io`].
    pub fn copy(&mut self, source: &Path, name: &str) -> Result<(), Error> {
        let path = self.stage(name)?;
        self.fill(source, &path, name)
    }

    /// The system copies without reading the file into this process, and clones the file where it can.
    fn fill(&self, source: &Path, path: &Path, name: &str) -> Result<(), Error> {
        let copy = || {
            let mut copy = File::create_new(path)?;
            io::copy(&mut File::open(source)?, &mut copy)?;
            copy.sync_all()
        };
        copy().map_err(at(&self.dir.join(name)))
    }

    /// Stages a new file; whoever writes it must flush it.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Io`].
    pub fn create(&mut self, name: &str) -> Result<File, Error> {
        let path = self.stage(name)?;
        File::create_new(path).map_err(at(&self.dir.join(name)))
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

    /// The path of the staged file `name`, which does not exist yet; its folder does.
    fn stage(&mut self, name: &str) -> Result<PathBuf, Error> {
        let path = self.staging.path().join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::Twice { path: self.dir.join(name) });
        }
        let parent = parent(&path);
        fs::create_dir_all(parent).map_err(at(&self.dir.join(name)))?;
        self.staged.push(name.to_owned());
        Ok(path)
    }

    /// Stages `files` too and makes all staged files appear: a new folder in one step, in an existing one file by file.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Link`] before anything has appeared; [`Error::Io`]. When a new folder could not be
    /// completed, it has not appeared.
    pub fn commit(mut self, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
        for (name, bytes) in files {
            self.write(name, bytes)?;
        }
        if !self.exists {
            return fs::rename(self.staging.path(), &self.dir).map_err(at(&self.dir));
        }
        for name in &self.staged {
            self.check(name)?;
        }
        for name in &self.staged {
            let path = self.dir.join(name);
            fs::create_dir_all(parent(&path)).map_err(at(&path))?;
            fs::rename(self.staging.path().join(name), &path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Checks that files of these names can be committed, before they are made.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::Link`]; [`Error::Io`] when a folder is where a file should be, or the reverse.
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

/// Writes one file, which appears whole or not at all.
///
/// # Errors
/// [`Error::FileExists`] when it exists and `force` is false; [`Error::Io`].
pub fn file(path: &Path, bytes: &[u8], force: bool) -> Result<(), Error> {
    if path.symlink_metadata().is_ok() && !force {
        return Err(Error::FileExists { path: path.to_owned() });
    }
    let folder = parent(path);
    fs::create_dir_all(folder).map_err(at(folder))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or(io::ErrorKind::InvalidFilename.into()).map_err(at(path))?;
    Destination::new(folder, folder, true)?.commit(&[(name, bytes.to_vec())])
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

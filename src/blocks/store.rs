//! What parts of a model have returned for batches, in memory or in files.

use crate::dtype::DType;
use crate::feeds::Error;
use crate::fingerprint::Fingerprint;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

/// How the files of states begin.
pub(super) const PREFIX: &str = "eva-states-";
/// Digits of the hashes in the names of files.
const DIGITS: usize = 24;

/// Tensors by batch and name.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Where they are written; in memory if there is none.
    folder: Option<PathBuf>,
    values: HashMap<(String, String), Stored>,
    /// Bytes that are there, and the most that were.
    bytes: u64,
    most: u64,
}

#[derive(Debug)]
enum Stored {
    Held(Tensor),
    Written(Shape),
}

/// Type and shape of a tensor in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shape {
    dtype: i32,
    dims: Vec<usize>,
    bytes: u64,
}

/// The tensors in files, to be found by another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Written {
    tensors: Vec<(String, String, Shape)>,
    /// The most bytes that were there at one time.
    most: u64,
}

impl Store {
    /// Nothing yet; tensors are written to `folder` if there is one.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, ..Self::default() }
    }

    /// Bytes of all tensors that are there.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that were there at one time.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    pub(super) fn has(&self, batch: &str, name: &str) -> bool {
        self.values.contains_key(&(batch.to_owned(), name.to_owned()))
    }

    /// Adds a tensor, unless it is there.
    ///
    /// # Errors
    /// [`Error::States`] when it cannot be written.
    pub(super) fn put(&mut self, batch: &str, name: &str, tensor: Tensor) -> Result<(), Error> {
        if self.has(batch, name) {
            return Ok(());
        }
        let bytes = tensor.raw().len() as u64;
        let stored = match &self.folder {
            None => Stored::Held(tensor),
            Some(folder) => {
                let path = path(folder, batch, name);
                write(&path, &tensor).map_err(|source| Error::States { path, source })?;
                Stored::Written(Shape { dtype: tensor.dtype().to_onnx(), dims: tensor.shape().to_vec(), bytes })
            }
        };
        self.bytes += bytes;
        self.most = self.most.max(self.bytes);
        self.values.insert((batch.to_owned(), name.to_owned()), stored);
        Ok(())
    }

    /// What `read` makes of a tensor; nothing if it is not there.
    ///
    /// # Errors
    /// [`Error::States`] when it cannot be read.
    pub(super) fn get<T>(
        &self,
        batch: &str,
        name: &str,
        read: impl FnOnce(&Tensor) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match (self.values.get(&(batch.to_owned(), name.to_owned())), &self.folder) {
            (Some(Stored::Held(tensor)), _) => read(tensor).map(Some),
            (Some(Stored::Written(shape)), Some(folder)) => {
                let path = path(folder, batch, name);
                let tensor = shape.read(&path).map_err(|source| Error::States { path, source })?;
                read(&tensor).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Keeps only the tensors of these names.
    pub(super) fn keep_only(&mut self, needed: impl Fn(&str) -> bool) {
        let Self { values, folder, bytes, .. } = self;
        values.retain(|(batch, name), stored| {
            let kept = needed(name);
            if !kept {
                *bytes -= stored.bytes();
                // What is left is removed with the folder.
                let _ = folder.as_ref().map(|folder| fs::remove_file(path(folder, batch, name)));
            }
            kept
        });
    }

    /// The tensors of these names that are in files.
    pub(super) fn written(&self, needed: impl Fn(&str) -> bool) -> Written {
        let written = self.values.iter().filter_map(|((batch, name), stored)| match stored {
            Stored::Written(shape) if needed(name) => Some((batch.clone(), name.clone(), shape.clone())),
            _ => None,
        });
        Written { tensors: written.collect(), most: self.most }
    }

    /// Finds tensors that another process has written, and removes others.
    ///
    /// # Errors
    /// [`Error::States`] when a file is not there or has another length.
    pub(super) fn find(&mut self, written: Written) -> Result<(), Error> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        for (batch, name, shape) in written.tensors {
            let path = path(&folder, &batch, &name);
            let found = fs::metadata(&path).and_then(|file| match file.len() == shape.bytes {
                true => Ok(()),
                false => Err(io::Error::new(io::ErrorKind::InvalidData, "it has another length than was written")),
            });
            found.map_err(|source| Error::States { path, source })?;
            self.bytes += shape.bytes;
            self.values.insert((batch, name), Stored::Written(shape));
        }
        self.most = self.most.max(self.bytes).max(written.most);
        let known: Vec<PathBuf> = self.values.keys().map(|(batch, name)| path(&folder, batch, name)).collect();
        for file in files(&folder, PREFIX).filter(|file| !known.contains(file)) {
            let _ = fs::remove_file(file);
        }
        Ok(())
    }
}

impl Stored {
    fn bytes(&self) -> u64 {
        match self {
            Self::Held(tensor) => tensor.raw().len() as u64,
            Self::Written(shape) => shape.bytes,
        }
    }
}

impl Shape {
    fn read(&self, path: &Path) -> io::Result<Tensor> {
        let mut file = BufReader::new(File::open(path)?);
        let tensor = Tensor::read_raw(DType::from_onnx(self.dtype), &self.dims, &mut file)?;
        tensor.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The file of a tensor.
fn path(folder: &Path, batch: &str, name: &str) -> PathBuf {
    let mut hash = Fingerprint::new();
    [batch, name].iter().for_each(|part| hash.bytes(part.as_bytes()));
    folder.join(format!("{PREFIX}{}", &hash.text()[..DIGITS]))
}

/// Writes a new file: what is at the path is removed and not written into, as it may be a link.
fn write(path: &Path, tensor: &Tensor) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(path)?;
    file.write_all(&tensor.raw())?;
    file.sync_data()
}

/// The files of a folder whose names begin so.
pub(super) fn files(folder: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_vec(&[values.len()], values.to_vec()).unwrap()
    }

    fn read(store: &Store, batch: &str, name: &str) -> Option<Tensor> {
        store.get(batch, name, |tensor| Ok(tensor.clone())).unwrap()
    }

    #[test]
    fn tensors_are_kept_in_memory_and_in_files() {
        let folder = tempfile::tempdir().unwrap();
        for place in [None, Some(folder.path().to_owned())] {
            let mut store = Store::new(place.clone());
            store.put("1", "a", tensor(&[1.0, 2.0])).unwrap();
            store.put("1", "a", tensor(&[3.0])).unwrap();
            store.put("2", "b", tensor(&[4.0])).unwrap();
            assert_eq!(read(&store, "1", "a"), Some(tensor(&[1.0, 2.0])));
            assert_eq!((read(&store, "2", "a"), store.bytes()), (None, 12));
            store.keep_only(|name| name == "b");
            assert_eq!((store.has("1", "a"), store.bytes(), store.most()), (false, 4, 12));
            assert_eq!(files(folder.path(), PREFIX).count(), usize::from(place.is_some()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "mine").unwrap();
        std::os::unix::fs::symlink(&other, path(folder.path(), "1", "a")).unwrap();
        let mut store = Store::new(Some(folder.path().to_owned()));
        store.put("1", "a", tensor(&[1.0, 2.0])).unwrap();
        assert_eq!(read(&store, "1", "a"), Some(tensor(&[1.0, 2.0])));
        assert_eq!(fs::read(&other).unwrap(), b"mine");
    }

    #[test]
    fn another_process_finds_whole_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::new(Some(folder.path().to_owned()));
        store.put("1", "a", tensor(&[1.0, 2.0])).unwrap();
        store.put("1", "b", tensor(&[0.0; 3])).unwrap();
        store.keep_only(|name| name == "a");
        let written = || postcard::from_bytes(&postcard::to_stdvec(&store.written(|_| true)).unwrap()).unwrap();
        fs::write(folder.path().join("eva-states-left"), "x").unwrap();
        let mut other = Store::new(Some(folder.path().to_owned()));
        other.find(written()).unwrap();
        assert_eq!(read(&other, "1", "a"), Some(tensor(&[1.0, 2.0])));
        assert_eq!((other.bytes(), other.most()), (8, 20), "the most is that of both processes");
        assert_eq!(files(folder.path(), PREFIX).count(), 1);
        fs::write(path(folder.path(), "1", "a"), [0; 4]).unwrap();
        assert!(Store::new(Some(folder.path().to_owned())).find(written()).is_err());
    }
}

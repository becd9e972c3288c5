//! The weights of a PyTorch checkpoint: safetensors files, mapped.

use crate::hint::Hint;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::SafeTensors;

use crate::dtype::DType;
use crate::regular;

/// A checkpoint whose tensors stay in their files, which must not change while it is in use.
pub struct Checkpoint {
    shards: Vec<Mmap>,
    matrices: Vec<Span>,
}

/// A matrix of a checkpoint, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    name: String,
    dtype: DType,
    rows: usize,
    columns: usize,
    shard: usize,
    start: usize,
    end: usize,
}

/// A matrix of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointMatrix<'c> {
    /// The parameter's full name, for example `model.layers.0.self_attn.q_proj.weight`.
    pub name: &'c str,
    /// Its element type: `f32`, `f64`, `f16` or `bf16`.
    pub dtype: DType,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Its little-endian bytes in row-major order.
    pub bytes: &'c [u8],
}

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The folder has no safetensors file.
    #[error("`{}` has no safetensors file", dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// Whether it has PyTorch's own files instead.
        pickled: bool,
    },
    /// A file is not a safetensors file, or is truncated.
    #[error("`{}` is not a valid safetensors file: {reason}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index of a sharded checkpoint is not understood.
    #[error("`{}` is not an index of a sharded checkpoint: {reason}", path.display())]
    BadIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint has no matrix.
    #[error("`{}` has no matrix of floats", path.display())]
    NoMatrices {
        /// The checkpoint.
        path: PathBuf,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::NoWeights { pickled: true, .. } => {
                Some("save the model again with `save_pretrained`, which writes safetensors".to_owned())
            }
            Error::NoWeights { .. } => Some("give the folder that `save_pretrained` wrote".to_owned()),
            Error::NotSafetensors { .. } => Some("download or save the checkpoint again".to_owned()),
            Error::NoMatrices { .. } => Some("give the folder of the whole model, not of an adapter".to_owned()),
            _ => None,
        }
    }
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Opens a folder that `save_pretrained` wrote, in one file or in shards, or one safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        let mut checkpoint = Checkpoint { shards: Vec::new(), matrices: Vec::new() };
        for file in files(path)? {
            checkpoint.add(&file)?;
        }
        if checkpoint.matrices.is_empty() {
            return Err(Error::NoMatrices { path: path.to_owned() });
        }
        Ok(checkpoint)
    }

    /// Its matrices of floats, by name.
    pub fn matrices(&self) -> impl Iterator<Item = CheckpointMatrix<'_>> {
        self.matrices.iter().map(|matrix| CheckpointMatrix {
            name: &matrix.name,
            dtype: matrix.dtype,
            rows: matrix.rows,
            columns: matrix.columns,
            bytes: &self.shards[matrix.shard][matrix.start..matrix.end],
        })
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        let file = regular::open(path).map_err(unreadable)?;
        let map = crate::onnx::map(&file).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(&map)
            .map_err(|error| Error::NotSafetensors { path: path.to_owned(), reason: error.to_string() })?;
        for (name, view) in tensors.iter() {
            if let (&[rows, columns], Some(dtype)) = (view.shape(), float(view.dtype())) {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                let end = start + view.data().len();
                let (name, shard) = (name.to_owned(), self.shards.len());
                self.matrices.push(Span { name, dtype, rows, columns, shard, start, end });
            }
        }
        self.matrices.sort_by(|a, b| a.name.cmp(&b.name));
        self.shards.push(map);
        Ok(())
    }
}

fn float(dtype: safetensors::Dtype) -> Option<DType> {
    DType::from_safetensors(dtype).filter(|dtype| dtype.is_float())
}

/// The files with the weights, in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let index = path.join(INDEX);
    if path.join(SINGLE).is_file() {
        return Ok(vec![path.join(SINGLE)]);
    }
    if index.is_file() {
        return shards(path, &index);
    }
    let entries = std::fs::read_dir(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let files: BTreeSet<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let ends = |file: &&PathBuf, ending: &str| file.extension().is_some_and(|extension| extension == ending);
    let found: Vec<PathBuf> = files.iter().filter(|file| ends(file, "safetensors")).cloned().collect();
    if found.is_empty() {
        let pickled = files.iter().any(|file| ends(&file, "bin") || ends(&file, "pt") || ends(&file, "pth"));
        return Err(Error::NoWeights { dir: path.to_owned(), pickled });
    }
    Ok(found)
}

fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = regular::read_to_string(index).map_err(|source| Error::Read { path: index.to_owned(), source })?;
    let bad = |reason: String| Error::BadIndex { path: index.to_owned(), reason };
    let index: Index = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    match names.iter().find(|name| !plain(name)) {
        Some(name) => Err(bad(format!("`{name}` is not a file name"))),
        None => Ok(names.iter().map(|name| dir.join(name)).collect()),
    }
}

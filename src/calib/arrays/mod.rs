//! Arrays in files: `.npy` and `.npz` of NumPy, and safetensors. As data, the first axis of each is that of the rows.
//!
//! Rows are read one by one from where they are in the file. Compressed arrays are unpacked to a temporary file.

mod archive;
mod array;
mod element;
mod header;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Metadata, TensorInfo};

use super::error::Error;
use super::file_error::FileError;
use super::row::{FieldValue, Fields, Row, RowOrigin};
use crate::dtype::DType;
use crate::regular;
use array::{Array, Bytes};
use element::Element;

/// Most bytes of the header of a safetensors file, as the library allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// A file of arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// One array, called as its file.
    Npy,
    /// Arrays in an archive.
    Npz,
    /// Tensors.
    Safetensors,
}

/// The elements of an array as NumPy has them in memory, in row-major order; `descr` is what it calls their type.
///
/// # Errors
/// What it is, if that is not read.
#[cfg(feature = "python")]
pub(crate) fn of_numpy(descr: &str, shape: &[usize], bytes: &[u8]) -> Result<FieldValue, String> {
    let unfit = || "its values are no text and fit no tensor".to_owned();
    Element::of_numpy(descr)?.values(shape, bytes).ok_or_else(unfit)
}

impl Container {
    /// The kind of file that begins with these bytes.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(header::MAGIC) {
            return Some(Self::Npy);
        }
        if head.starts_with(b"PK\x03\x04") {
            // The first file of an archive, whose name has so many bytes.
            let length = usize::from(u16::from_le_bytes(*head.get(26..)?.first_chunk()?));
            return head.get(30..30 + length)?.ends_with(b".npy").then_some(Self::Npz);
        }
        let length = u64::from_le_bytes(*head.first_chunk()?);
        let object = head.get(8) == Some(&b'{') && (2..=LONGEST_HEADER).contains(&length);
        // Text has no such bytes.
        (object && head[..8].contains(&0)).then_some(Self::Safetensors)
    }

    /// What it is called in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Npy => "a NumPy array",
            Self::Npz => "NumPy arrays",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Whether the name of a file is that of a file of arrays.
pub(crate) fn is_named(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    [".npy", ".npz", ".safetensors"].iter().any(|ending| path.ends_with(ending))
}

/// The arrays in a file, in the order of their names.
///
/// # Errors
/// When it cannot be read, is broken, or holds an array that is not read.
pub(crate) fn open(path: &Path) -> Result<Vec<Array>, Error> {
    let unreadable = |source| Error::Io { file: path.to_owned(), source };
    let wrong = |message| Error::from(FileError::Arrays { file: path.to_owned(), message });
    let mut head = Vec::new();
    let file = regular::open(path).map_err(unreadable)?;
    file.try_clone().and_then(|file| file.take(1 << 12).read_to_end(&mut head)).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let arrays = match Container::of(&head) {
        Some(Container::Npy) => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Array::of_numpy(name, Bytes::In(Arc::new(file), 0), length).map(|array| vec![array])
        }
        Some(Container::Npz) => archive::arrays(file, length),
        Some(Container::Safetensors) => tensors(file, length),
        None => Err("it is no file of arrays".to_owned()),
    };
    let mut arrays = arrays.map_err(wrong)?;
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(arrays)
}

/// The array that a row names by its file: the one in it, or that of this name.
///
/// # Errors
/// As [`open`]; when there are several others.
pub(crate) fn named(path: &Path, name: &str) -> Result<FieldValue, Error> {
    let arrays = open(path)?;
    let wrong = |message| Error::from(FileError::Arrays { file: path.to_owned(), message });
    let found = match &arrays[..] {
        [array] => Some(array),
        all => all.iter().find(|array| array.name == name),
    };
    let array = found.ok_or_else(|| wrong(format!("it has no array `{name}`")))?;
    array.whole().map_err(|error| wrong(error.to_string()))
}

/// The tensors of a safetensors file of `length` bytes.
fn tensors(file: File, length: u64) -> Result<Vec<Array>, String> {
    let bytes = Bytes::In(Arc::new(file), 0);
    let head = bytes.read(0, 8).map_err(|error| error.to_string())?;
    let header = head.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    if header > LONGEST_HEADER || header + 8 > length {
        return Err("its header is longer than the file".to_owned());
    }
    let head = bytes.read(8, header).map_err(|error| error.to_string())?;
    let metadata: Metadata = serde_json::from_slice(&head).map_err(|error| error.to_string())?;
    let array = |(name, info): (String, &TensorInfo)| {
        let (from, to) = info.data_offsets;
        let dtype = DType::from_safetensors(info.dtype).filter(|dtype| dtype.bits().is_some_and(|bits| bits % 8 == 0));
        let dtype = dtype.ok_or_else(|| format!("`{name}` has elements of type {:?}", info.dtype))?;
        if to as u64 > length - 8 - header || to < from {
            return Err(format!("`{name}` is cut off"));
        }
        let element = Element::Number { dtype, swapped: false };
        let place = (header + 8 + from as u64, (to - from) as u64);
        Array::new(name.clone(), (element, info.shape.clone()), bytes.clone(), place)
            .map_err(|wrong| format!("`{name}`: {wrong}"))
    };
    metadata.tensors().into_iter().map(array).collect()
}

/// Arrays whose first axis is that of the rows.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    source: Arc<str>,
    file: PathBuf,
    arrays: Vec<Array>,
    rows: usize,
}

impl Stack {
    /// The arrays of some files together, which messages call `path`. Arrays without axes have no rows, and are passed
    /// over.
    ///
    /// # Errors
    /// As [`open`]; when there is no array, or they have different numbers of rows.
    pub(crate) fn open(path: &Path, files: &[&Path]) -> Result<Self, Error> {
        let mut arrays = Vec::new();
        for file in files {
            arrays.extend(open(file)?.into_iter().filter(|array| !array.shape.is_empty()));
        }
        let wrong = |message| Error::from(FileError::Arrays { file: path.to_owned(), message });
        let first = arrays.first().ok_or_else(|| wrong("it has no array with an axis".to_owned()))?;
        if let Some(other) = arrays.iter().find(|array| array.shape[0] != first.shape[0]) {
            let [one, two] = [first, other].map(|array| format!("`{}` has {}", array.name, array.shape[0]));
            return Err(wrong(format!("{one} rows, and {two}")));
        }
        let rows = first.shape[0];
        Ok(Self { source: path.display().to_string().into(), file: path.to_owned(), arrays, rows })
    }

    /// The arrays of texts among these.
    pub(crate) fn texts(mut self) -> Self {
        self.arrays.retain(Array::is_text);
        self
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// The rows in their order.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = Result<Row, Error>> {
        (0..self.rows).map(move |index| self.row(index))
    }

    /// Row `index`.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a value that is not read.
    pub(crate) fn row(&self, index: usize) -> Result<Row, Error> {
        let failed = |source| Error::Io { file: self.file.clone(), source };
        let field = |array: &Array| Ok((array.name.clone(), array.row(index)?));
        let fields = self.arrays.iter().map(field).collect::<std::io::Result<Fields>>().map_err(failed)?;
        Ok(Row { origin: RowOrigin::Item { source: self.source.clone(), number: index + 1 }, fields })
    }
}

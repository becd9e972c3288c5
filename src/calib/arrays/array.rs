//! One array in a file, of which rows are read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::super::row::FieldValue;
use super::element::Element;
use super::header::{Header, Order};

/// Most bytes of an array that is read as a whole, and of a row.
pub(super) const LONGEST: u64 = 1 << 28;

/// Most rows without elements: no bytes of a file bound their number.
const MOST_EMPTY: usize = 1 << 24;

/// Where the bytes of an array are.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    /// In a file, from a position on.
    In(Arc<File>, u64),
    /// In memory.
    Here(Arc<[u8]>),
}

impl Bytes {
    /// Bytes from `start` on, all of which must be there.
    pub(super) fn read(&self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let end = || start.checked_add(length).ok_or(io::ErrorKind::UnexpectedEof);
        match self {
            Self::In(file, at) => {
                let mut bytes = vec![0; length as usize];
                let mut file = &**file;
                file.seek(SeekFrom::Start(at.saturating_add(start)))?;
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
            Self::Here(bytes) => {
                let range = start as usize..end()? as usize;
                Ok(bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
            }
        }
    }

    /// The same bytes from `start` on.
    pub(super) fn from(&self, start: u64) -> Self {
        match self {
            Self::In(file, at) => Self::In(file.clone(), at.saturating_add(start)),
            Self::Here(bytes) => Self::Here(bytes.get(start as usize..).unwrap_or_default().into()),
        }
    }

    /// The first `length` bytes, read as they are needed.
    pub(super) fn reader(&self, length: u64) -> impl Read {
        Reader { bytes: self.clone(), at: 0, length }
    }

    /// The first bytes, as many as there are of `most`, of `length` in all.
    pub(super) fn head(&self, most: usize, length: u64) -> io::Result<Vec<u8>> {
        self.read(0, length.min(most as u64))
    }
}

/// Bytes that are read one after the other, whatever else is read of their file.
struct Reader {
    bytes: Bytes,
    at: u64,
    length: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.bytes.read(self.at, (self.length - self.at).min(buffer.len() as u64))?;
        self.at += part.len() as u64;
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

/// An array whose first axis is that of the rows.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    /// Its name.
    pub(crate) name: String,
    /// Its sizes.
    pub(crate) shape: Vec<usize>,
    element: Element,
    bytes: Bytes,
    start: u64,
}

impl Array {
    /// The array `name` of these elements, which begin at `start` and are `length` bytes.
    ///
    /// # Errors
    /// When the elements are not as many bytes, or a row has too many.
    pub(super) fn new(
        name: String,
        (element, shape): (Element, Vec<usize>),
        bytes: Bytes,
        (start, length): (u64, u64),
    ) -> Result<Self, String> {
        let of_element = element.bytes();
        let product = |sizes: &[usize], size: usize| match sizes.contains(&0) {
            true => Some(0),
            false => sizes.iter().try_fold(size as u64, |product, size| product.checked_mul(*size as u64)),
        };
        let wanted = product(&shape, of_element);
        if wanted != Some(length) {
            return Err(format!("its shape {shape:?} does not belong to {length} bytes"));
        }
        // An element without bytes is one all the same once it is read.
        let of_row = product(shape.get(1..).unwrap_or_default(), of_element.max(1));
        if of_row.is_none_or(|bytes| bytes > LONGEST) {
            return Err(format!("each of its rows has more than {} MiB", LONGEST >> 20));
        }
        let rows = shape.first().copied().unwrap_or(1);
        if length == 0 && rows > MOST_EMPTY {
            return Err(format!("it has {rows} rows that hold nothing"));
        }
        Ok(Self { name, shape, element, bytes, start })
    }

    /// The array `name` in a NumPy file of `length` bytes.
    ///
    /// # Errors
    /// When it is not read, or cut off.
    pub(super) fn of_numpy(name: String, bytes: Bytes, length: u64) -> Result<Self, String> {
        let head = bytes.head(Header::MOST, length).map_err(|error| error.to_string())?;
        let Header { element, shape, order, start } = Header::read(&head)?;
        let elements = length.saturating_sub(start as u64);
        // What is on one axis alone is the same in both orders.
        let one_axis = shape.iter().filter(|size| **size != 1).count() < 2;
        let mut array = Self::new(name, (element, shape), bytes, (start as u64, elements))?;
        if order == Order::ColumnMajor && !one_axis {
            array.reorder(elements)?;
        }
        Ok(array)
    }

    /// Reads all elements, and puts them into row-major order.
    fn reorder(&mut self, length: u64) -> Result<(), String> {
        if length > LONGEST {
            return Err(format!("it is in Fortran order, and larger than {} MiB", LONGEST >> 20));
        }
        let from = self.bytes.read(self.start, length).map_err(|error| error.to_string())?;
        let (size, mut to) = (self.element.bytes(), Vec::with_capacity(from.len()));
        let mut index = vec![0; self.shape.len()];
        for _ in 0..from.len() / size.max(1) {
            let strides = self.shape.iter().scan(1, |stride, size| Some(std::mem::replace(stride, *stride * size)));
            let at: usize = index.iter().zip(strides).map(|(index, stride)| index * stride).sum();
            to.extend_from_slice(&from[at * size..][..size]);
            for (index, size) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < *size {
                    break;
                }
                *index = 0;
            }
        }
        (self.bytes, self.start) = (Bytes::Here(to.into()), 0);
        Ok(())
    }

    /// Whether its elements are texts.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.element, Element::Text { .. })
    }

    /// Row `index` of the first axis.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a value that is not read.
    pub(crate) fn row(&self, index: usize) -> io::Result<FieldValue> {
        let shape = self.shape.get(1..).unwrap_or_default();
        let bytes = (shape.iter().product::<usize>() * self.element.bytes()) as u64;
        self.values(shape, self.start + index as u64 * bytes, bytes)
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`row`](Self::row).
    pub(crate) fn whole(&self) -> io::Result<FieldValue> {
        let elements = self.shape.iter().product::<usize>();
        let bytes = (elements * self.element.bytes()) as u64;
        if bytes.max(elements as u64) > LONGEST {
            return Err(io::Error::other(format!("it has more than {} MiB", LONGEST >> 20)));
        }
        self.values(&self.shape, self.start, bytes)
    }

    fn values(&self, shape: &[usize], start: u64, length: u64) -> io::Result<FieldValue> {
        let bytes = self.bytes.read(start, length)?;
        let values = self.element.values(shape, &bytes);
        values.ok_or_else(|| io::Error::other(format!("`{}` has values that are not read", self.name)))
    }
}

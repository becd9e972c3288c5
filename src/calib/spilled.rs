//! The tensors of rows in a file: those of pictures and sounds are large, and token ids are not.

use super::tensors::NamedTensor;
use crate::dtype::DType;
use crate::tensor::Tensor;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;

/// A file with tensors, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Spilled {
    path: PathBuf,
    /// Their types and shapes.
    shapes: Vec<(DType, Vec<usize>)>,
}

impl Spilled {
    /// Moves tensors to a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write<'a>(path: PathBuf, tensors: impl Iterator<Item = &'a mut NamedTensor>) -> io::Result<Self> {
        let (mut file, mut shapes) = (BufWriter::new(File::create(&path)?), Vec::new());
        for NamedTensor { tensor, .. } in tensors {
            file.write_all(&tensor.raw())?;
            shapes.push((tensor.dtype(), tensor.shape().to_vec()));
            *tensor = Tensor::zeros(tensor.dtype(), &[0]).ok_or(io::ErrorKind::Unsupported)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        Ok(Self { path, shapes })
    }

    /// Reads the tensors into their places.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read<'a>(&self, tensors: impl Iterator<Item = &'a mut NamedTensor>) -> io::Result<()> {
        let mut file = BufReader::new(File::open(&self.path)?);
        for (NamedTensor { tensor, .. }, (dtype, shape)) in tensors.zip(&self.shapes) {
            *tensor = Tensor::read_raw(*dtype, shape, &mut file)?.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(())
    }
}

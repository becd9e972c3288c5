//! What can be wrong with a field that should hold a tensor.

use super::input::{Size, TensorInput};
use crate::dtype::DType;

/// What is wrong with a field that should hold a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTensor {
    /// There is no such field.
    #[error("is missing")]
    Missing,
    /// It holds something that is no number.
    #[error("must be a tensor or nested lists of numbers")]
    NoNumbers,
    /// It names a file, from which no array is read.
    #[error("names no array: {message}")]
    File {
        /// What is wrong with the file.
        message: String,
    },
    /// Its lists are of different lengths.
    #[error("has lists of different lengths")]
    Lengths,
    /// Numbers are beside lists.
    #[error("has lists of different depths")]
    Depths,
    /// The elements are of another type.
    #[error("has elements of type {got}, and the model takes {expected}")]
    Type {
        /// Type of the input.
        expected: DType,
        /// Type of the field.
        got: DType,
    },
    /// A number is no value of the input's type.
    #[error("has numbers that are no {dtype}")]
    Numbers {
        /// Type of the input.
        dtype: DType,
    },
    /// It does not have an entry for each token.
    #[error("has {got} entries for the row's {expected} tokens")]
    Tokens {
        /// Entries of the field.
        got: usize,
        /// Tokens of the row.
        expected: usize,
    },
    /// It tells tokens from padding, and nobody knows which is which.
    #[error("is a mask, and nothing tells whether its 1 is a token or padding")]
    Mask,
    /// The sizes differ.
    #[error("has shape {got:?}, and the model takes {}", TensorInput::shape_text(expected))]
    Shape {
        /// Sizes of the input.
        expected: Vec<Size>,
        /// Sizes of the field.
        got: Vec<usize>,
    },
}

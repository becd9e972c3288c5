//! The inputs of a model that rows hold by name.

use std::fmt;

use crate::dtype::DType;

/// An input of a model that is a field of every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInput {
    /// Name of the input and of the field.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Sizes without the batch axis.
    pub shape: Vec<Size>,
}

/// A size of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// This one.
    Fixed(usize),
    /// The number of tokens.
    Tokens,
    /// The number of tokens if that of the rows agrees with it, and else any.
    TokensOrAny,
    /// Any.
    Any,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Tokens => f.write_str("tokens"),
            Self::TokensOrAny | Self::Any => f.write_str("any"),
        }
    }
}

impl TensorInput {
    /// Its shape, for a message.
    pub(crate) fn shape_text(shape: &[Size]) -> String {
        format!("[{}]", shape.iter().map(Size::to_string).collect::<Vec<_>>().join(", "))
    }
}

/// What gives the rows of the data their lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lengths {
    /// Their token ids, or the text that these are made of.
    #[default]
    Tokens,
    /// Tensors with an entry for each token: embeddings, states, sounds.
    Tensors,
    /// Nothing: each row counts as one token.
    Nothing,
}

//! Why statistics could not be gathered.

use crate::hint::Hint;
use crate::{feeds, onnx, pca, runtime};

/// What to do about activations that are not finite.
pub(crate) fn overflows(others: usize) -> String {
    let leave = match others {
        0 => "leave the layer out with --exclude-modules, or use",
        _ => "what is not finite has spread to other layers, so that leaving one out does not help: use",
    };
    format!(
        "the model overflows on this data (common in 16-bit): {leave} a 32-bit export; on a GPU, ONNX Runtime itself \
         fails in this way if a batch has over 2^31 attention scores: lower --batch-size"
    )
}

/// How many groups of layers are not finite beside the first, as the end of a sentence.
pub(crate) fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => ", nor is another layer input".to_owned(),
        n => format!(", nor are {n} other layer inputs"),
    }
}

/// Why statistics could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be edited.
    #[error(transparent)]
    Model(#[from] onnx::Error),
    /// ONNX Runtime refused or failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// An input could not be made.
    #[error(transparent)]
    Feeds(feeds::Error),
    /// A tensor holds NaN or infinities.
    #[error("the layer input `{tensor}` is not finite in batch {batch}{}", and_others(*others))]
    NotFinite {
        /// Number of the group.
        group: usize,
        /// Tensor name.
        tensor: String,
        /// Batch number, from 1.
        batch: usize,
        /// How many other groups are not finite there; this one is the first in the model.
        others: usize,
    },
    /// The rows of a tensor do not belong to tokens or sequences.
    #[error("the rows of `{tensor}` are neither tokens nor sequences: {rows} rows for {batch} sequences of {length}")]
    Rows {
        /// Tensor name.
        tensor: String,
        /// Rows found.
        rows: usize,
        /// Sequences fed.
        batch: usize,
        /// Tokens of each.
        length: usize,
    },
    /// The rows of a tensor cannot be matched with tokens, and some of these should not count.
    #[error(
        "which rows of `{tensor}` belong to which tokens cannot be told, and some tokens are padding or should not count"
    )]
    Unmatched {
        /// Tensor name.
        tensor: String,
    },
    /// The rows of a sequence depend on the other sequences of its batch.
    #[error("the rows of `{tensor}` for one sequence depend on the other sequences of its batch")]
    Mixed {
        /// Tensor name.
        tensor: String,
    },
    /// Padding changes the rows of tokens, and cannot be left out.
    #[error(
        "padding changes what the layers read, and rows shorter than {length} tokens must be padded: nothing tells the \
         model what is padding"
    )]
    ReadsPadding {
        /// Tokens that rows are padded to.
        length: usize,
    },
    /// The model could not be loaded a second time after 16 bits had not been enough.
    #[error("the model is no longer loaded")]
    Unloaded,
    /// A state that was saved is not one of this run.
    #[error("the saved state does not belong to this run: {what}")]
    State {
        /// What differs.
        what: &'static str,
    },
    /// A decomposition failed on finite statistics.
    #[error("the statistics of `{tensor}` cannot be decomposed: {source}")]
    Decompose {
        /// Tensor name.
        tensor: String,
        /// Why.
        source: pca::Error,
    },
}

impl Error {
    /// The error of a part of a model that runs for another part, as that one takes it.
    pub(crate) fn of_part(self) -> feeds::Error {
        match self {
            Self::Runtime(error) => feeds::Error::Runtime(error),
            Self::Feeds(error) => error,
            other => feeds::Error::Runtime(runtime::Error::Run { reason: other.to_string() }),
        }
    }

    /// The same, where the groups of a part have these `numbers` in the model.
    pub(crate) fn with_numbers(self, numbers: &[usize]) -> Self {
        match self {
            Self::NotFinite { group, tensor, batch, others } => {
                Self::NotFinite { group: numbers.get(group).copied().unwrap_or(group), tensor, batch, others }
            }
            other => other,
        }
    }
}

impl From<feeds::Error> for Error {
    /// What makes an input may be a model as well, or a part of this one, and fails as it does.
    fn from(error: feeds::Error) -> Self {
        match error {
            feeds::Error::Runtime(error) => Self::Runtime(error),
            other => Self::Feeds(other),
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Feeds(error) => error.hint(),
            Self::NotFinite { others, .. } => Some(overflows(*others)),
            Self::Rows { .. } | Self::Unmatched { .. } => {
                Some("leave the layers that read it out with --exclude-modules".to_owned())
            }
            Self::State { .. } => Some("run again without --resume".to_owned()),
            Self::Mixed { .. } => {
                Some("if the model takes [sequence, batch], export it with the batch first".to_owned())
            }
            Self::ReadsPadding { length } => Some(format!(
                "give only rows of {length} tokens or more, which are cut to that; or export the model with an \
                 attention mask, or with a free length, and leave out --pad-to and --pad-multiple"
            )),
            Self::Decompose { .. } | Self::Unloaded => None,
        }
    }
}

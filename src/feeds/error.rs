//! Why a model cannot be fed.

use crate::dtype::DType;
use crate::hint::Hint;
use crate::runtime;
use std::io;
use std::path::PathBuf;

/// Why a model cannot be fed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No rule covers this input.
    #[error("the model needs the input `{name}` ({dtype} {shape}), which nothing in the calibration data can fill")]
    UnknownInput {
        /// Input name.
        name: String,
        /// Element type.
        dtype: DType,
        /// FixedDims, as text.
        shape: String,
    },
    /// The first axis of the tokens is not the batch.
    #[error("the input `{name}` has the shape {shape}: the batch is not its first axis")]
    SequenceFirst {
        /// Input name.
        name: String,
        /// Its shape, as text.
        shape: String,
    },
    /// XLNet's mask by which 1 is padding, under the name that other models give to one by which 0 is.
    #[error("the input `input_mask` of an XLNet has 1 for padding, and elsewhere that name means the opposite")]
    InputMask,
    /// The shape of an input is larger than any batch.
    #[error("the input `{name}` has the fixed shape {shape}, larger than any batch that is run")]
    TooLarge {
        /// Input name.
        name: String,
        /// Its shape, as text.
        shape: String,
    },
    /// The model continues from a cache that another graph fills.
    #[error("the model continues from the cache `{name}`, which only another graph fills")]
    NeedsCache {
        /// Input name.
        name: String,
    },
    /// The model reads the states of an encoder, and there is none.
    #[error("the model reads the states of an encoder, and no encoder is given")]
    NoEncoder,
    /// The batch has nothing for the encoder.
    #[error("the calibration data has nothing for the encoder")]
    NoSource,
    /// The batch has nothing for an input.
    #[error("the calibration data has nothing for the input `{name}`")]
    NoTensor {
        /// Input name.
        name: String,
    },
    /// The model takes one list of positions for all sequences of a batch, and these have different ones.
    #[error("the input `{name}` is one list for all rows of a batch, and these have different positions")]
    UnlikePositions {
        /// Input name.
        name: String,
    },
    /// The model that embeds tokens reads something else as well.
    #[error("the model that embeds tokens needs the input `{name}`, which tokens do not give")]
    EmbedsMore {
        /// Input name.
        name: String,
    },
    /// The model reads embeddings, and no model is given that makes them of tokens.
    #[error("the model reads embeddings, and there is no model that embeds tokens")]
    NoEmbedder,
    /// A model that embeds tokens is given for one that reads tokens.
    #[error("the model reads no embeddings, so that --embed-tokens has no use")]
    NoEmbeddings,
    /// The encoder returns nothing.
    #[error("the encoder has no output")]
    NoStates,
    /// The model reads no token ids, and an input that rows cannot hold.
    #[error("the model has no `input_ids` input, and not all its inputs are batches of tensors: {inputs}")]
    NoTokens {
        /// The inputs, as text.
        inputs: String,
    },
    /// The batch has a tensor of another type or shape than an input.
    #[error("the input `{name}` takes {dtype} [{shape}], and the calibration data has {got_dtype} {got_shape:?}")]
    Mismatch {
        /// Input name.
        name: String,
        /// Element type of the input.
        dtype: DType,
        /// Sizes of the input, as text.
        shape: String,
        /// Element type of the tensor.
        got_dtype: DType,
        /// Shape of the tensor.
        got_shape: Vec<usize>,
    },
    /// What a part of the model returned cannot be written to or read from its file.
    #[error("cannot keep the hidden states in `{}`: {source}", path.display())]
    States {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tensor could not be made.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

const NO_EMBEDDER: &str = "keep `embed_tokens.onnx` beside the model, or name it with --embed-tokens";

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownInput { .. } => Some(
                "inputs understood are input_ids, attention_mask, position_ids, token_type_ids, cache_position, \
                 past_key_values.*, decoder_input_ids, encoder_hidden_states, encoder_attention_mask, \
                 use_cache_branch, integer scalars, and tensors of known rank whose first axis is the batch, which rows \
                 hold by name; export the model without the others"
                    .to_owned(),
            ),
            Self::SequenceFirst { .. } => Some("export the model with the batch first".to_owned()),
            Self::InputMask => Some("export the model with `attention_mask` in its place".to_owned()),
            Self::TooLarge { .. } => Some("export the model with a dynamic batch and length, or with smaller ones".to_owned()),
            Self::NeedsCache { .. } => Some(
                "calibrate `decoder_model.onnx` or `decoder_model_merged.onnx`, whose layers have the same names".to_owned(),
            ),
            Self::UnlikePositions { .. } => Some("run one row at a time, with --batch-size 1".to_owned()),
            Self::NoEncoder => Some("keep `encoder_model.onnx` beside the decoder, or name it with --encoder".to_owned()),
            Self::EmbedsMore { .. } => Some("name another with --embed-tokens, or give rows with `inputs_embeds`".to_owned()),
            Self::NoEmbedder => Some(NO_EMBEDDER.to_owned()),
            Self::NoEmbeddings => Some("leave out --embed-tokens".to_owned()),
            Self::States { .. } => Some("give a folder on a disk with more space with --spill".to_owned()),
            Self::NoSource | Self::NoTensor { .. } | Self::Mismatch { .. } | Self::NoStates => None,
            Self::NoTokens { .. } => Some("calibration needs a model that reads `input_ids`, or tensors of known rank whose first axis is the batch".to_owned()),
            Self::Runtime(error) => error.hint(),
        }
    }
}

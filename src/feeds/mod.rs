//! What a model is fed for one prefill pass over a batch.
//!
//! `plan` decides once, from the names and shapes of the graph inputs, where each value comes from;
//! [`Feeds::bind`] makes the tensors of one batch.

mod encoder;

pub use encoder::Encoder;

use crate::calib::{Batch, FixedDims, TensorInput};
use crate::dtype::DType;
use crate::hint::Hint;
use crate::onnx::{Dim, ValueInfo as Input};
use crate::runtime::{self, Value};
use crate::tensor::Tensor;
use ndarray::Array2;
use std::sync::Arc;

/// Sizes of the key/value cache that a file may leave open; read from its config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheShape {
    /// Key/value heads.
    pub heads: Option<usize>,
    /// Features of one head.
    pub head_dim: Option<usize>,
}

/// Why a model cannot be fed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No rule says what this input should hold.
    #[error("the model needs the input `{name}` ({dtype} {shape}), and calibration data has nothing for it")]
    UnknownInput {
        /// Input name.
        name: String,
        /// Element type.
        dtype: DType,
        /// FixedDims, as text.
        shape: String,
    },
    /// The model goes on from a cache that another graph fills.
    #[error("the model goes on from the cache `{name}`, which only another graph fills")]
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
    /// The encoder returns nothing.
    #[error("the encoder has no output")]
    NoStates,
    /// The model reads no token ids.
    #[error("the model has no `input_ids` input; its inputs are {inputs}")]
    NoTokens {
        /// The inputs, as text.
        inputs: String,
    },
    /// A tensor could not be made.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownInput { .. } => Some(
                "inputs understood are input_ids, attention_mask, position_ids, token_type_ids, cache_position, \
                 past_key_values.*, decoder_input_ids, encoder_hidden_states, encoder_attention_mask, use_cache_branch, \
                 integer scalars and batches of floats such as pixel_values; export the model without the others"
                    .to_owned(),
            ),
            Self::NeedsCache { .. } => Some(
                "calibrate `decoder_model.onnx` or `decoder_model_merged.onnx`, whose layers have the same names".to_owned(),
            ),
            Self::NoEncoder => Some("keep `encoder_model.onnx` beside the decoder, or name it with --encoder".to_owned()),
            Self::NoSource | Self::NoTensor { .. } | Self::NoStates => None,
            Self::NoTokens { .. } => Some("calibration on text needs a model that reads `input_ids`".to_owned()),
            Self::Runtime(error) => error.hint(),
        }
    }
}

/// Where the value of one input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Feed {
    InputIds,
    AttentionMask,
    TokenTypeIds,
    /// Of the encoder: its token ids, its mask, or the states that it makes of them.
    EncoderIds,
    EncoderMask,
    EncoderStates,
    /// A field of the rows, with the sizes of a row as far as they are fixed.
    Tensor(Vec<Option<usize>>),
    /// Positions [b, s], or [s] when not batched.
    Positions {
        batched: bool,
    },
    /// Zeros of a shape that may follow the batch.
    Zeros(Vec<Size>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Fixed(usize),
    Batch,
}

/// Where the values of all inputs come from.
#[derive(Clone, Debug)]
pub struct Feeds {
    inputs: Vec<(String, DType, Feed)>,
    shape: FixedDims,
    encoder: Option<Arc<Encoder>>,
    /// What the rows hold for an encoder that reads no tokens.
    for_encoder: Vec<TensorInput>,
}

/// Decides what each graph input is fed.
///
/// # Errors
/// [`Error::UnknownInput`] names the first input that no rule covers; [`Error::NoTokens`] when no input takes tokens.
pub(crate) fn plan(inputs: &[Input], cache: CacheShape) -> Result<Feeds, Error> {
    let named = |name: &str| inputs.iter().find(|i| i.name == name && rank(i) == Some(2));
    let decoder = named("decoder_input_ids");
    let tokens = decoder.or_else(|| named("input_ids"));
    let Some(tokens) = tokens else {
        if let Some(plan) = tensors(inputs) {
            return Ok(plan);
        }
        let listed: Vec<_> = inputs.iter().map(|i| format!("`{}` {}", i.name, shape_text(i))).collect();
        return Err(Error::NoTokens { inputs: listed.join(", ") });
    };
    let fixed = |axis: usize| match tokens.shape.as_deref() {
        Some(dims) => fixed_size(&dims[axis]),
        None => None,
    };
    let shape = FixedDims { batch: fixed(0), length: fixed(1) };
    let mut planned = Vec::new();
    for input in inputs {
        if input.name.contains("past") && input.name.contains(".encoder.") {
            return Err(Error::NeedsCache { name: input.name.clone() });
        }
        let encoder = if decoder.is_some() { of_encoder(input) } else { None };
        let source = encoder.or_else(|| source(input, cache)).or_else(|| tensor(input)).ok_or_else(|| {
            Error::UnknownInput { name: input.name.clone(), dtype: input.dtype, shape: shape_text(input) }
        })?;
        planned.push((input.name.clone(), input.dtype, source));
    }
    Ok(Feeds { inputs: planned, shape, encoder: None, for_encoder: Vec::new() })
}

impl Feeds {
    /// Decides what each graph input is fed.
    ///
    /// # Errors
    /// [`Error::UnknownInput`] names the first input that no rule covers; [`Error::NoTokens`] when no input takes tokens.
    pub fn plan(inputs: &[Input], cache: CacheShape) -> Result<Self, Error> {
        plan(inputs, cache)
    }

    /// Batch size and length that the model's own shape fixes.
    pub fn shape(&self) -> FixedDims {
        self.shape
    }

    /// Whether the rows of the data hold tokens: not for a model that reads images alone, for example.
    pub fn reads_tokens(&self) -> bool {
        self.inputs.iter().any(|(_, _, source)| *source == Feed::InputIds)
    }

    /// The inputs that the rows of the data hold by name, those of the encoder included.
    pub fn tensors(&self) -> Vec<TensorInput> {
        let tensors = self.inputs.iter().filter_map(|(name, dtype, source)| match source {
            Feed::Tensor(shape) => Some(TensorInput { name: name.clone(), dtype: *dtype, shape: shape.clone() }),
            _ => None,
        });
        tensors.chain(self.for_encoder.iter().cloned()).collect()
    }

    /// The plan beside an encoder with these inputs.
    ///
    /// # Errors
    /// As `plan`.
    pub fn beside(self, encoder: &[Input]) -> Result<Feeds, Error> {
        let encoder = plan(encoder, CacheShape::default())?;
        let for_encoder = if encoder.reads_tokens() { Vec::new() } else { encoder.tensors() };
        Ok(Feeds { for_encoder, ..self })
    }

    /// Whether the model has an encoder and a decoder, and each reads its own part of a row.
    pub fn needs_pairs(&self) -> bool {
        let of_encoder = [Feed::EncoderIds, Feed::EncoderMask, Feed::EncoderStates];
        self.for_encoder.is_empty() && self.inputs.iter().any(|(_, _, source)| of_encoder.contains(source))
    }

    /// Whether the model reads the states of an encoder that is not part of it.
    pub fn needs_encoder(&self) -> bool {
        self.inputs.iter().any(|(_, _, source)| *source == Feed::EncoderStates)
    }

    /// The plan with the encoder that makes the states.
    pub fn with_encoder(self, encoder: Encoder) -> Feeds {
        Feeds { encoder: Some(Arc::new(encoder)), ..self }
    }

    /// Makes the tensors of one batch, by input name.
    ///
    /// # Errors
    /// [`Error::NoEncoder`] or [`Error::NoSource`] when what the encoder's side needs is missing.
    /// [`Error::Runtime`] when ONNX Runtime cannot hold a tensor.
    pub fn bind(&self, batch: &Batch) -> Result<Vec<(String, Value)>, Error> {
        let (b, s) = batch.input_ids.dim();
        let mut feeds = Vec::with_capacity(self.inputs.len());
        let tokens = || batch.source.as_ref().ok_or(Error::NoSource);
        for (name, dtype, source) in &self.inputs {
            let dtype = *dtype;
            let value = match source {
                Feed::Tensor(_) => {
                    let found = batch.tensors.iter().find(|(field, _)| field == name);
                    let (_, tensor) = found.ok_or_else(|| Error::NoTensor { name: name.clone() })?;
                    Value::from_tensor(tensor)?
                }
                Feed::EncoderIds => integers(dtype, &tokens()?.input_ids)?,
                Feed::EncoderMask => integers(dtype, &tokens()?.attention_mask)?,
                Feed::EncoderStates => self.states(batch)?,
                Feed::InputIds => integers(dtype, &batch.input_ids)?,
                Feed::AttentionMask => integers(dtype, &batch.attention_mask)?,
                Feed::TokenTypeIds => match &batch.token_type_ids {
                    Some(ids) => integers(dtype, ids)?,
                    None => Value::zeros(dtype, &[b, s])?,
                },
                Feed::Positions { batched: true } => {
                    integers(dtype, &Array2::from_shape_fn((b, s), |(_, j)| j as i64))?
                }
                Feed::Positions { batched: false } => integer_data(dtype, &[s], (0..s as i64).collect())?,
                Feed::Zeros(sizes) => {
                    let size = |size: &Size| if let Size::Fixed(n) = size { *n } else { b };
                    Value::zeros(dtype, &sizes.iter().map(size).collect::<Vec<_>>())?
                }
            };
            feeds.push((name.clone(), value));
        }
        Ok(feeds)
    }
}

impl Feeds {
    fn states(&self, batch: &Batch) -> Result<Value, Error> {
        self.encoder.as_ref().ok_or(Error::NoEncoder)?.states(batch)
    }
}

/// The plan of a model all of whose inputs are batches of float tensors, as images are.
fn tensors(inputs: &[Input]) -> Option<Feeds> {
    let planned = inputs.iter().map(|input| Some((input.name.clone(), input.dtype, tensor(input)?)));
    let planned: Option<Vec<_>> = planned.collect();
    let batch = inputs.first()?.shape.as_deref().and_then(|dims| fixed_size(dims.first()?));
    let shape = FixedDims { batch, length: None };
    Some(Feeds { inputs: planned?, shape, encoder: None, for_encoder: Vec::new() })
}

/// A batch of float tensors: images, sounds.
fn tensor(input: &Input) -> Option<Feed> {
    let dims = input.shape.as_deref().filter(|dims| dims.len() > 1 && input.dtype == DType::F32)?;
    let named = !input.name.contains("past") && !input.name.contains("mask");
    named.then(|| Feed::Tensor(dims[1..].iter().map(fixed_size).collect()))
}

/// The source of an input of a model that holds encoder and decoder: undecorated names are the encoder's.
fn of_encoder(input: &Input) -> Option<Feed> {
    match (input.name.as_str(), rank(input)) {
        ("input_ids", Some(2)) => Some(Feed::EncoderIds),
        ("attention_mask", Some(2)) => Some(Feed::EncoderMask),
        _ => None,
    }
}

fn source(input: &Input, cache: CacheShape) -> Option<Feed> {
    let integer = matches!(input.dtype, DType::I64 | DType::I32);
    match (input.name.as_str(), rank(input)) {
        ("input_ids" | "decoder_input_ids", Some(2)) if integer => Some(Feed::InputIds),
        ("attention_mask" | "decoder_attention_mask", Some(2)) => Some(Feed::AttentionMask),
        ("encoder_attention_mask", Some(2)) => Some(Feed::EncoderMask),
        ("encoder_hidden_states", Some(3)) => Some(Feed::EncoderStates),
        ("token_type_ids", Some(2)) if integer => Some(Feed::TokenTypeIds),
        ("position_ids", Some(2)) if integer => Some(Feed::Positions { batched: true }),
        ("position_ids" | "cache_position", Some(1)) if integer => Some(Feed::Positions { batched: false }),
        ("use_cache_branch", _) => Some(Feed::Zeros(vec![Size::Fixed(1)])),
        (name, Some(_)) if name.contains("past") => past(input, cache).map(Feed::Zeros),
        (_, Some(0)) if integer => Some(Feed::Zeros(vec![])),
        _ => None,
    }
}

/// An empty key/value cache: [batch, heads, 0, head features] unless the file fixes a size.
fn past(input: &Input, cache: CacheShape) -> Option<Vec<Size>> {
    let dims = input.shape.as_deref()?;
    if dims.len() != 4 {
        return None;
    }
    let open = |axis: usize, name: &str| match axis {
        0 => Some(Size::Batch),
        2 => Some(Size::Fixed(0)),
        _ if name.contains("past") => Some(Size::Fixed(0)),
        1 => cache.heads.map(Size::Fixed),
        _ => cache.head_dim.map(Size::Fixed),
    };
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(_) if axis == 2 => Some(Size::Fixed(0)),
        Dim::Fixed(n) => usize::try_from(*n).ok().map(Size::Fixed),
        Dim::Symbol(name) => open(axis, name),
        Dim::Unknown => open(axis, ""),
    };
    dims.iter().enumerate().map(size).collect()
}

fn integers(dtype: DType, data: &Array2<i64>) -> Result<Value, Error> {
    let (b, s) = data.dim();
    integer_data(dtype, &[b, s], data.iter().copied().collect())
}

fn integer_data(dtype: DType, shape: &[usize], data: Vec<i64>) -> Result<Value, Error> {
    let unusable = || runtime::Error::Tensor { reason: format!("cannot feed integers as `{dtype}`") };
    let tensor = Tensor::from_i64(dtype, shape, &data).ok_or_else(unusable)?;
    Ok(Value::from_tensor(&tensor)?)
}

fn rank(input: &Input) -> Option<usize> {
    input.shape.as_ref().map(Vec::len)
}

fn fixed_size(dim: &Dim) -> Option<usize> {
    if let Dim::Fixed(n) = dim { usize::try_from(*n).ok() } else { None }
}

fn shape_text(input: &Input) -> String {
    let Some(dims) = &input.shape else { return "of unknown rank".to_owned() };
    let text = |dim: &Dim| match dim {
        Dim::Fixed(n) => n.to_string(),
        Dim::Symbol(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    };
    format!("[{}]", dims.iter().map(text).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;

//! Where the value of a graph input comes from, decided by its name, type and shape.

use crate::dtype::DType;
use crate::onnx::{Dim, ValueInfo as Input};
use crate::tensor::Tensor;

/// Sizes of the key/value cache that a file may leave open; read from its config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheShape {
    /// Key/value heads.
    pub heads: Option<usize>,
    /// Features of one head.
    pub head_dim: Option<usize>,
}

/// Where the value of one input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    InputIds,
    AttentionMask,
    TokenTypeIds,
    /// The encoder's token ids.
    EncoderIds,
    /// The encoder's attention mask.
    EncoderMask,
    /// The states that the encoder returns.
    EncoderStates,
    /// A field of the rows, with the sizes of a row; `None` where the model takes any.
    Tensor(Vec<Option<usize>>),
    /// Positions [b, s].
    Positions,
    /// Positions [s], the same for all sequences.
    SharedPositions,
    /// Places in the cache [s]: 0, 1, ...
    CachePositions,
    /// Zeros of a shape that may follow the batch.
    Zeros(Vec<Size>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Fixed(usize),
    Batch,
}

/// A batch of tensors that rows hold by name: images, sounds. `length` is the size of the token axis, if there is one.
///
/// Integers with that size belong to tokens; they are not padded as tokens are, so they are refused.
pub(super) fn tensor(input: &Input, length: Option<&Dim>) -> Option<Feed> {
    let dims = input.shape.as_deref().filter(|dims| dims.len() > 1)?;
    if input.name.contains("past") || input.name.contains("mask") || !Tensor::holds(input.dtype) {
        return None;
    }
    let per_token = |dim: &Dim| *dim == Dim::Unknown || Some(dim) == length;
    if !input.dtype.is_float() && dims[1..].iter().any(per_token) {
        return None;
    }
    Some(Feed::Tensor(dims[1..].iter().map(fixed_size).collect()))
}

/// The source of an input of a model that holds encoder and decoder: undecorated names are the encoder's.
pub(super) fn of_encoder(input: &Input) -> Option<Feed> {
    match (input.name.as_str(), rank(input)) {
        ("input_ids", Some(2)) => Some(Feed::EncoderIds),
        ("attention_mask", Some(2)) => Some(Feed::EncoderMask),
        _ => None,
    }
}

pub(super) fn source(input: &Input, cache: CacheShape) -> Option<Feed> {
    let integer = matches!(input.dtype, DType::I64 | DType::I32);
    match (input.name.as_str(), rank(input)) {
        ("input_ids" | "decoder_input_ids", Some(2)) if integer => Some(Feed::InputIds),
        ("attention_mask" | "decoder_attention_mask", Some(2)) => Some(Feed::AttentionMask),
        ("encoder_attention_mask", Some(2)) => Some(Feed::EncoderMask),
        ("encoder_hidden_states", Some(3)) => Some(Feed::EncoderStates),
        ("token_type_ids", Some(2)) if integer => Some(Feed::TokenTypeIds),
        ("position_ids", Some(2)) if integer => Some(Feed::Positions),
        ("position_ids", Some(1)) if integer => Some(Feed::SharedPositions),
        ("cache_position", Some(1)) if integer => Some(Feed::CachePositions),
        ("use_cache_branch", _) => Some(Feed::Zeros(vec![Size::Fixed(1)])),
        (name, Some(_)) if name.contains("past") => past(input, cache).map(Feed::Zeros),
        (_, Some(0)) if integer => Some(Feed::Zeros(vec![])),
        _ => None,
    }
}

/// An empty key/value cache: [batch, heads, 0, head features] unless the file fixes a size.
pub(super) fn past(input: &Input, cache: CacheShape) -> Option<Vec<Size>> {
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

pub(super) fn rank(input: &Input) -> Option<usize> {
    input.shape.as_ref().map(Vec::len)
}

pub(super) fn fixed_size(dim: &Dim) -> Option<usize> {
    if let Dim::Fixed(n) = dim { usize::try_from(*n).ok() } else { None }
}

pub(super) fn shape_text(input: &Input) -> String {
    let Some(dims) = &input.shape else { return "of unknown rank".to_owned() };
    let text = |dim: &Dim| match dim {
        Dim::Fixed(n) => n.to_string(),
        Dim::Symbol(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    };
    format!("[{}]", dims.iter().map(text).collect::<Vec<_>>().join(", "))
}

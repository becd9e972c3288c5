//! Where the value of a graph input comes from, decided by its name, type and shape.

use crate::calib::{Lengths, Size, marks_padding};
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
    /// The same, with 1 for padding.
    PaddingMask,
    TokenTypeIds,
    /// The encoder's token ids.
    EncoderIds,
    /// The encoder's attention mask.
    EncoderMask,
    /// The states that the encoder returns.
    EncoderStates,
    /// A field of the rows, with the sizes of a row.
    Tensor(Vec<Size>),
    /// An output of the embedder, by its number; or a field of the rows, with the sizes of a row.
    Embedded(usize, Vec<Size>),
    /// Positions [b, s], or so many times the same, [n, b, s].
    Positions(Option<usize>),
    /// Positions [s], the same for all sequences.
    SharedPositions,
    /// Places in the cache [s]: 0, 1, ...
    CachePositions,
    /// Zeros of a shape that may follow the batch.
    Zeros(Vec<Extent>),
}

impl Feed {
    /// A word for where the value comes from.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::InputIds => "token_ids",
            Self::AttentionMask => "attention_mask",
            Self::PaddingMask => "padding_mask",
            Self::TokenTypeIds => "token_types",
            Self::EncoderIds => "encoder_token_ids",
            Self::EncoderMask => "encoder_attention_mask",
            Self::EncoderStates => "encoder_states",
            Self::Tensor(_) => "row",
            Self::Embedded(..) => "embeddings",
            Self::Positions(None) => "positions",
            Self::Positions(Some(_)) => "repeated_positions",
            Self::SharedPositions => "shared_positions",
            Self::CachePositions => "cache_positions",
            Self::Zeros(_) => "zeros",
        }
    }

    /// The sizes of zeros; `None` is that of the batch.
    pub(super) fn zeros(&self) -> Vec<Option<usize>> {
        let Self::Zeros(sizes) = self else { return Vec::new() };
        let size = |size: &Extent| if let Extent::Fixed(size) = size { Some(*size) } else { None };
        sizes.iter().map(size).collect()
    }
}

/// A size of a tensor of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Fixed(usize),
    Batch,
}

/// Names of the mask of the tokens.
const MASKS: [&str; 3] = ["attention_mask", "decoder_attention_mask", "input_mask"];

/// The input whose second axis is that of the tokens, and what gives rows their lengths: token ids, embeddings, or any
/// tensors beside a mask of tokens.
pub(super) fn tokens(inputs: &[Input]) -> Option<(&Input, Lengths)> {
    let named = |name: &str, wanted| inputs.iter().find(|input| input.name == name && rank(input) == Some(wanted));
    let ids = named("decoder_input_ids", 2).or_else(|| named("input_ids", 2));
    let embeddings = || named("decoder_inputs_embeds", 3).or_else(|| named("inputs_embeds", 3));
    let padding = || inputs.iter().find(|input| marks_padding(&input.name) && rank(input) == Some(2));
    let masks = || MASKS.iter().find_map(|name| named(name, 2)).or_else(padding);
    let tensors = || Some((embeddings().or_else(masks)?, Lengths::Tensors));
    ids.map(|ids| (ids, Lengths::Tokens)).or_else(tensors)
}

/// Whether the names of its axes say that the sequence comes before the batch.
pub(super) fn is_sequence_first(input: &Input) -> bool {
    let named = |axis: usize, names: &[&str]| match input.shape.as_deref().and_then(|dims| dims.get(axis)) {
        Some(Dim::Symbol(name)) => names.iter().any(|part| name.to_lowercase().contains(part)),
        _ => false,
    };
    named(1, &["batch"]) && named(0, &["seq", "length", "token", "time"]) && !named(0, &["batch"])
}

/// A batch of tensors that rows hold by name: images, sounds, states, masks of other kinds. `length` is the size of the
/// axis of tokens, if there is one. The first axis is the batch.
pub(super) fn tensor(input: &Input, length: Option<&Dim>) -> Option<Feed> {
    let dims = input.shape.as_deref()?;
    let batch = dims.first().filter(|dim| dims.len() > 1 || (fixed_size(dim).is_none() && Some(*dim) != length));
    let is_cache = input.name.contains("past") && input.name.contains(|c: char| c.is_ascii_digit());
    if batch.is_none() || is_cache || !Tensor::holds(input.dtype) {
        return None;
    }
    let mut sizes: Vec<Size> = Vec::with_capacity(dims.len() - 1);
    for dim in &dims[1..] {
        // A size that is fixed at the number of tokens belongs to tokens only where no other axis is before it.
        let first = sizes.iter().all(|size| *size == Size::Tokens);
        let size = match (dim, length) {
            (Dim::Fixed(_), Some(length)) if dim == length && first => Size::Tokens,
            (Dim::Fixed(_), _) => Size::Fixed(fixed_size(dim)?),
            (_, None) => Size::Any,
            (Dim::Symbol(_), Some(length)) if dim == length => Size::Tokens,
            (Dim::Symbol(name), Some(_)) if !sizes.is_empty() && !is_made_up(name) => Size::Any,
            _ => Size::TokensOrAny,
        };
        sizes.push(size);
    }
    Some(Feed::Tensor(sizes))
}

/// Whether an exporter made up the name of an axis, a new one for each axis of each tensor.
fn is_made_up(name: &str) -> bool {
    name.contains("dynamic_axes") || name.contains("unk__") || name.ends_with("_dim_1") || name.ends_with("_dim_2")
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
        (name, Some(2)) if MASKS.contains(&name) => Some(Feed::AttentionMask),
        (name, Some(2)) if marks_padding(name) => Some(Feed::PaddingMask),
        ("encoder_attention_mask", Some(2)) => Some(Feed::EncoderMask),
        ("encoder_hidden_states", Some(3)) => Some(Feed::EncoderStates),
        ("token_type_ids", Some(2)) if integer => Some(Feed::TokenTypeIds),
        ("position_ids", Some(2)) if integer => Some(Feed::Positions(None)),
        // Of time, height and width, which are the same for text.
        ("position_ids", Some(3)) if integer => {
            let times = input.shape.as_deref().and_then(|dims| fixed_size(dims.first()?));
            times.map(|times| Feed::Positions(Some(times)))
        }
        ("position_ids", Some(1)) if integer => Some(Feed::SharedPositions),
        ("cache_position", Some(1)) if integer => Some(Feed::CachePositions),
        ("use_cache_branch", _) => Some(Feed::Zeros(vec![Extent::Fixed(1)])),
        (name, Some(_)) if name.contains("past") => past(input, cache).map(Feed::Zeros),
        (_, Some(0)) if integer => Some(Feed::Zeros(vec![])),
        _ => None,
    }
}

/// An empty key/value cache: [batch, heads, 0, head features] unless the file fixes a size.
pub(super) fn past(input: &Input, cache: CacheShape) -> Option<Vec<Extent>> {
    let dims = input.shape.as_deref()?;
    if dims.len() != 4 {
        return None;
    }
    let open = |axis: usize, name: &str| match axis {
        0 => Some(Extent::Batch),
        2 => Some(Extent::Fixed(0)),
        _ if name.contains("past") => Some(Extent::Fixed(0)),
        1 => cache.heads.map(Extent::Fixed),
        _ => cache.head_dim.map(Extent::Fixed),
    };
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(_) if axis == 2 => Some(Extent::Fixed(0)),
        Dim::Fixed(n) => usize::try_from(*n).ok().map(Extent::Fixed),
        Dim::Symbol(name) => open(axis, name),
        Dim::Unknown => open(axis, ""),
    };
    dims.iter().enumerate().map(size).collect()
}

/// Whether an input is the state in which a recurrent layer starts, by the names that PyTorch and exports give it.
fn is_state(input: &Input) -> bool {
    const NAMES: [&str; 12] =
        ["h0", "c0", "h_0", "c_0", "hx", "cx", "h_in", "c_in", "state_in", "hidden_state", "cell_state", "rnn_state"];
    const STARTS: [&str; 5] = ["initial_", "conv_state", "ssm_state", "recurrent_state", "lstm_state"];
    let layers_first = input.shape.as_deref().is_some_and(|dims| dims.len() > 1 && fixed_size(&dims[0]).is_some());
    NAMES.contains(&input.name.as_str())
        || STARTS.iter().any(|start| input.name.starts_with(start))
        || (layers_first && input.name == "state")
}

/// Zeros for the state in which a recurrent layer starts, all of whose sizes but the batch are fixed.
pub(super) fn state(input: &Input) -> Option<Feed> {
    if !is_state(input) {
        return None;
    }
    let size = |dim: &Dim| fixed_size(dim).map_or(Extent::Batch, Extent::Fixed);
    let sizes: Vec<Extent> = input.shape.as_deref()?.iter().map(size).collect();
    (sizes.iter().filter(|size| **size == Extent::Batch).count() == 1).then_some(Feed::Zeros(sizes))
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

//! The inputs of one graph: where each value comes from, and the tensors of a batch.

use super::error::Error;
use super::rules::{
    CacheShape, Extent, Feed, fixed_size, is_sequence_first, of_encoder, shape_text, source, state, tensor, tokens,
};
use crate::calib::{Batch, FixedDims, Lengths, Size, TensorInput, Tokens};
use crate::dtype::DType;
use crate::onnx::ValueInfo as Input;
use crate::runtime::{self, Value};
use crate::tensor::Tensor;

/// The inputs of a graph in order, each with the source of its value.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) feeds: Vec<(String, DType, Feed)>,
    /// Batch size and length that the graph's own shape fixes.
    pub(super) fixed: FixedDims,
    /// What gives the rows of the data their lengths.
    pub(super) lengths: Lengths,
    /// The position of the first token, where rows give no positions.
    pub(super) first_position: usize,
}

impl Inputs {
    /// Decides what each graph input is fed.
    ///
    /// # Errors
    /// [`Error::UnknownInput`] names the first input that no rule covers; [`Error::NoTokens`] when no input takes
    /// tokens and the inputs are not all tensors.
    pub(super) fn plan(inputs: &[Input], cache: CacheShape) -> Result<Self, Error> {
        let Some((tokens, lengths)) = tokens(inputs) else {
            return tensors_alone(inputs);
        };
        if is_sequence_first(tokens) {
            return Err(Error::SequenceFirst { name: tokens.name.clone(), shape: shape_text(tokens) });
        }
        let has_decoder = tokens.name.starts_with("decoder_");
        let dims = tokens.shape.as_deref();
        let length = dims.and_then(|dims| dims.get(1));
        let fixed = |axis: usize| dims.and_then(|dims| fixed_size(dims.get(axis)?));
        let mut feeds = Vec::with_capacity(inputs.len());
        for input in inputs {
            if input.name.contains("past") && input.name.contains(".encoder.") {
                return Err(Error::NeedsCache { name: input.name.clone() });
            }
            let encoder = if has_decoder { of_encoder(input) } else { None };
            let feed =
                encoder.or_else(|| source(input, cache)).or_else(|| state(input)).or_else(|| tensor(input, length));
            let unknown =
                || Error::UnknownInput { name: input.name.clone(), dtype: input.dtype, shape: shape_text(input) };
            let feed = feed.ok_or_else(unknown)?;
            check_size(input, &feed)?;
            feeds.push((input.name.clone(), input.dtype, feed));
        }
        let per_token = |feed: &Feed| matches!(feed, Feed::Tensor(sizes) if sizes.contains(&Size::Tokens) || sizes.contains(&Size::TokensOrAny));
        if lengths == Lengths::Tensors && !feeds.iter().any(|(_, _, feed)| per_token(feed)) {
            return tensors_alone(inputs);
        }
        Ok(Self { feeds, fixed: FixedDims { batch: fixed(0), length: fixed(1) }, lengths, first_position: 0 })
    }

    /// The inputs that rows hold by name.
    pub(super) fn tensors(&self) -> Vec<TensorInput> {
        let tensors = self.feeds.iter().filter_map(|(name, dtype, feed)| match feed {
            Feed::Tensor(shape) => Some(TensorInput { name: name.clone(), dtype: *dtype, shape: shape.clone() }),
            _ => None,
        });
        tensors.collect()
    }

    /// The inputs that an embedder fills, or rows hold by name instead.
    pub(super) fn embedded(&self) -> Vec<TensorInput> {
        let embedded = self.feeds.iter().filter_map(|(name, dtype, feed)| match feed {
            Feed::Embedded(_, shape) => Some(TensorInput { name: name.clone(), dtype: *dtype, shape: shape.clone() }),
            _ => None,
        });
        embedded.collect()
    }

    /// The same inputs, of which an embedder fills these: rows are tokens then.
    pub(super) fn with_embedder(mut self, filled: &[(String, usize)]) -> Self {
        for (name, _, feed) in &mut self.feeds {
            let output = filled.iter().find(|(input, _)| input == name).map(|(_, output)| *output);
            if let (Some(output), Feed::Tensor(sizes)) = (output, &*feed) {
                *feed = Feed::Embedded(output, sizes.clone());
            }
        }
        self.lengths = Lengths::Tokens;
        self
    }

    /// The positions of the tokens [batch, length].
    fn positions(&self, tokens: &Tokens) -> Vec<i64> {
        let given = tokens.input("position_ids").is_some();
        let first = if given { 0 } else { self.first_position as i64 };
        tokens.positions().into_iter().map(|position| position + first).collect()
    }

    /// The values of one batch by input name; `states` gives the states of the encoder, and
    /// `embeddings` the outputs of the embedder.
    pub(super) fn bind(
        &self,
        batch: &Batch,
        states: impl Fn() -> Result<Value, Error>,
        embeddings: impl Fn() -> Result<Vec<Value>, Error>,
    ) -> Result<Vec<(String, Value)>, Error> {
        let (b, s) = batch.dim();
        let mut embedded: Vec<Option<Value>> = Vec::new();
        let by_name = |name: &str| batch.tensors.iter().any(|named| named.name == name);
        if self.feeds.iter().any(|(name, _, feed)| matches!(feed, Feed::Embedded(..)) && !by_name(name)) {
            embedded = embeddings()?.into_iter().map(Some).collect();
        }
        let encoder = || batch.encoder.as_ref().ok_or(Error::NoSource);
        let mut values = Vec::with_capacity(self.feeds.len());
        for (name, dtype, feed) in &self.feeds {
            let dtype = *dtype;
            let value = match feed {
                Feed::Tensor(shape) => field(name, dtype, shape, batch)?,
                Feed::Embedded(_, shape) if by_name(name) => field(name, dtype, shape, batch)?,
                Feed::Embedded(output, _) => {
                    let value = embedded.get_mut(*output).and_then(Option::take);
                    cast(value.ok_or_else(|| Error::NoTensor { name: name.clone() })?, dtype)?
                }
                Feed::EncoderStates => states()?,
                Feed::EncoderIds => token_input("input_ids", dtype, encoder()?)?,
                Feed::EncoderMask => mask(dtype, encoder()?)?,
                Feed::InputIds => token_input("input_ids", dtype, &batch.tokens)?,
                Feed::AttentionMask => mask(dtype, &batch.tokens)?,
                Feed::PaddingMask => padding_mask(dtype, &batch.tokens)?,
                Feed::TokenTypeIds if batch.tokens.input("token_type_ids").is_none() => Value::zeros(dtype, &[b, s])?,
                Feed::TokenTypeIds => token_input("token_type_ids", dtype, &batch.tokens)?,
                Feed::Positions(None) => integers(dtype, &[b, s], &self.positions(&batch.tokens))?,
                Feed::Positions(Some(n)) => integers(dtype, &[*n, b, s], &self.positions(&batch.tokens).repeat(*n))?,
                Feed::SharedPositions => integers(dtype, &[s], &shared_positions(name, &batch.tokens, s)?)?,
                Feed::CachePositions => integers(dtype, &[s], &(0..s as i64).collect::<Vec<_>>())?,
                Feed::Zeros(sizes) => {
                    let size = |size: &Extent| if let Extent::Fixed(n) = size { *n } else { b };
                    Value::zeros(dtype, &sizes.iter().map(size).collect::<Vec<_>>())?
                }
            };
            values.push((name.clone(), value));
        }
        Ok(values)
    }
}

/// Largest batch that a model may fix.
const MOST_SEQUENCES: u64 = 1 << 16;
/// Most values that the sizes that a model fixes may add up to: 2 GiB of token ids.
const MOST_VALUES: u64 = 1 << 28;

/// Refuses an input whose fixed sizes are larger than any batch: memory would be taken for all of it.
fn check_size(input: &Input, feed: &Feed) -> Result<(), Error> {
    let too_large = || Error::TooLarge { name: input.name.clone(), shape: shape_text(input) };
    let dims = input.shape.as_deref().unwrap_or_default();
    if dims.len() > 1 && dims.first().and_then(fixed_size).is_some_and(|size| size as u64 > MOST_SEQUENCES) {
        return Err(too_large());
    }
    let sizes: Vec<usize> = match feed {
        Feed::Zeros(sizes) => sizes.iter().map(|size| if let Extent::Fixed(n) = size { *n } else { 1 }).collect(),
        _ => dims.iter().filter_map(fixed_size).collect(),
    };
    let values = sizes.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
    // An empty cache takes no memory, whatever its other sizes are.
    if sizes.contains(&0) || values.is_some_and(|values| values <= MOST_VALUES) {
        return Ok(());
    }
    Err(too_large())
}

/// The inputs of a model that reads no tokens: all are batches of tensors, as images are.
fn tensors_alone(inputs: &[Input]) -> Result<Inputs, Error> {
    let feed = |input: &Input| Some((input.name.clone(), input.dtype, state(input).or_else(|| tensor(input, None))?));
    let feeds: Option<Vec<_>> = inputs.iter().map(feed).collect();
    let Some(feeds) = feeds.filter(|feeds| !feeds.is_empty()) else {
        let listed: Vec<_> = inputs.iter().map(|i| format!("`{}` {}", i.name, shape_text(i))).collect();
        return Err(Error::NoTokens { inputs: listed.join(", ") });
    };
    inputs.iter().zip(&feeds).try_for_each(|(input, (_, _, feed))| check_size(input, feed))?;
    let first = feeds.iter().position(|(_, _, feed)| matches!(feed, Feed::Tensor(_)));
    let batch = first.and_then(|at| fixed_size(inputs[at].shape.as_deref()?.first()?));
    Ok(Inputs { feeds, fixed: FixedDims { batch, length: None }, lengths: Lengths::Nothing, first_position: 0 })
}

/// The tensor that the rows hold for an input.
fn field(name: &str, dtype: DType, shape: &[Size], batch: &Batch) -> Result<Value, Error> {
    let found = batch.tensors.iter().find(|named| named.name == name);
    let tensor = &found.ok_or_else(|| Error::NoTensor { name: name.to_owned() })?.tensor;
    let sizes = tensor.shape().get(1..).unwrap_or_default();
    let (_, length) = batch.dim();
    let is_size = |(size, wanted): (&usize, &Size)| match wanted {
        Size::Fixed(fixed) => size == fixed,
        Size::Tokens => *size == length,
        Size::TokensOrAny | Size::Any => true,
    };
    if tensor.dtype() != dtype || sizes.len() != shape.len() || !sizes.iter().zip(shape).all(is_size) {
        return Err(Error::Mismatch {
            name: name.to_owned(),
            dtype,
            shape: [&["batch".to_owned()], &shape.iter().map(Size::to_string).collect::<Vec<_>>()[..]]
                .concat()
                .join(", "),
            got_dtype: tensor.dtype(),
            got_shape: tensor.shape().to_vec(),
        });
    }
    Ok(Value::from_tensor(tensor)?)
}

/// An input with a value for each token, in the type that the model takes.
fn token_input(name: &str, dtype: DType, tokens: &Tokens) -> Result<Value, Error> {
    let tensor = tokens.input(name).ok_or_else(|| Error::NoTensor { name: name.to_owned() })?;
    match tensor.to_integers() {
        Some(data) if tensor.dtype() != dtype => integers(dtype, tensor.shape(), &data),
        _ => Ok(Value::from_tensor(tensor)?),
    }
}

fn mask(dtype: DType, tokens: &Tokens) -> Result<Value, Error> {
    let (b, s) = tokens.attended.dim();
    let data: Vec<i64> = tokens.attended.iter().copied().map(i64::from).collect();
    integers(dtype, &[b, s], &data)
}

/// A mask in which padding is 1, or, in floating-point numbers, the lowest one: PyTorch adds these to the scores.
fn padding_mask(dtype: DType, tokens: &Tokens) -> Result<Value, Error> {
    let (b, s) = tokens.attended.dim();
    let lowest = match dtype {
        DType::F16 => f64::from(half::f16::MIN),
        dtype if dtype.is_float() => f64::from(f32::MIN),
        _ => {
            return integers(
                dtype,
                &[b, s],
                &tokens.attended.iter().map(|&attended| i64::from(!attended)).collect::<Vec<_>>(),
            );
        }
    };
    let data: Vec<f64> = tokens.attended.iter().map(|&attended| if attended { 0.0 } else { lowest }).collect();
    let unusable = || runtime::Error::Tensor { reason: format!("cannot feed a mask as `{dtype}`") };
    Ok(Value::from_tensor(&Tensor::from_f64(dtype, &[b, s], &data).ok_or_else(unusable)?)?)
}

/// The positions of all sequences of a batch, which must be the same up to the padding at the end.
pub(super) fn shared_positions(name: &str, tokens: &Tokens, length: usize) -> Result<Vec<i64>, Error> {
    let positions = tokens.positions();
    let mut shared: Vec<i64> = Vec::new();
    let sequences = positions.chunks_exact(length.max(1)).zip(tokens.attended.outer_iter()).enumerate();
    for (at, (row, _)) in sequences.filter(|(_, (_, attended))| attended.iter().any(|attended| *attended)) {
        let used = &row[..tokens.used(at)];
        let both = shared.len().min(used.len());
        if shared[..both] != used[..both] {
            return Err(Error::UnlikePositions { name: name.to_owned() });
        }
        shared.extend(&used[both..]);
    }
    let next = shared.last().map_or(0, |last| last + 1);
    shared.extend((next..).take(length - shared.len()));
    Ok(shared)
}

fn integers(dtype: DType, shape: &[usize], data: &[i64]) -> Result<Value, Error> {
    let unusable = || runtime::Error::Tensor { reason: format!("cannot feed integers as `{dtype}`") };
    let tensor = Tensor::from_i64(dtype, shape, data).ok_or_else(unusable)?;
    Ok(Value::from_tensor(&tensor)?)
}

/// An output of an embedder in the type that the decoder takes.
fn cast(value: Value, dtype: DType) -> Result<Value, Error> {
    if value.dtype() == dtype {
        return Ok(value);
    }
    let (shape, data) = value.to_f64()?;
    let unusable = || runtime::Error::Tensor { reason: format!("cannot feed embeddings as `{dtype}`") };
    let tensor = Tensor::from_f64(dtype, &shape, &data).ok_or_else(unusable)?;
    Ok(Value::from_tensor(&tensor)?)
}

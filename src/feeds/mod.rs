//! What a model is fed for one prefill pass over a batch.
//!
//! [`Feeds::plan`] decides once, from the names, types and shapes of the graph inputs, where each value comes from;
//! [`Feeds::bind`] makes the values of one batch.

mod carry;
mod embedder;
mod encoder;
mod error;
mod inputs;
mod rules;

pub use carry::Carry;
pub use embedder::Embedder;
pub use encoder::Encoder;
pub use error::Error;
pub use rules::CacheShape;

use crate::calib::{Batch, FixedDims, Lengths, TensorInput, TokenInputs};
use crate::dtype::DType;
use crate::onnx::ValueInfo as Input;
use crate::runtime::Value;
use embedder::{filled, reads_embeddings};
use inputs::Inputs;
use rules::Feed;
use std::sync::Arc;

/// Where the values of all inputs of a model come from.
#[derive(Clone, Debug)]
pub struct Feeds {
    inputs: Inputs,
    encoder: Option<Arc<Encoder>>,
    embedder: Option<Arc<Embedder>>,
    /// What the rows hold for an encoder that reads no tokens.
    for_encoder: Vec<TensorInput>,
    /// What other parts of the model make, if this is one of several.
    carry: Option<Arc<dyn Carry>>,
}

impl Feeds {
    /// Decides what each graph input is fed.
    ///
    /// # Errors
    /// [`Error::UnknownInput`] names the first input that no rule covers; [`Error::NoTokens`] when no input takes
    /// tokens and the inputs are not all tensors.
    pub fn plan(inputs: &[Input], cache: CacheShape) -> Result<Self, Error> {
        let inputs = Inputs::plan(inputs, cache)?;
        Ok(Self { inputs, encoder: None, embedder: None, for_encoder: Vec::new(), carry: None })
    }

    /// The same feeds where tokens are counted from this position.
    #[must_use]
    pub fn counted_from(mut self, first_position: usize) -> Self {
        self.inputs.first_position = first_position;
        self
    }

    /// Batch size and length that the model's own shape fixes.
    pub fn shape(&self) -> FixedDims {
        self.inputs.fixed
    }

    /// What gives the rows of the data their lengths.
    pub fn lengths(&self) -> Lengths {
        self.inputs.lengths
    }

    /// The inputs beside the token ids; the mask may be that of the encoder.
    pub fn token_inputs(&self) -> TokenInputs {
        let reads = |wanted: &[Feed]| self.inputs.feeds.iter().any(|(_, _, feed)| wanted.contains(feed));
        TokenInputs {
            mask: reads(&[Feed::AttentionMask, Feed::PaddingMask, Feed::EncoderMask]),
            types: reads(&[Feed::TokenTypeIds]),
            positions: self
                .inputs
                .feeds
                .iter()
                .any(|(_, _, feed)| matches!(feed, Feed::Positions(_) | Feed::SharedPositions)),
        }
    }

    /// The inputs that the rows of the data hold by name, those of the encoder included.
    pub fn tensors(&self) -> Vec<TensorInput> {
        let mut tensors = self.inputs.tensors();
        tensors.extend_from_slice(&self.for_encoder);
        tensors
    }

    /// The same feeds beside an encoder with these inputs.
    ///
    /// # Errors
    /// As [`Feeds::plan`].
    pub fn beside(self, encoder: &[Input]) -> Result<Self, Error> {
        let encoder = Inputs::plan(encoder, CacheShape::default())?;
        let for_encoder = if encoder.lengths == Lengths::Tokens { Vec::new() } else { encoder.tensors() };
        Ok(Self { for_encoder, ..self })
    }

    /// The inputs that an embedder fills, unless the rows of the data hold them by name.
    pub fn embedded(&self) -> Vec<TensorInput> {
        self.inputs.embedded()
    }

    /// Whether the model with these inputs reads embeddings in place of tokens.
    pub fn reads_embeddings(inputs: &[Input]) -> bool {
        reads_embeddings(inputs)
    }

    /// The same feeds beside an embedder with these inputs and outputs, for a model with the inputs `decoder`.
    ///
    /// # Errors
    /// [`Error::EmbedsMore`] when the embedder reads more than tokens.
    pub fn embedded_by(self, decoder: &[Input], (inputs, outputs): (&[Input], &[Input])) -> Result<Self, Error> {
        embedder::plan(inputs)?;
        Ok(Self { inputs: self.inputs.with_embedder(&filled(decoder, outputs)), ..self })
    }

    /// The same feeds with the embedder that makes embeddings of tokens.
    #[must_use]
    pub fn with_embedder(self, embedder: Embedder) -> Self {
        Self { embedder: Some(Arc::new(embedder)), ..self }
    }

    /// Whether the model has an encoder and a decoder, and each reads its own part of a row.
    pub fn needs_pairs(&self) -> bool {
        let of_encoder = [Feed::EncoderIds, Feed::EncoderMask, Feed::EncoderStates];
        self.for_encoder.is_empty() && self.inputs.feeds.iter().any(|(_, _, feed)| of_encoder.contains(feed))
    }

    /// Whether the model reads the states of an encoder that is not part of it.
    pub fn needs_encoder(&self) -> bool {
        self.inputs.feeds.iter().any(|(_, _, feed)| *feed == Feed::EncoderStates)
    }

    /// The same feeds with the encoder that makes the states.
    #[must_use]
    pub fn with_encoder(self, encoder: Encoder) -> Self {
        Self { encoder: Some(Arc::new(encoder)), ..self }
    }

    /// The inputs by name and element type, with a word for where the value comes from and the sizes of zeros, of which
    /// `None` is the size of the batch.
    pub fn described(&self) -> impl Iterator<Item = (&str, DType, &'static str, Vec<Option<usize>>)> {
        self.inputs.feeds.iter().map(|(name, dtype, feed)| (name.as_str(), *dtype, feed.word(), feed.zeros()))
    }

    /// Makes the values of one batch, by input name.
    ///
    /// # Errors
    /// [`Error::NoEncoder`], [`Error::NoSource`] or [`Error::NoTensor`] when something is missing, [`Error::Mismatch`]
    /// when a tensor does not fit its input, [`Error::Runtime`] when ONNX Runtime cannot hold a tensor.
    pub fn bind(&self, batch: &Batch) -> Result<Vec<(String, Value)>, Error> {
        let states = || self.encoder.as_ref().ok_or(Error::NoEncoder)?.states(batch);
        let embeddings = || self.embedder.as_ref().ok_or(Error::NoEmbedder)?.outputs(batch);
        let mut values = self.inputs.bind(batch, states, embeddings)?;
        if let Some(carry) = &self.carry {
            values.extend(carry.fed(batch)?);
        }
        Ok(values)
    }

    /// The feeds of the inputs that other models make, the encoder and the embedder, and those of all others.
    pub fn apart(self) -> (Self, Self) {
        let is_made = |feed: &Feed| matches!(feed, Feed::EncoderStates | Feed::Embedded(..));
        let (mut made, mut others) = (self.clone(), self);
        made.inputs.feeds.retain(|(_, _, feed)| is_made(feed));
        others.inputs.feeds.retain(|(_, _, feed)| !is_made(feed));
        (others.encoder, others.embedder) = (None, None);
        (made, others)
    }

    /// The names of the inputs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inputs.feeds.iter().map(|(name, ..)| name.as_str())
    }

    /// The same feeds of these inputs alone.
    #[must_use]
    pub fn only(&self, inputs: &[Input]) -> Self {
        let mut some = self.clone();
        some.inputs.feeds.retain(|(name, ..)| inputs.iter().any(|input| input.name == *name));
        some
    }

    /// The same feeds, and what parts of the model hand on to the one that is fed.
    #[must_use]
    pub fn carried_by(self, carry: Arc<dyn Carry>) -> Self {
        Self { carry: Some(carry), ..self }
    }

    /// The tensors that the part of the model returns for others.
    pub fn returned(&self) -> Vec<String> {
        self.carry.as_ref().map_or_else(Vec::new, |carry| carry.returned())
    }

    /// Takes notice of the outputs of the model as ONNX Runtime infers their types.
    pub fn loaded(&self, outputs: &[Input]) {
        if let Some(carry) = &self.carry {
            carry.loaded(outputs);
        }
    }

    /// Keeps what the part of the model has made of a batch for others, in the order of [`returned`](Self::returned).
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn keep(&self, batch: &Batch, values: &[&Value]) -> Result<(), Error> {
        self.carry.as_ref().map_or(Ok(()), |carry| carry.keep(batch, values))
    }
}

#[cfg(test)]
mod tests;

//! The model that embeds tokens, beside a decoder that reads their embeddings.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::error::Error;
use super::inputs::Inputs;
use super::rules::{CacheShape, Feed, rank};
use crate::calib::{Batch, Lengths};
use crate::onnx::{Model, ValueInfo as Input};
use crate::runtime::{Runtime, Session, SessionOptions, Value};

/// Names of the embeddings of a decoder.
const EMBEDDINGS: [&str; 2] = ["decoder_inputs_embeds", "inputs_embeds"];

/// The inputs of a decoder that an embedder with these outputs fills, each with the number of the output: its embeddings
/// with the first, and others with the output of their name.
pub(super) fn filled(inputs: &[Input], outputs: &[Input]) -> Vec<(String, usize)> {
    let output = |input: &Input| {
        let same = outputs.iter().position(|output| output.name == input.name);
        let embeddings = EMBEDDINGS.contains(&input.name.as_str()) && rank(input) == Some(3);
        let at = same.or(Some(0).filter(|_| embeddings && !outputs.is_empty()))?;
        Some((input.name.clone(), at))
    };
    inputs.iter().filter_map(output).collect()
}

/// Whether a model reads embeddings in place of tokens.
pub(super) fn reads_embeddings(inputs: &[Input]) -> bool {
    inputs.iter().any(|input| EMBEDDINGS.contains(&input.name.as_str()) && rank(input) == Some(3))
}

/// A loaded embedder.
pub struct Embedder {
    session: Mutex<Session>,
    inputs: Inputs,
}

impl Embedder {
    /// Loads the embedder `model`.
    ///
    /// # Errors
    /// [`Error::EmbedsMore`] when it reads more than tokens; [`Error::Runtime`] when it does not load.
    pub fn load(runtime: &Runtime, model: &Model, options: SessionOptions) -> Result<Self, Error> {
        let inputs = plan(&model.inputs())?;
        Ok(Self { session: Mutex::new(Session::load(runtime, model, options)?), inputs })
    }

    /// Its outputs for the tokens of a batch.
    pub(super) fn outputs(&self, batch: &Batch) -> Result<Vec<Value>, Error> {
        let feeds = self.inputs.bind(
            &Batch::of_tokens(batch.tokens.clone()),
            || Err(Error::NoEncoder),
            || Err(Error::NoEmbedder),
        )?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?)
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedder").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

/// What an embedder with these inputs is fed.
///
/// # Errors
/// [`Error::EmbedsMore`] when it reads more than tokens.
pub(super) fn plan(inputs: &[Input]) -> Result<Inputs, Error> {
    let planned = Inputs::plan(inputs, CacheShape::default())?;
    let more = planned.feeds.iter().find(|(_, _, feed)| matches!(feed, Feed::Tensor(_) | Feed::EncoderStates));
    match more {
        Some((name, ..)) => Err(Error::EmbedsMore { name: name.clone() }),
        None if planned.lengths == Lengths::Tokens => Ok(planned),
        None => Err(Error::EmbedsMore { name: inputs.first().map_or(String::new(), |input| input.name.clone()) }),
    }
}

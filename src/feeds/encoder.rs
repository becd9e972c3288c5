//! The encoder beside a decoder, whose states the decoder reads.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::error::Error;
use super::inputs::Inputs;
use super::rules::CacheShape;
use crate::calib::{Batch, Lengths};
use crate::onnx::Model;
use crate::runtime::{Runtime, Session, SessionOptions, Value};

/// A loaded encoder.
pub struct Encoder {
    session: Mutex<Session>,
    inputs: Inputs,
}

impl Encoder {
    /// Loads the encoder `model`, whose first output is its states.
    ///
    /// # Errors
    /// [`Error::UnknownInput`] or [`Error::NoTokens`] when its inputs are not understood; [`Error::Runtime`] when it
    /// does not load.
    pub fn load(runtime: &Runtime, model: &Model, options: SessionOptions) -> Result<Encoder, Error> {
        let inputs = Inputs::plan(&model.inputs(), CacheShape::default())?;
        Ok(Encoder { session: Mutex::new(Session::load(runtime, model, options)?), inputs })
    }

    /// Its states [batch, length, features] for its share of a batch.
    pub(super) fn states(&self, batch: &Batch) -> Result<Value, Error> {
        // An encoder reads the states of no other one.
        let bind = |batch: &Batch| self.inputs.bind(batch, || Err(Error::NoEncoder), || Err(Error::NoEmbedder));
        let feeds = match &batch.encoder {
            Some(tokens) => bind(&Batch::of_tokens(tokens.clone()))?,
            None if self.inputs.lengths == Lengths::Tokens => return Err(Error::NoSource),
            None => bind(batch)?,
        };
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        outputs.into_iter().next().ok_or(Error::NoStates)
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

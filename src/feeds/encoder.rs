//! The encoder beside a decoder: it makes the states that the decoder reads.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::{CacheShape, Error, Feeds, plan};
use crate::calib::{Batch, EncoderTokens};
use crate::onnx::Model;
use crate::runtime::{Runtime, Session, SessionOptions, Value};
use ndarray::Array2;

/// A loaded encoder.
pub struct Encoder {
    session: Mutex<Session>,
    plan: Feeds,
}

impl Encoder {
    /// Loads the encoder `model`, whose first output is its states.
    ///
    /// # Errors
    /// [`Error::UnknownInput`] or [`Error::NoTokens`] when its inputs are not understood; [`Error::Runtime`] when it does
    /// not load.
    pub fn load(runtime: &Runtime, model: &Model, options: SessionOptions) -> Result<Encoder, Error> {
        let plan = plan(&model.inputs(), CacheShape::default())?;
        Ok(Encoder { session: Mutex::new(Session::load(runtime, model, options)?), plan })
    }

    /// Its states [batch, length, features] for its share of a batch.
    pub(super) fn states(&self, batch: &Batch) -> Result<Value, Error> {
        let feeds = match &batch.source {
            Some(source) => self.plan.bind(&tokens(source))?,
            None if self.plan.reads_tokens() => return Err(Error::NoSource),
            None => self.plan.bind(batch)?,
        };
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        outputs.into_iter().next().ok_or(Error::NoStates)
    }
}

fn tokens(source: &EncoderTokens) -> Batch {
    Batch {
        input_ids: source.input_ids.clone(),
        attention_mask: source.attention_mask.clone(),
        token_type_ids: None,
        keep: Array2::from_elem(source.input_ids.dim(), false),
        source: None,
        tensors: Vec::new(),
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("plan", &self.plan).finish_non_exhaustive()
    }
}

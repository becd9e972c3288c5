//! The loss without its gradient.

use super::error::Error;
use crate::onnx::Model;
use crate::runtime::{self, Runtime, Session, SessionOptions, Value};

/// The forward pass and the loss, as a session of its own beside that of the steps. It is loaded once it is asked for, and
/// its weights are read from their files where they are, so that on the CPU the memory holds no second copy of them.
pub(super) struct LossAlone {
    model: Model,
    session: Option<Session>,
    /// Whether a device had no memory for it.
    fits: bool,
}

impl LossAlone {
    pub(super) fn new(model: Model) -> Self {
        Self { model, session: None, fits: true }
    }

    /// The loss of what is fed; nothing if the device has no memory for it, now or before.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the model or fails.
    pub(super) fn of(
        &mut self,
        runtime: &Runtime,
        options: SessionOptions,
        feeds: &[(&str, &Value)],
    ) -> Result<Option<f64>, Error> {
        if !self.fits {
            return Ok(None);
        }
        match self.run(runtime, options, feeds) {
            Err(runtime::Error::OutOfMemory { .. }) => {
                (self.session, self.fits) = (None, false);
                Ok(None)
            }
            loss => Ok(Some(loss?)),
        }
    }

    fn run(
        &mut self,
        runtime: &Runtime,
        options: SessionOptions,
        feeds: &[(&str, &Value)],
    ) -> Result<f64, runtime::Error> {
        let session = match &mut self.session {
            Some(session) => session,
            empty => empty.insert(Session::load_in_place(runtime, &self.model, options)?),
        };
        let needed = session.inputs();
        let is_needed = |(name, _): &&(&str, &Value)| needed.iter().any(|input| input == name);
        let outputs = session.run(feeds.iter().filter(is_needed).copied())?;
        let loss = outputs.first().map(Value::as_f32).transpose()?.and_then(|(_, values)| values.first().copied());
        Ok(loss.map_or(f64::NAN, f64::from))
    }
}

//! The state of a capture as bytes, exact to the last bit.

use super::error::Error;
use crate::runtime::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The bytes of a state.
pub(super) fn encode(state: &impl Serialize) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(state).map_err(|_| Error::State { what: "it has no encoding" })
}

/// The state that the bytes hold.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        _ => Err(Error::State { what: "it is no state of this kind of capture" }),
    }
}

/// Fails where the parts of a state are not those of this run.
pub(super) fn ensure(fits: bool, what: &'static str) -> Result<(), Error> {
    if fits { Ok(()) } else { Err(Error::State { what }) }
}

/// A tensor of 32-bit floats.
#[derive(Serialize, Deserialize)]
pub(super) struct Floats {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Floats {
    /// A copy of a tensor, wherever it is.
    pub(super) fn of(value: &Value) -> Result<Self, Error> {
        let host = value.to_host()?;
        let (shape, data) = host.as_f32()?;
        Ok(Self { shape, data: data.to_vec() })
    }

    /// The tensor in host memory that ONNX Runtime has allocated, as it does for its own; of the same shape as another.
    pub(super) fn to_value(&self, like: &Value) -> Result<Value, Error> {
        ensure(self.shape == like.shape(), "a matrix has another size")?;
        self.to_any()
    }

    /// The same, of any shape.
    pub(super) fn to_any(&self) -> Result<Value, Error> {
        ensure(self.shape.iter().product::<usize>() == self.data.len(), "a matrix has another size")?;
        Ok(Value::f32(&self.shape, self.data.clone())?.to_host()?)
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }
}

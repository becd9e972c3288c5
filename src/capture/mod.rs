//! Principal components of layer inputs, from batches: one trait, two implementations.
//!
//! [`Sketch`] summarises activations in the graph and reads small matrices back; [`Outputs`] reads the activations back
//! and decomposes them on the host, as the paper does. [`Sharded`] divides the batches among several of them.

mod axes;
mod compare;
mod error;
mod interface;
mod matching;
mod method;
mod outputs;
mod passing;
mod probe;
mod rows;
mod saved;
mod setup;
mod shard;
mod sharded;
mod sketch;

pub(crate) use axes::may_turn;
pub use error::Error;
pub(crate) use error::{and_others, overflows};
pub use interface::{Capture, Events, PartCapture, Timing};
pub use matching::{Demands, Unlearnt};
pub use method::CaptureMethod;
pub use outputs::Outputs;
pub use passing::Passing;
pub(crate) use probe::foreseen;
pub use setup::Setup;
pub use shard::Known;
pub use sharded::Sharded;
pub use sketch::{Sketch, Strategy};

/// Whether bytes are a state that [`Capture::save`] gives, of whatever model and groups.
pub(crate) fn is_state(bytes: &[u8]) -> bool {
    sketch::is_state(bytes) || outputs::is_state(bytes) || sharded::is_state(bytes)
}

//! Training an adapter inside an ONNX model, on plain ONNX Runtime.
//!
//! One graph computes the loss of a batch and its gradient ([`gradient`](crate::gradient)), another the step of AdamW. The
//! parameters stay on the device.

mod check;
mod error;
mod evaluation;
mod heads;
mod kind;
mod loss;
mod measure;
mod optimizer;
mod parameters;
mod recompute;
mod scale;
mod schedule;
mod state;
mod step;
mod targets;
mod trainer;

pub use error::Error;
pub(crate) use heads::Heads;
pub use kind::Loss;
pub(crate) use loss::logits;
pub(crate) use loss::{LOSS, ROWS, SCALE, TARGETS, WEIGHT};
pub use measure::measure;
pub use optimizer::AdamW;
pub(crate) use optimizer::names::{MEAN, OUTPUTS, SETTINGS, SQUARE, THETA};
pub(crate) use parameters::Parameters;
pub use recompute::Recompute;
pub(crate) use scale::Scale;
pub use schedule::Schedule;
pub(crate) use state::Snapshot;
pub(crate) use step::{Forward, Memory, Step};
pub(crate) use targets::Targets;
pub(crate) use trainer::{Trainer, feeds};

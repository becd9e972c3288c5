//! Adapters as other programs write them.

mod error;
pub mod graph;
pub mod onnx_adapter;
pub mod peft;

pub use error::Error;

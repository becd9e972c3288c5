//! File formats of adapters, one module a format: its reader, its writer, and the constants that both use.

mod error;
mod flatbuffer;
pub mod gguf;
pub(crate) mod matrix;
pub mod mlx;
pub mod onnx_adapter;
pub mod peft;
pub mod spliced;
mod tensors;

pub use error::{Defect, Error, Feature, Mismatch, NotAMatrix};

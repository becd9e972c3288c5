//! The `.onnx_adapter` file that ONNX Runtime's LoraAdapter loads: named matrices.
//!
//! Source: onnxruntime/lora/adapter_format/adapter_schema.fbs, format version 1. `A` is [in, rank] and `B` [rank, out],
//! with the scale `alpha / rank` in `B`.

mod read;
mod write;

pub use read::read;
pub use write::bytes;

/// File name that `splice` gives it.
pub const ADAPTER: &str = "adapter.onnx_adapter";
/// The only version of the format.
const FORMAT_VERSION: i32 = 1;

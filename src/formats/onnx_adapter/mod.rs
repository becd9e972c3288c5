//! The `.onnx_adapter` file that ONNX Runtime's LoraAdapter loads: named matrices.
//!
//! Source: onnxruntime/lora/adapter_format/adapter_schema.fbs, format version 1. `A` is [in, rank] and `B` [rank, out],
//! with the scale `alpha / rank` in `B`.

mod read;
mod write;

pub use read::read;
pub use write::{bytes, bytes_of_part};

/// File name that `splice` gives it.
pub const ADAPTER: &str = "adapter.onnx_adapter";
/// The only version of the format.
const FORMAT_VERSION: i32 = 1;
/// The `model_version` of a file that is a part of an adapter: its trained modules (`modules_to_save`) are in the model
/// beside it. ONNX Runtime leaves this number to those who write files.
const OF_PART: i32 = i32::from_le_bytes(*b"PART");

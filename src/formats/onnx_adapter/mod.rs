//! The `.onnx_adapter` file that ONNX Runtime's LoraAdapter loads: a flatbuffer with named tensors.
//!
//! Schema: onnxruntime/lora/adapter_format/adapter_schema.fbs, format version 1.

mod read;
mod write;

pub use read::read;
pub use write::bytes;

use flatbuffers::VOffsetT;

/// File name that `splice` gives it.
pub const ADAPTER: &str = "adapter.onnx_adapter";
/// The identifier at byte 4 of the file.
const IDENTIFIER: &str = "TORT";
/// The only version of the format.
const FORMAT_VERSION: i32 = 1;
/// The number of 32-bit floats in the ONNX schema, which the format uses.
const FLOAT: i32 = 1;

/// Slots of the table `Adapter`; `adapter_version` and `model_version` between them stay 0.
const ADAPTER_FORMAT_VERSION: VOffsetT = 4;
/// The tensors.
const ADAPTER_PARAMETERS: VOffsetT = 10;
/// Slots of the table `Parameter`.
const PARAMETER_NAME: VOffsetT = 4;
/// Dimensions.
const PARAMETER_DIMS: VOffsetT = 6;
/// Element type.
const PARAMETER_DATA_TYPE: VOffsetT = 8;
/// Little-endian values in row-major order, at a multiple of 8 bytes.
const PARAMETER_RAW_DATA: VOffsetT = 10;

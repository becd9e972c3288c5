//! The `.onnx_adapter` file that ONNX Runtime's LoraAdapter loads: a flatbuffer with named tensors.
//!
//! Schema: onnxruntime/lora/adapter_format/adapter_schema.fbs, format version 1.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, VOffsetT, Vector, WIPOffset};
use ndarray::Array2;

/// File name that `splice` gives it.
pub const ADAPTER: &str = "adapter.onnx_adapter";
/// The identifier at byte 4 of the file.
pub const IDENTIFIER: &str = "TORT";
/// The only version of the format.
pub const FORMAT_VERSION: i32 = 1;
/// The number of 32-bit floats in the ONNX schema, which the format uses.
pub const FLOAT: i32 = 1;

/// Slots of the table `Adapter`; `adapter_version` and `model_version` between them stay 0.
pub const ADAPTER_FORMAT_VERSION: VOffsetT = 4;
/// The tensors.
pub const ADAPTER_PARAMETERS: VOffsetT = 10;
/// Slots of the table `Parameter`.
pub const PARAMETER_NAME: VOffsetT = 4;
/// Dimensions.
pub const PARAMETER_DIMS: VOffsetT = 6;
/// Element type.
pub const PARAMETER_DATA_TYPE: VOffsetT = 8;
/// Little-endian values in row-major order, at a multiple of 8 bytes.
pub const PARAMETER_RAW_DATA: VOffsetT = 10;

/// The file with these matrices, in their order.
pub fn bytes(parameters: &[(String, Array2<f32>)]) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let tables: Vec<WIPOffset<UnionWIPOffset>> =
        parameters.iter().map(|(name, values)| parameter(&mut builder, name, values)).collect();
    let list = builder.create_vector(&tables);
    let table = builder.start_table();
    builder.push_slot_always(ADAPTER_PARAMETERS, list);
    builder.push_slot_always(ADAPTER_FORMAT_VERSION, FORMAT_VERSION);
    let root = builder.end_table(table);
    builder.finish(root, Some(IDENTIFIER));
    builder.finished_data().to_vec()
}

fn parameter<'b>(builder: &mut FlatBufferBuilder<'b>, name: &str, values: &Array2<f32>) -> WIPOffset<UnionWIPOffset> {
    let data = raw(builder, values);
    let dims = builder.create_vector(&[values.nrows() as i64, values.ncols() as i64]);
    let name = builder.create_string(name);
    let table = builder.start_table();
    builder.push_slot_always(PARAMETER_NAME, name);
    builder.push_slot_always(PARAMETER_DIMS, dims);
    builder.push_slot_always(PARAMETER_DATA_TYPE, FLOAT);
    builder.push_slot_always(PARAMETER_RAW_DATA, data);
    builder.end_table(table).as_union_value()
}

/// A vector of bytes that begins at a multiple of 8: built of 64-bit words, the last one filled up with zeros, and then
/// given its length in bytes.
fn raw<'b>(builder: &mut FlatBufferBuilder<'b>, values: &Array2<f32>) -> WIPOffset<Vector<'b, u64>> {
    let values: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
    let words = values.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32);
    let words: Vec<u64> = words.collect();
    builder.start_vector::<u64>(words.len());
    for word in words.iter().rev() {
        builder.push(*word);
    }
    builder.end_vector(4 * values.len())
}

//! Writes an `.onnx_adapter` file.

use super::{
    ADAPTER_FORMAT_VERSION, ADAPTER_PARAMETERS, FLOAT, FORMAT_VERSION, IDENTIFIER, PARAMETER_DATA_TYPE, PARAMETER_DIMS,
    PARAMETER_NAME, PARAMETER_RAW_DATA,
};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, Vector, WIPOffset};
use ndarray::Array2;

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

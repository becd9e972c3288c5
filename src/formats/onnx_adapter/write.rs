//! Writes an `.onnx_adapter` file.

use super::{FORMAT_VERSION, OF_PART};
use crate::dtype::DType;
use crate::formats::flatbuffer::onnx_adapter::{AdapterBuilder, Parameter, ParameterBuilder, finish_adapter_buffer};
use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};
use ndarray::Array2;

/// The file with these named matrices, in their order.
pub fn bytes(parameters: &[(String, Array2<f32>)]) -> Vec<u8> {
    written(parameters, 0)
}

/// The same for a model that holds other modules of the adapter (`modules_to_save`). [`read`](super::read()) refuses such a
/// file, which without that model is another adapter.
pub fn bytes_of_part(parameters: &[(String, Array2<f32>)]) -> Vec<u8> {
    written(parameters, OF_PART)
}

fn written(parameters: &[(String, Array2<f32>)], model_version: i32) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let tables = parameters.iter().map(|(name, values)| parameter(&mut builder, name, values));
    let tables: Vec<WIPOffset<Parameter<'_>>> = tables.collect();
    let list = builder.create_vector(&tables);
    let mut adapter = AdapterBuilder::new(&mut builder);
    adapter.add_parameters(list);
    adapter.add_format_version(FORMAT_VERSION);
    adapter.add_model_version(model_version);
    let root = adapter.finish();
    finish_adapter_buffer(&mut builder, root);
    builder.finished_data().to_vec()
}

fn parameter<'b>(builder: &mut FlatBufferBuilder<'b>, name: &str, values: &Array2<f32>) -> WIPOffset<Parameter<'b>> {
    let data = raw_data(builder, values);
    let dims = builder.create_vector(&[values.nrows() as i64, values.ncols() as i64]);
    let name = builder.create_string(name);
    let mut parameter = ParameterBuilder::new(builder);
    parameter.add_name(name);
    parameter.add_dims(dims);
    parameter.add_data_type(DType::F32.to_onnx());
    parameter.add_raw_data(data);
    parameter.finish()
}

/// A vector of bytes that begins at a multiple of 8, which ONNX Runtime requires: built of 64-bit words, the last one
/// filled up with zeros, and then given its length in bytes.
fn raw_data<'b>(builder: &mut FlatBufferBuilder<'b>, values: &Array2<f32>) -> WIPOffset<Vector<'b, u8>> {
    let values: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
    let words = values.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32);
    let words: Vec<u64> = words.collect();
    builder.start_vector::<u64>(words.len());
    for word in words.iter().rev() {
        builder.push(*word);
    }
    WIPOffset::new(builder.end_vector::<u64>(4 * values.len()).value())
}

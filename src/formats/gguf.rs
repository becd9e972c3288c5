//! The GGUF file that llama.cpp loads as a LoRA adapter.
//!
//! `A` is [rank, in] and `B` [out, rank], row by row, under the names that llama.cpp gives the weights. There is one alpha
//! for all modules, which llama.cpp divides by the rank of each. Source: docs/gguf.md of ggml (version 3),
//! `src/llama-adapter.cpp` and `convert_lora_to_gguf.py` of llama.cpp (2026).

use super::Error;
use super::tensors::encode;
use crate::adapter::{Adapter, AdapterModule};
use crate::dtype::DType;
use crate::hub::llama_cpp::Layout;
use ndarray::Array2;

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
/// Multiple of bytes at which the data of a tensor begins.
const ALIGNMENT: usize = 32;

/// Numbers of the types of values. Source: `gguf_type` in ggml.
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;

/// The numbers of an element type: of tensors (`ggml_type`), and of files that are mostly of it (`llama_ftype`).
fn numbers(dtype: DType) -> Option<(u32, u32)> {
    match dtype {
        DType::F32 => Some((0, 0)),
        DType::F16 => Some((1, 1)),
        DType::BF16 => Some((30, 32)),
        _ => None,
    }
}

/// The file of an adapter whose modules have one alpha, for a model that llama.cpp lays out like this.
///
/// # Errors
/// [`Error::NoPlace`] lists the modules that llama.cpp does not have; [`Error::Overflow`] when a value is too large for
/// `dtype`, [`Error::DType`] for types other than f32, f16 and bf16.
pub fn bytes(adapter: &Adapter, layout: &Layout, dtype: DType) -> Result<Vec<u8>, Error> {
    let (tensor_type, file_type) = numbers(dtype).ok_or(Error::DType { dtype })?;
    let tensors = tensors(adapter, layout, dtype)?;
    let alpha = adapter.modules.first().map_or(1.0, |module| module.alpha);
    let mut file = Writer { bytes: MAGIC.to_vec() };
    file.u32(VERSION);
    file.u64(tensors.len());
    file.u64(5);
    for (key, text) in
        [("general.type", "adapter"), ("general.architecture", layout.architecture), ("adapter.type", "lora")]
    {
        file.key(key, STRING);
        file.text(text);
    }
    file.key("general.file_type", U32);
    file.u32(file_type);
    file.key("adapter.lora.alpha", F32);
    file.bytes.extend((alpha as f32).to_le_bytes());
    let mut offset = 0;
    for tensor in &tensors {
        file.text(&tensor.name);
        file.u32(2);
        // The fastest axis comes first.
        file.u64(tensor.columns);
        file.u64(tensor.rows);
        file.u32(tensor_type);
        file.u64(offset);
        offset += tensor.data.len().next_multiple_of(ALIGNMENT);
    }
    for tensor in &tensors {
        file.pad();
        file.bytes.extend(&tensor.data);
    }
    file.pad();
    Ok(file.bytes)
}

struct Tensor {
    name: String,
    rows: usize,
    columns: usize,
    data: Vec<u8>,
}

fn tensors(adapter: &Adapter, layout: &Layout, dtype: DType) -> Result<Vec<Tensor>, Error> {
    let unknown = adapter.modules.iter().filter(|module| layout.tensor(&module.module).is_none());
    let unknown: Vec<String> = unknown.map(|module| module.module.clone()).collect();
    if !unknown.is_empty() {
        return Err(Error::NoPlace { architecture: layout.architecture, modules: unknown });
    }
    let mut tensors = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        let Some(name) = layout.tensor(&module.module) else { continue };
        let mut add = |end: &str, values: &Array2<f32>| {
            let (rows, columns) = values.dim();
            let data = encode(&module.module, values, dtype)?;
            tensors.push(Tensor { name: format!("{name}.weight.{end}"), rows, columns, data });
            Ok::<_, Error>(())
        };
        add("lora_a", &module.a)?;
        add("lora_b", &ordered(module, layout)?)?;
    }
    Ok(tensors)
}

/// `B` with its rows in the order in which llama.cpp keeps those of the weight.
fn ordered(module: &AdapterModule, layout: &Layout) -> Result<Array2<f32>, Error> {
    let b = module.b();
    match layout.heads(&module.module) {
        Some(heads) if b.nrows().is_multiple_of(2 * heads) => Ok(interleaved(&b, heads)),
        Some(heads) => Err(Error::Heads { module: module.module.clone(), heads, rows: b.nrows() }),
        None => Ok(b),
    }
}

/// In each head, the two halves of the rows taken in turn: transformers rotates row i with row i + half, llama.cpp with
/// the next one.
fn interleaved(b: &Array2<f32>, heads: usize) -> Array2<f32> {
    let half = b.nrows() / heads / 2;
    Array2::from_shape_fn(b.dim(), |(row, column)| {
        let (head, inside) = (row / (2 * half), row % (2 * half));
        b[[head * 2 * half + inside % 2 * half + inside / 2, column]]
    })
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: usize) {
        self.bytes.extend((value as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len());
        self.bytes.extend(text.as_bytes());
    }

    fn key(&mut self, name: &str, kind: u32) {
        self.text(name);
        self.u32(kind);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_are_taken_in_turn() {
        let rows = Array2::from_shape_fn((8, 1), |(row, _)| row as f32);
        let order = |heads| interleaved(&rows, heads).into_raw_vec_and_offset().0;
        assert_eq!(order(1), [0., 4., 1., 5., 2., 6., 3., 7.]);
        assert_eq!(order(2), [0., 2., 1., 3., 4., 6., 5., 7.]);
    }
}

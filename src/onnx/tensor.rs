//! Views of stored tensors: shape, element type and bytes.

use std::borrow::Cow;
use std::fs::File;
use std::sync::Arc;

use memmap2::Mmap;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

use super::Error;
use crate::dtype::DType;

/// A stored tensor of a model: an initializer or the value of a `Constant` node.
#[derive(Clone, Copy)]
pub struct Tensor<'m> {
    proto: &'m TensorProto,
    files: &'m Files,
}

/// The mapped files of tensor data, by the location that tensors give.
pub(crate) type Files = std::collections::BTreeMap<String, Arc<Mmap>>;

impl<'m> Tensor<'m> {
    pub(crate) fn new(proto: &'m TensorProto, files: &'m Files) -> Self {
        Tensor { proto, files }
    }

    /// The tensor's name; may be empty for the value of a `Constant` node.
    pub fn name(&self) -> &'m str {
        &self.proto.name
    }

    /// Its dimensions; empty for a scalar.
    pub fn dims(&self) -> &'m [i64] {
        &self.proto.dims
    }

    /// Its element type; [`DType::Undefined`] for a type that this version does not know.
    pub fn dtype(&self) -> DType {
        DType::from_onnx(self.proto.data_type)
    }

    /// Its little-endian bytes in row-major order, borrowed from the file where the encoding allows it.
    ///
    /// `None` for strings and for element types that this version does not know.
    pub fn bytes(&self) -> Option<Cow<'m, [u8]>> {
        let tensor = self.proto;
        if is_external(tensor) {
            let (location, offset, length) = external_entries(tensor).ok()?;
            let start = usize::try_from(offset).ok()?;
            let length = length.or_else(|| byte_size(tensor))?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            return self.files.get(location)?.get(start..end).map(Cow::Borrowed);
        }
        if !tensor.raw_data.is_empty() {
            return Some(Cow::Borrowed(&tensor.raw_data));
        }
        typed_bytes(tensor).map(Cow::Owned)
    }

    /// The location of its bytes in a file, relative to the folder of the model, and the first of them; `None` if they
    /// are in no file.
    pub(super) fn place(&self) -> Option<(&'m str, u64)> {
        let external = is_external(self.proto).then(|| external_entries(self.proto).ok())??;
        Some((external.0, external.1))
    }

    /// Its values in row-major order, rounded to `f32`; `None` for types that are not
    /// [decodable](DType::is_decodable).
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        self.dtype().decode(&self.bytes()?)
    }
}

impl Tensor<'_> {
    /// Advises the system that the bytes, if they are in a file, will not be read again soon, so that reading many
    /// tensors one after the other keeps few of them in memory.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Some((file, start, length)) = self.mapped() {
            // SAFETY: the mapping is of a file and only read, so dropped pages come back as they were.
            let _ = unsafe { file.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
        }
    }

    /// Advises the system to read the bytes, if they are in a file: they will be needed soon.
    pub fn prefetch(&self) {
        #[cfg(unix)]
        if let Some((file, start, length)) = self.mapped() {
            let _ = file.advise_range(memmap2::Advice::WillNeed, start, length);
        }
    }

    /// Where the bytes are in a mapped file, if they are in one.
    #[cfg(unix)]
    fn mapped(&self) -> Option<(&Mmap, usize, usize)> {
        let (location, offset, length) = is_external(self.proto).then(|| external_entries(self.proto).ok())??;
        let file = self.files.get(location)?;
        let (start, length) = (usize::try_from(offset).ok()?, usize::try_from(length?).ok()?);
        start.checked_add(length).is_some_and(|end| end <= file.len()).then_some((file, start, length))
    }
}

/// The bytes of a tensor whose values are in the typed fields.
fn typed_bytes(tensor: &TensorProto) -> Option<Vec<u8>> {
    let narrow = |width: usize| {
        let bytes = tensor.int32_data.iter().flat_map(move |value| value.to_le_bytes().into_iter().take(width));
        bytes.collect::<Vec<u8>>()
    };
    let dtype = DType::from_onnx(tensor.data_type);
    let bytes = match dtype {
        DType::F32 | DType::C64 => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F64 | DType::C128 => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect(),
        _ => narrow(dtype.bits()?.div_ceil(8)),
    };
    Some(bytes)
}

/// Whether the tensor's data is in a file that its entries name.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location.enum_value() == Ok(DataLocation::EXTERNAL)
}

/// Location, offset and length of external data.
pub(crate) fn external_entries(tensor: &TensorProto) -> Result<(&str, u64, Option<u64>), Error> {
    let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &*entry.value);
    let wrong = |key: &'static str, value: &str| Error::ExternalEntry {
        tensor: tensor.name.clone(),
        key,
        value: if value.is_empty() { "missing".to_owned() } else { format!("`{value}`") },
    };
    let number = |key: &'static str| match entry(key) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_| wrong(key, value)),
    };
    let location = entry("location").filter(|value| !value.is_empty()).ok_or_else(|| wrong("location", ""))?;
    Ok((location, number("offset")?.unwrap_or(0), number("length")?))
}

/// Checks that a tensor in the model's own file has as much data as its shape and element type need.
pub(crate) fn check_inline(tensor: &TensorProto) -> Result<(), Error> {
    let dtype = DType::from_onnx(tensor.data_type);
    let Some(bits) = dtype.bits() else { return Ok(()) };
    let got = match tensor.raw_data.len() {
        0 => typed_values(tensor, dtype) as u64 * (bits.div_ceil(8)) as u64,
        raw => raw as u64,
    };
    match byte_size(tensor) {
        Some(expected) if expected == got => Ok(()),
        // A shape that no file could fill.
        expected => {
            let expected = expected.unwrap_or(u64::MAX);
            Err(Error::TensorSize { tensor: tensor.name.clone(), expected, got })
        }
    }
}

/// Number of values in the typed field of a tensor; two share one where they have less than 8 bits.
fn typed_values(tensor: &TensorProto, dtype: DType) -> usize {
    match dtype {
        DType::F32 => tensor.float_data.len(),
        DType::C64 => tensor.float_data.len() / 2,
        DType::F64 => tensor.double_data.len(),
        DType::C128 => tensor.double_data.len() / 2,
        DType::I64 => tensor.int64_data.len(),
        DType::U32 | DType::U64 => tensor.uint64_data.len(),
        _ => tensor.int32_data.len(),
    }
}

/// Bytes that the tensor's shape and element type need; `None` for strings and unknown types, and for shapes that are
/// too large or negative.
pub(crate) fn byte_size(tensor: &TensorProto) -> Option<u64> {
    let count = tensor.dims.iter().try_fold(1u64, |count, dim| count.checked_mul(u64::try_from(*dim).ok()?))?;
    Some(count.checked_mul(DType::from_onnx(tensor.data_type).bits()? as u64)?.div_ceil(8))
}

/// Maps a file for reading.
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is only read. As with every memory-mapped file, the program relies on nobody truncating the
    // file while it runs.
    unsafe { Mmap::map(file) }
}

/// Calls `visit` with every stored tensor of the model, subgraphs and local functions included.
pub(crate) fn visit_tensors(
    model: &mut ModelProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), Error>,
) -> Result<(), Error> {
    for function in &mut model.functions {
        visit_attributes(&mut function.attribute_proto, visit)?;
        visit_nodes(&mut function.node, visit)?;
    }
    for training in &mut model.training_info {
        for graph in [&mut training.initialization, &mut training.algorithm] {
            graph.as_mut().map_or(Ok(()), |graph| visit_graph(graph, visit))?;
        }
    }
    model.graph.as_mut().map_or(Ok(()), |graph| visit_graph(graph, visit))
}

type Visited = Result<(), Error>;

fn visit_graph(graph: &mut GraphProto, visit: &mut impl FnMut(&mut TensorProto) -> Visited) -> Visited {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.sparse_initializer.iter_mut().try_for_each(|sparse| visit_sparse(sparse, visit))?;
    visit_nodes(&mut graph.node, visit)
}

fn visit_sparse(sparse: &mut SparseTensorProto, visit: &mut impl FnMut(&mut TensorProto) -> Visited) -> Visited {
    sparse.values.as_mut().map_or(Ok(()), &mut *visit)?;
    sparse.indices.as_mut().map_or(Ok(()), &mut *visit)
}

fn visit_nodes(nodes: &mut [NodeProto], visit: &mut impl FnMut(&mut TensorProto) -> Visited) -> Visited {
    nodes.iter_mut().try_for_each(|node| visit_attributes(&mut node.attribute, visit))
}

fn visit_attributes(attributes: &mut [AttributeProto], visit: &mut impl FnMut(&mut TensorProto) -> Visited) -> Visited {
    for attribute in attributes {
        attribute.t.as_mut().map_or(Ok(()), &mut *visit)?;
        attribute.tensors.iter_mut().try_for_each(&mut *visit)?;
        attribute.sparse_tensor.as_mut().map_or(Ok(()), |sparse| visit_sparse(sparse, visit))?;
        attribute.sparse_tensors.iter_mut().try_for_each(|sparse| visit_sparse(sparse, visit))?;
        attribute.g.as_mut().map_or(Ok(()), |graph| visit_graph(graph, visit))?;
        attribute.graphs.iter_mut().try_for_each(|graph| visit_graph(graph, visit))?;
    }
    Ok(())
}

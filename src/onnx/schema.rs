//! Which fields of the ONNX messages hold messages, and what other files look like.

use onnx_protobuf::{
    AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto, TypeProto, ValueInfoProto,
};

/// A message type of the ONNX schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
    Training,
    Annotation,
    Value,
    Type,
    TensorType,
    ElementType,
    MapType,
    Shape,
    /// A message whose fields are all scalars.
    Leaf,
}

impl Kind {
    /// The message type of field `number`, if that field holds a message.
    pub(crate) fn child(self, number: u32) -> Option<Kind> {
        let child = match (self, number) {
            (Kind::Model, 7) | (Kind::Attribute, 6 | 11) | (Kind::Training, 1 | 2) => Kind::Graph,
            (Kind::Model, 20) => Kind::Training,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
            (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::SparseTensor, 1 | 2) => Kind::Tensor,
            (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::SparseTensor,
            (Kind::Graph, 11..=13) | (Kind::Function, 12) => Kind::Value,
            (Kind::Graph, 14) => Kind::Annotation,
            (Kind::Attribute, 14 | 15) | (Kind::Value, 2) => Kind::Type,
            (Kind::Type, 1 | 8) => Kind::TensorType,
            (Kind::Type, 4 | 9) => Kind::ElementType,
            (Kind::Type, 5) => Kind::MapType,
            (Kind::ElementType, 1) | (Kind::MapType, 2) => Kind::Type,
            (Kind::TensorType, 2) => Kind::Shape,
            (Kind::Model, 8 | 14)
            | (Kind::Graph, 16)
            | (Kind::Node, 9)
            | (Kind::Tensor, 3 | 13 | 16)
            | (Kind::Function, 9 | 14)
            | (Kind::Training, 3 | 4)
            | (Kind::Annotation, 2)
            | (Kind::Value, 4)
            | (Kind::Shape, 1) => Kind::Leaf,
            _ => return None,
        };
        Some(child)
    }

    /// Bytes of memory that a decoded message takes, without its contents.
    pub(crate) fn memory(self) -> usize {
        match self {
            Kind::Node => size_of::<NodeProto>(),
            Kind::Attribute => size_of::<AttributeProto>(),
            Kind::Tensor => size_of::<TensorProto>(),
            Kind::Value => size_of::<ValueInfoProto>(),
            Kind::Type | Kind::TensorType | Kind::ElementType | Kind::MapType => size_of::<TypeProto>(),
            Kind::Leaf => size_of::<StringStringEntryProto>(),
            _ => size_of::<GraphProto>(),
        }
    }

    /// What error messages call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Model => "the model",
            Kind::Graph => "a graph",
            Kind::Node => "a node",
            Kind::Attribute => "an attribute",
            Kind::Tensor => "a tensor",
            Kind::SparseTensor => "a sparse tensor",
            Kind::Function => "a local function",
            Kind::Training => "training information",
            Kind::Annotation => "a quantization annotation",
            Kind::Value => "a value's name and type",
            Kind::Type | Kind::TensorType | Kind::ElementType | Kind::MapType => "a type",
            Kind::Shape => "a shape",
            Kind::Leaf => "an entry",
        }
    }
}

/// What a file that is not ONNX is, with an article, where its first bytes show it.
pub(crate) fn other_format(bytes: &[u8]) -> Option<&'static str> {
    let known =
        MAGIC.iter().find(|(offset, magic, _)| bytes.get(*offset..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, what)) = known {
        return Some(what);
    }
    let text = &bytes[..bytes.len().min(256)];
    let printable = |byte: &u8| byte.is_ascii_graphic() || b" \t\r\n".contains(byte);
    if bytes.is_empty() {
        Some("an empty file")
    } else if is_safetensors(bytes) {
        Some("a safetensors file")
    } else if is_web_page(text) {
        Some("a web page")
    } else if text.iter().all(printable) {
        Some("a text file")
    } else {
        None
    }
}

/// Formats that start with fixed bytes: the offset of the bytes, the bytes and the format.
const MAGIC: [(usize, &[u8], &str); 9] = [
    (0, b"version https://git-lfs", "a git-lfs pointer"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x80\x02", "a PyTorch pickle"),
    (0, b"\x80\x04", "a PyTorch pickle"),
    (4, b"ORTM", "an ORT format model"),
    (4, b"ODTC", "an ONNX Runtime training checkpoint"),
];

fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let length = u64::from_le_bytes(*head);
    rest.first() == Some(&b'{') && length <= rest.len() as u64
}

fn is_web_page(text: &[u8]) -> bool {
    let text = text.trim_ascii_start().to_ascii_lowercase();
    text.starts_with(b"<!doctype html") || text.starts_with(b"<html")
}

//! What is added to a model, as protobuf messages.

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    AttributeProto, NodeProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

use super::Dim;
use super::attributes;
use super::patch::{Attribute, Constant, Input, Node, OptionalInput, Stored};
use crate::dtype::DType;

pub(super) fn input_proto(input: &Input) -> ValueInfoProto {
    let dims: Vec<Dim> = input.shape.iter().map(|dim| dim.map_or(Dim::Unknown, Dim::Fixed)).collect();
    value_proto(&input.name, input.dtype, &dims)
}

pub(super) fn optional_input_proto(input: &OptionalInput) -> ValueInfoProto {
    value_proto(&input.name, dtype(&input.default), &input.shape)
}

pub(super) fn value_proto(name: &str, dtype: DType, shape: &[Dim]) -> ValueInfoProto {
    let dimension = |dim: &Dim| {
        let mut dimension = Dimension::new();
        match dim {
            Dim::Fixed(size) => dimension.set_dim_value(*size),
            Dim::Symbol(symbol) => dimension.set_dim_param(symbol.clone()),
            Dim::Unknown => {}
        }
        dimension
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dimension).collect(), ..Default::default() };
    let kind = tensor_type(dtype, Some(shape));
    ValueInfoProto { name: name.to_owned(), type_: Some(kind).into(), ..Default::default() }
}

pub(super) fn tensor_type(dtype: DType, shape: Option<TensorShapeProto>) -> TypeProto {
    let mut kind = TypeProto::new();
    let tensor = kind.mut_tensor_type();
    tensor.elem_type = dtype.to_onnx();
    tensor.shape = shape.into();
    kind
}

fn dtype(constant: &Constant) -> DType {
    match constant {
        Constant::F32(..) => DType::F32,
        Constant::I64(..) => DType::I64,
        Constant::Bytes(dtype, ..) => *dtype,
        Constant::Stored(stored) => stored.dtype,
    }
}

pub(super) fn constant_proto(name: &str, constant: &Constant) -> TensorProto {
    let (dims, raw_data) = match constant {
        Constant::F32(dims, values) => (dims, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Constant::I64(dims, values) => (dims, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Constant::Bytes(_, dims, bytes) => (dims, bytes.clone()),
        Constant::Stored(stored) => return stored_proto(name, stored),
    };
    let data_type = dtype(constant).to_onnx();
    TensorProto { name: name.to_owned(), dims: dims.clone(), data_type, raw_data, ..Default::default() }
}

pub(super) fn stored_proto(name: &str, stored: &Stored) -> TensorProto {
    let Stored { dtype, shape, location, offset, length } = stored;
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value, ..Default::default() };
    let external_data = vec![
        entry("location", location.clone()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
    TensorProto {
        name: name.to_owned(),
        dims: shape.clone(),
        data_type: dtype.to_onnx(),
        data_location: DataLocation::EXTERNAL.into(),
        external_data,
        ..Default::default()
    }
}

pub(super) fn node_proto(node: &Node) -> NodeProto {
    let (domain, op) = node.op.split_once(':').unwrap_or(("", node.op));
    NodeProto {
        name: node.name.clone(),
        op_type: op.to_owned(),
        domain: domain.to_owned(),
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        attribute: node.attributes.iter().map(|(name, value)| attribute_proto(name, value)).collect(),
        ..Default::default()
    }
}

pub(super) fn attribute_proto(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..Default::default() };
    proto.type_ = match value {
        Attribute::Int(value) => {
            proto.i = *value;
            AttributeType::INT
        }
        Attribute::Ints(values) => {
            proto.ints.clone_from(values);
            AttributeType::INTS
        }
        Attribute::Float(value) => {
            proto.f = *value;
            AttributeType::FLOAT
        }
        Attribute::Text(value) => {
            proto.s = value.as_bytes().to_vec();
            AttributeType::STRING
        }
    }
    .into();
    attributes::complete(&mut proto);
    proto
}

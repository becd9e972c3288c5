//! Small graphs, node by node.

use eva_onnx::onnx::Model;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};
use std::fs;
use std::path::Path;

/// A graph and its versions.
pub struct Net {
    pub graph: GraphProto,
    pub opset: i64,
    pub ir_version: i64,
}

impl Net {
    pub fn empty(opset: i64) -> Self {
        Self { graph: GraphProto { name: "g".to_owned(), ..Default::default() }, opset, ir_version: 8 }
    }

    /// Writes and opens it.
    pub fn save(&self, dir: &Path) -> Model {
        let set =
            |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version, ..Default::default() };
        let model = ModelProto {
            ir_version: self.ir_version,
            graph: Some(self.graph.clone()).into(),
            opset_import: vec![set("", self.opset), set("com.microsoft", 1)],
            ..Default::default()
        };
        fs::write(dir.join("m.onnx"), model.write_to_bytes().unwrap()).unwrap();
        Model::open(dir.join("m.onnx")).unwrap()
    }
}

/// A graph input or output; a negative size is dynamic.
pub fn value(name: &str, element: i32, shape: &[i64]) -> ValueInfoProto {
    let dim = |size: &i64| {
        let mut dim = Dimension::new();
        if *size >= 0 {
            dim.set_dim_value(*size);
        }
        dim
    };
    let mut kind = TypeProto::new();
    kind.mut_tensor_type().elem_type = element;
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect(), ..Default::default() };
    kind.mut_tensor_type().shape = Some(shape).into();
    ValueInfoProto { name: name.to_owned(), type_: Some(kind).into(), ..Default::default() }
}

pub fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        name: name.to_owned(),
        op_type: op.to_owned(),
        input: owned(inputs),
        output: owned(outputs),
        ..Default::default()
    }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), type_: AttributeType::INT.into(), i: value, ..Default::default() }
}

/// 32-bit floats between -1 and 1.
pub fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let count = dims.iter().product::<i64>();
    let values = (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0);
    let raw_data = values.flat_map(f32::to_le_bytes).collect();
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 1, raw_data, ..Default::default() }
}

pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 7, raw_data, ..Default::default() }
}

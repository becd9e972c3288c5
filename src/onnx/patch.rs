//! An edit of a graph as a value, and its only `apply`.

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto};

use super::{Error, Model, check};

/// Element types that graph edits can declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit signed integer.
    I64,
}

/// A node to add, in plain terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Node name, unique in the graph.
    pub name: String,
    /// Operator type, for example `MatMul`.
    pub op: &'static str,
    /// Tensors read, by name; an empty name is an absent optional input.
    pub inputs: Vec<String>,
    /// Tensors produced, by name.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// An attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A single integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A single float.
    Float(f32),
}

/// A constant tensor to add as an initializer.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `f32` values in row-major order with their shape.
    F32(Vec<i64>, Vec<f32>),
    /// `i64` values in row-major order with their shape.
    I64(Vec<i64>, Vec<i64>),
}

/// A graph input to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Tensor name.
    pub name: String,
    /// Element type.
    pub element: ElementType,
    /// Dimensions; `None` is dynamic.
    pub shape: Vec<Option<i64>>,
}

/// A graph output to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Tensor name.
    pub name: String,
    /// Element type; `None` when the tensor is typed by the graph already.
    pub element: Option<ElementType>,
}

/// An edit of the main graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// Nodes appended after the existing ones, in topological order.
    pub nodes: Vec<Node>,
    /// Initializers by name.
    pub constants: Vec<(String, Constant)>,
    /// Graph inputs appended after the existing ones.
    pub inputs: Vec<Input>,
    /// Graph outputs appended after the existing ones.
    pub outputs: Vec<Output>,
    /// Drop every existing graph output, so that nodes only they need are not run.
    pub drop_outputs: bool,
}

impl Model {
    /// The model with `patch` applied to its main graph; `self` stays as it is.
    ///
    /// Fails when the patch takes a name that exists, reads or returns a tensor that does not exist, returns a graph
    /// input, or leaves the graph without outputs. Versions of the format and of the operator sets are left alone.
    pub fn apply(&self, patch: &Patch) -> Result<Model, Error> {
        let before = self.graph();
        check::patch(before, patch)?;
        let mut proto = self.proto.clone();
        append(proto.graph.mut_or_insert_default(), patch);
        let model = self.with(proto);
        check::after(before, model.graph())?;
        Ok(model)
    }
}

fn append(graph: &mut GraphProto, patch: &Patch) {
    if patch.drop_outputs {
        graph.output.clear();
    }
    let outputs: Vec<_> = patch.outputs.iter().map(|output| output_proto(graph, output)).collect();
    graph.output.extend(outputs);
    graph.input.extend(patch.inputs.iter().map(input_proto));
    graph.initializer.extend(patch.constants.iter().map(|(name, value)| constant_proto(name, value)));
    graph.node.extend(patch.nodes.iter().map(node_proto));
}

fn output_proto(graph: &GraphProto, output: &Output) -> ValueInfoProto {
    let element = output.element.map(|element| tensor_type(element, None));
    let known = || {
        let value = graph.value_info.iter().chain(&graph.output).find(|value| value.name == output.name);
        value.and_then(|value| value.type_.as_ref().cloned())
    };
    ValueInfoProto { name: output.name.clone(), type_: element.or_else(known).into(), ..Default::default() }
}

fn input_proto(input: &Input) -> ValueInfoProto {
    let dimension = |dim: &Option<i64>| {
        let mut dimension = Dimension::new();
        if let Some(size) = dim {
            dimension.set_dim_value(*size);
        }
        dimension
    };
    let shape = TensorShapeProto { dim: input.shape.iter().map(dimension).collect(), ..Default::default() };
    let kind = tensor_type(input.element, Some(shape));
    ValueInfoProto { name: input.name.clone(), type_: Some(kind).into(), ..Default::default() }
}

fn tensor_type(element: ElementType, shape: Option<TensorShapeProto>) -> TypeProto {
    let mut kind = TypeProto::new();
    let tensor = kind.mut_tensor_type();
    tensor.elem_type = element_code(element);
    tensor.shape = shape.into();
    kind
}

fn element_code(element: ElementType) -> i32 {
    match element {
        ElementType::F32 => 1,
        ElementType::I64 => 7,
    }
}

fn constant_proto(name: &str, constant: &Constant) -> TensorProto {
    let (element, dims, raw_data) = match constant {
        Constant::F32(dims, values) => {
            (ElementType::F32, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        Constant::I64(dims, values) => {
            (ElementType::I64, dims, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
    };
    let data_type = element_code(element);
    TensorProto { name: name.to_owned(), dims: dims.clone(), data_type, raw_data, ..Default::default() }
}

fn node_proto(node: &Node) -> NodeProto {
    NodeProto {
        name: node.name.clone(),
        op_type: node.op.to_owned(),
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        attribute: node.attributes.iter().map(|(name, value)| attribute_proto(name, value)).collect(),
        ..Default::default()
    }
}

fn attribute_proto(name: &str, value: &Attribute) -> AttributeProto {
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
    }
    .into();
    proto
}

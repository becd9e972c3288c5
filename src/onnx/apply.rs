//! Carrying out a [`Patch`].

use std::collections::HashMap;

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

use crate::dtype::DType;

use super::attributes;
use super::patch::{Change, Copied, Edit, OptionalInput, Stored, Takeover};
use super::{Attribute, Constant, Dim, Error, Input, Model, Node, Output, Patch, check, graph};

impl Model {
    /// The model with `patch` applied; `self` stays as it is.
    ///
    /// Fails when the patch takes a name that exists, reads, changes or returns what does not exist, returns a graph
    /// input, or leaves the graph without outputs. Versions of the format and of the operator sets change only if the
    /// patch says so.
    pub fn apply(&self, patch: &Patch) -> Result<Model, Error> {
        let before = self.graph();
        check::patch(before, patch)?;
        let mut proto = self.proto.clone();
        let graph = proto.graph.mut_or_insert_default();
        append(graph, patch)?;
        patch.values.iter().try_for_each(|(name, value)| replace(graph, name, value))?;
        patch.changes.iter().try_for_each(|change| alter(graph, change))?;
        patch.takeovers.iter().try_for_each(|takeover| take_over(graph, takeover))?;
        describe(&mut proto, patch);
        let model = self.with(proto);
        check::after(before, model.graph())?;
        Ok(model)
    }
}

fn append(graph: &mut GraphProto, patch: &Patch) -> Result<(), Error> {
    let copies = copies(graph, patch)?;
    graph.value_info.extend(patch.types.iter().map(|(name, dtype, shape)| value_proto(name, *dtype, shape)));
    let outputs: Vec<_> = patch.outputs.iter().map(|output| output_proto(graph, output)).collect();
    if patch.drop_outputs {
        graph.output.clear();
    }
    graph.output.extend(outputs);
    graph.input.extend(patch.inputs.iter().map(input_proto));
    graph.input.extend(patch.optional_inputs.iter().map(optional_input_proto));
    let defaults = patch.optional_inputs.iter().map(|input| (&input.name, &input.default));
    let constants = patch.constants.iter().map(|(name, value)| (name, value));
    graph.initializer.extend(constants.chain(defaults).map(|(name, value)| constant_proto(name, value)));
    graph.node.splice(0..0, patch.leading.iter().map(node_proto));
    graph.node.extend(patch.nodes.iter().map(|node| match copies.get(node.name.as_str()) {
        Some(copy) => copy.clone(),
        None => node_proto(node),
    }));
    Ok(())
}

/// The new nodes that do what existing ones do, by name.
fn copies<'p>(graph: &GraphProto, patch: &'p Patch) -> Result<HashMap<&'p str, NodeProto>, Error> {
    if patch.copies.is_empty() {
        return Ok(HashMap::new());
    }
    let outputs = graph.node.iter().flat_map(|node| node.output.iter().map(move |tensor| (tensor.as_str(), node)));
    let producers: HashMap<&str, &NodeProto> = outputs.collect();
    let nodes: HashMap<&str, &Node> = patch.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let mut copies = HashMap::new();
    for Copied { node: name, produces } in &patch.copies {
        let unknown = || Error::ProducerUnknown { tensor: produces.clone() };
        let original = producers.get(produces.as_str()).ok_or_else(unknown)?;
        let Some(node) = nodes.get(name.as_str()) else { continue };
        let copy = NodeProto {
            name: node.name.clone(),
            input: node.inputs.clone(),
            output: node.outputs.clone(),
            ..(*original).clone()
        };
        copies.insert(name.as_str(), copy);
    }
    Ok(copies)
}

fn replace(graph: &mut GraphProto, name: &str, value: &Stored) -> Result<(), Error> {
    let unknown = || Error::ValueUnknown { tensor: name.to_owned() };
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name).ok_or_else(unknown)?;
    if tensor.dims != value.shape || tensor.data_type != value.dtype.to_onnx() {
        return Err(Error::ValueDiffers { tensor: name.to_owned() });
    }
    *tensor = stored_proto(name, value);
    Ok(())
}

fn alter(graph: &mut GraphProto, change: &Change) -> Result<(), Error> {
    let nodes = &mut inner(graph, &change.subgraph)?.node;
    let at = producer(nodes, &change.produces)?;
    let node = &mut nodes[at];
    match &change.edit {
        Edit::Read { input, tensor } => match node.input.get_mut(*input) {
            Some(name) => tensor.clone_into(name),
            None => {
                node.input.resize(*input, String::new());
                node.input.push(tensor.clone());
            }
        },
        Edit::Produce(tensor) => node.output.push(tensor.clone()),
        Edit::Set(name, value) => {
            node.attribute.retain(|attribute| attribute.name != *name);
            node.attribute.push(attribute_proto(name, value));
        }
        Edit::Name(name) => node.name.clone_from(name),
    }
    Ok(())
}

fn take_over(graph: &mut GraphProto, takeover: &Takeover) -> Result<(), Error> {
    let nodes = &mut inner(graph, &takeover.subgraph)?.node;
    let at = producer(nodes, &takeover.tensor)?;
    for output in nodes[at].output.iter_mut().filter(|output| **output == takeover.tensor) {
        output.clone_from(&takeover.raw);
    }
    nodes.splice(at + 1..at + 1, takeover.nodes.iter().map(node_proto));
    Ok(())
}

/// The subgraph at `path`.
fn inner<'g>(graph: &'g mut GraphProto, path: &[String]) -> Result<&'g mut GraphProto, Error> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(graph);
    };
    for node in &mut graph.node {
        let NodeProto { name, op_type, attribute, .. } = node;
        for attribute in attribute {
            let steps = graph::steps(name, op_type, attribute);
            let found = steps.iter().position(|found| found == step);
            let graphs = attribute.g.as_mut().into_iter().chain(&mut attribute.graphs);
            if let Some(graph) = found.and_then(|number| graphs.into_iter().nth(number)) {
                return inner(graph, rest);
            }
        }
    }
    Err(Error::SubgraphUnknown { step: step.clone() })
}

fn producer(nodes: &[NodeProto], tensor: &str) -> Result<usize, Error> {
    let found = nodes.iter().position(|node| node.output.iter().any(|output| output == tensor));
    found.ok_or_else(|| Error::ProducerUnknown { tensor: tensor.to_owned() })
}

fn describe(proto: &mut ModelProto, patch: &Patch) {
    for (key, value) in &patch.metadata {
        proto.metadata_props.retain(|entry| entry.key != *key);
        let entry = StringStringEntryProto { key: key.clone(), value: value.clone(), ..Default::default() };
        proto.metadata_props.push(entry);
    }
    proto.ir_version = patch.ir_version.unwrap_or(proto.ir_version);
    for set in &mut proto.opset_import {
        if let Some(version) = patch.opset.filter(|_| set.domain.is_empty() || set.domain == "ai.onnx") {
            set.version = version;
        }
    }
}

fn output_proto(graph: &GraphProto, output: &Output) -> ValueInfoProto {
    let given = output.dtype.map(|dtype| tensor_type(dtype, None));
    let known = || {
        let value = graph.value_info.iter().chain(&graph.output).find(|value| value.name == output.name);
        value.and_then(|value| value.type_.as_ref().cloned())
    };
    ValueInfoProto { name: output.name.clone(), type_: given.or_else(known).into(), ..Default::default() }
}

fn input_proto(input: &Input) -> ValueInfoProto {
    let dims: Vec<Dim> = input.shape.iter().map(|dim| dim.map_or(Dim::Unknown, Dim::Fixed)).collect();
    value_proto(&input.name, input.dtype, &dims)
}

fn optional_input_proto(input: &OptionalInput) -> ValueInfoProto {
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

fn tensor_type(dtype: DType, shape: Option<TensorShapeProto>) -> TypeProto {
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

fn constant_proto(name: &str, constant: &Constant) -> TensorProto {
    let (dims, raw_data) = match constant {
        Constant::F32(dims, values) => (dims, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Constant::I64(dims, values) => (dims, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Constant::Bytes(_, dims, bytes) => (dims, bytes.clone()),
        Constant::Stored(stored) => return stored_proto(name, stored),
    };
    let data_type = dtype(constant).to_onnx();
    TensorProto { name: name.to_owned(), dims: dims.clone(), data_type, raw_data, ..Default::default() }
}

fn stored_proto(name: &str, stored: &Stored) -> TensorProto {
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

fn node_proto(node: &Node) -> NodeProto {
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
        Attribute::Text(value) => {
            proto.s = value.as_bytes().to_vec();
            AttributeType::STRING
        }
    }
    .into();
    attributes::complete(&mut proto);
    proto
}

//! Carrying out a [`Patch`].

use std::collections::HashMap;

use onnx_protobuf::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};

use super::patch::{Copied, Stored};
use super::protos::{
    constant_proto, input_proto, node_proto, optional_input_proto, stored_proto, tensor_type, value_proto,
};
use super::{Error, Model, Node, Output, Patch, check, edits};

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
        replace(graph, &patch.values)?;
        edits::carry_out(graph, patch)?;
        describe(&mut proto, patch);
        let model = self.with(proto);
        check::after(before, model.graph())?;
        Ok(model)
    }
}

fn append(graph: &mut GraphProto, patch: &Patch) -> Result<(), Error> {
    let copies = copies(graph, patch)?;
    graph.value_info.extend(patch.types.iter().map(|(name, dtype, shape)| value_proto(name, *dtype, shape)));
    let outputs = output_protos(graph, &patch.outputs);
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

/// Gives initializers new values.
fn replace(graph: &mut GraphProto, values: &[(String, Stored)]) -> Result<(), Error> {
    if values.is_empty() {
        return Ok(());
    }
    let mut tensors: HashMap<String, &mut TensorProto> = HashMap::new();
    for tensor in &mut graph.initializer {
        tensors.entry(tensor.name.clone()).or_insert(tensor);
    }
    for (name, value) in values {
        let tensor = tensors.get_mut(name).ok_or_else(|| Error::ValueUnknown { tensor: name.clone() })?;
        if tensor.dims != value.shape || tensor.data_type != value.dtype.to_onnx() {
            return Err(Error::ValueDiffers { tensor: name.clone() });
        }
        **tensor = stored_proto(name, value);
    }
    Ok(())
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

/// New outputs; those without a type have the one that the graph declares.
fn output_protos(graph: &GraphProto, outputs: &[Output]) -> Vec<ValueInfoProto> {
    let mut declared: HashMap<&str, &ValueInfoProto> = HashMap::new();
    if outputs.iter().any(|output| output.dtype.is_none()) {
        for value in graph.value_info.iter().chain(&graph.output) {
            declared.entry(&value.name).or_insert(value);
        }
    }
    let proto = |output: &Output| {
        let given = output.dtype.map(|dtype| tensor_type(dtype, None));
        let known = || declared.get(output.name.as_str()).and_then(|value| value.type_.as_ref().cloned());
        ValueInfoProto { name: output.name.clone(), type_: given.or_else(known).into(), ..Default::default() }
    };
    outputs.iter().map(proto).collect()
}

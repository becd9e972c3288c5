//! Attributes whose value is zero or empty.
//!
//! The ONNX schema is proto2, where a field that is set is written whatever its value. The runtime here is proto3, which
//! leaves out zeros: readers that ask whether the field is set, as the onnx package does, would miss the value.

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, GraphProto, ModelProto, NodeProto};

// Field numbers of AttributeProto.
const F: u32 = 2;
const I: u32 = 3;
const S: u32 = 4;

/// Makes every value of the model's attributes explicit, those in subgraphs and local functions included.
pub(super) fn complete_model(model: &mut ModelProto) {
    for function in &mut model.functions {
        function.attribute_proto.iter_mut().for_each(complete);
        complete_nodes(&mut function.node);
    }
    for training in &mut model.training_info {
        training.initialization.as_mut().map(complete_graph);
        training.algorithm.as_mut().map(complete_graph);
    }
    model.graph.as_mut().map(complete_graph);
}

fn complete_graph(graph: &mut GraphProto) {
    complete_nodes(&mut graph.node);
}

fn complete_nodes(nodes: &mut [NodeProto]) {
    nodes.iter_mut().flat_map(|node| &mut node.attribute).for_each(complete);
}

/// Makes the value of the attribute explicit. An attribute that stands for one of a local function has no value.
pub(super) fn complete(attribute: &mut AttributeProto) {
    attribute.g.as_mut().map(complete_graph);
    attribute.graphs.iter_mut().for_each(complete_graph);
    if !attribute.ref_attr_name.is_empty() {
        return;
    }
    // Fields that the runtime does not know are written as they are.
    let kind = attribute.type_.enum_value();
    let (i, f, s) = (attribute.i, attribute.f, attribute.s.is_empty());
    let fields = attribute.special_fields.mut_unknown_fields();
    for field in [F, I, S] {
        fields.remove(field);
    }
    match kind {
        Ok(AttributeType::INT) if i == 0 => fields.add_varint(I, 0),
        // Negative zero is left out too.
        Ok(AttributeType::FLOAT) if f == 0.0 => fields.add_fixed32(F, f.to_bits()),
        Ok(AttributeType::STRING) if s => fields.add_length_delimited(S, Vec::new()),
        _ => {}
    }
}

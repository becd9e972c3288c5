//! A part of a model as a model of its own.

use std::collections::{BTreeSet, HashMap, HashSet};

use onnx_protobuf::{GraphProto, ValueInfoProto};

use super::check::each_name_of;
use super::model::value;
use super::protos::value_proto;
use super::{Error, Model, ValueInfo, check};

/// A part of the main graph.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Indices of its nodes, ascending.
    pub nodes: &'a [usize],
    /// Graph inputs that it has although none of its nodes may read them.
    pub inputs: &'a [String],
    /// What it is fed in place of the nodes that produce it, with the types to declare.
    pub fed: &'a [ValueInfo],
    /// The tensors that it returns.
    pub returned: &'a [String],
}

impl Model {
    /// The nodes of `part` alone, with the graph inputs and the stored tensors that they read. Tensors keep their names,
    /// and weights stay in their files.
    ///
    /// # Errors
    /// When a node would read what nothing produces.
    pub fn extract(&self, part: Part<'_>) -> Result<Model, Error> {
        let before = self.graph();
        let mut proto = self.proto.clone();
        let graph = proto.graph.mut_or_insert_default();
        graph.node = part.nodes.iter().filter_map(|index| before.node.get(*index).cloned()).collect();
        let mut named: HashSet<&str> = part.returned.iter().chain(part.inputs).map(String::as_str).collect();
        part.nodes.iter().filter_map(|index| before.node.get(*index)).for_each(|node| {
            each_name_of(node, &mut |name| {
                named.insert(name);
            });
        });
        let fed: HashSet<&str> = part.fed.iter().map(|info| info.name.as_str()).collect();
        keep_named(graph, &named);
        graph.input.retain(|input| !fed.contains(input.name.as_str()));
        graph.value_info.retain(|info| !fed.contains(info.name.as_str()));
        graph.input.extend(part.fed.iter().map(declared));
        graph.output = part.returned.iter().map(|name| described(before, name)).collect();
        let model = self.with(proto);
        check::after(before, model.graph())?;
        Ok(model)
    }

    /// The nodes that the outputs depend on, with the graph inputs and the stored tensors that they read: ONNX Runtime runs
    /// others as well.
    ///
    /// # Errors
    /// When a node reads what nothing produces.
    pub fn needed(&self) -> Result<Model, Error> {
        let graph = self.graph();
        let results = graph.node.iter().enumerate();
        let results = results.flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)));
        let producers: HashMap<&str, usize> = results.filter(|(name, _)| !name.is_empty()).collect();
        let returned: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
        let mut waiting: Vec<usize> =
            returned.iter().filter_map(|name| producers.get(name.as_str())).copied().collect();
        let mut nodes = BTreeSet::new();
        while let Some(index) = waiting.pop() {
            if nodes.insert(index) {
                each_name_of(&graph.node[index], &mut |name| waiting.extend(producers.get(name)));
            }
        }
        let nodes: Vec<usize> = nodes.into_iter().collect();
        self.extract(Part { nodes: &nodes, inputs: &[], fed: &[], returned: &returned })
    }

    /// The declared type of a tensor of the main graph.
    pub fn declared(&self, name: &str) -> Option<ValueInfo> {
        let graph = self.graph();
        let mut all = graph.value_info.iter().chain(&graph.input).chain(&graph.output);
        all.find(|info| info.name == name).map(value)
    }
}

/// Drops what is stored, fed and described for nodes that are not there.
fn keep_named(graph: &mut GraphProto, named: &HashSet<&str>) {
    let has = |name: &str| named.contains(name);
    graph.initializer.retain(|tensor| has(&tensor.name));
    graph.sparse_initializer.retain(|sparse| sparse.values.as_ref().is_some_and(|values| has(&values.name)));
    graph.input.retain(|input| has(&input.name));
    graph.value_info.retain(|info| has(&info.name));
    graph.quantization_annotation.retain(|annotation| has(&annotation.tensor_name));
}

fn declared(info: &ValueInfo) -> ValueInfoProto {
    let mut declared = value_proto(&info.name, info.dtype, info.shape.as_deref().unwrap_or_default());
    if info.shape.is_none() {
        declared.type_.mut_or_insert_default().mut_tensor_type().shape.take();
    }
    declared
}

/// An output with the type that the graph declares, if it does.
fn described(graph: &GraphProto, name: &str) -> ValueInfoProto {
    let known = graph.value_info.iter().chain(&graph.output).find(|info| info.name == name);
    let type_ = known.map(|info| info.type_.clone()).unwrap_or_default();
    ValueInfoProto { name: name.to_owned(), type_, ..Default::default() }
}

//! Inlining `If` nodes whose condition is known.

use std::collections::HashSet;

use onnx_protobuf::{GraphProto, NodeProto};

use super::check::all_names;
use super::{Error, Model, Violation, check};

impl Model {
    /// The model in which every `If` of the main graph whose condition is one of these graph inputs is replaced by its
    /// `else_branch`, which is what runs while they are false; nothing if there is no such node.
    ///
    /// Tensors and nodes keep their names. Graph inputs that nothing reads any more are dropped. The other branches are
    /// lost, so the result is for running only.
    pub fn assuming_false(&self, conditions: &[&str]) -> Result<Option<Model>, Error> {
        let before = self.graph();
        let mut proto = self.proto.clone();
        let graph = proto.graph.mut_or_insert_default();
        let mut found = false;
        while let Some(at) = graph.node.iter().position(|node| is_decided(node, conditions)) {
            inline(graph, at)?;
            found = true;
        }
        if !found {
            return Ok(None);
        }
        drop_unread_inputs(graph);
        let model = self.with(proto);
        check::after(before, model.graph())?;
        Ok(Some(model))
    }
}

fn is_decided(node: &NodeProto, conditions: &[&str]) -> bool {
    let condition = node.input.first().is_some_and(|name| conditions.contains(&name.as_str()));
    node.op_type == "If" && condition && else_branch(node).is_some()
}

fn else_branch(node: &NodeProto) -> Option<&GraphProto> {
    node.attribute.iter().find(|attribute| attribute.name == "else_branch")?.g.as_ref()
}

/// Replaces the `If` at `at` by the nodes of its `else_branch`.
fn inline(graph: &mut GraphProto, at: usize) -> Result<(), Error> {
    let node = graph.node.remove(at);
    let Some(branch) = else_branch(&node).cloned() else {
        return Ok(());
    };
    check_shadowing(graph, &node, &branch)?;
    let renamed = branch.output.iter().zip(&node.output).filter(|(inner, outer)| inner.name != **outer);
    let passed = renamed.filter(|(_, outer)| !outer.is_empty()).map(|(inner, outer)| NodeProto {
        name: format!("eva/{outer}/Identity"),
        op_type: "Identity".to_owned(),
        input: vec![inner.name.clone()],
        output: vec![outer.clone()],
        ..Default::default()
    });
    let nodes: Vec<NodeProto> = branch.node.iter().cloned().chain(passed).collect();
    graph.node.splice(at..at, nodes);
    graph.initializer.extend(branch.initializer);
    graph.sparse_initializer.extend(branch.sparse_initializer);
    graph.value_info.extend(branch.value_info);
    graph.quantization_annotation.extend(branch.quantization_annotation);
    Ok(())
}

/// Fails if a tensor of the branch has the name of another tensor of the graph around it.
fn check_shadowing(graph: &GraphProto, node: &NodeProto, branch: &GraphProto) -> Result<(), Error> {
    let mut taken = HashSet::new();
    all_names(graph, &mut taken);
    let returned = branch.output.iter().zip(&node.output).filter(|(inner, outer)| inner.name == **outer);
    let returned: HashSet<&str> = returned.map(|(_, outer)| outer.as_str()).collect();
    let produced = branch.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
    let stored = branch.initializer.iter().map(|tensor| &tensor.name);
    let own = produced.chain(stored).find(|name| taken.contains(name.as_str()) && !returned.contains(name.as_str()));
    match own {
        Some(name) => {
            Err(Error::Invalid { violation: Violation::Hidden { tensor: name.clone(), node: node.name.clone() } })
        }
        None => Ok(()),
    }
}

fn drop_unread_inputs(graph: &mut GraphProto) {
    let mut read = HashSet::new();
    let mut nodes: Vec<&NodeProto> = graph.node.iter().collect();
    while let Some(node) = nodes.pop() {
        read.extend(node.input.iter().cloned());
        for inner in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            read.extend(inner.output.iter().map(|output| output.name.clone()));
            nodes.extend(&inner.node);
        }
    }
    read.extend(graph.output.iter().map(|output| output.name.clone()));
    graph.input.retain(|input| read.contains(&input.name));
}

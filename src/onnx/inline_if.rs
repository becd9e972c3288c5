//! Inlining `If` nodes whose condition is known.

use std::collections::{HashMap, HashSet};

use onnx_protobuf::{GraphProto, NodeProto};

use super::check::{each_name, each_name_of};
use super::{Error, Model, Violation, check};

impl Model {
    /// The model in which every `If` of the main graph whose condition is one of these graph inputs is replaced by its
    /// `else_branch`, which is what runs while they are false; nothing if there is no such node.
    ///
    /// Tensors and nodes keep their names. Graph inputs that nothing reads any more are dropped. The other branches are
    /// lost, so the result is for running only.
    pub fn assuming_false(&self, conditions: &[&str]) -> Result<Option<Model>, Error> {
        let before = self.graph();
        if !before.node.iter().any(|node| is_decided(node, conditions)) {
            return Ok(None);
        }
        let mut proto = self.proto.clone();
        let graph = proto.graph.mut_or_insert_default();
        let mut names = Mentioned::default();
        names.add_graph(graph);
        // The next node last: a branch may hold others that are decided.
        let mut open: Vec<NodeProto> = graph.node.drain(..).rev().collect();
        while let Some(node) = open.pop() {
            match else_branch(&node).filter(|_| is_decided(&node, conditions)) {
                Some(branch) => inline(graph, &mut names, &mut open, &node, branch.clone())?,
                None => graph.node.push(node),
            }
        }
        drop_unread_inputs(graph);
        let model = self.with(proto);
        check::after(before, model.graph())?;
        Ok(Some(model))
    }
}

/// How often each name is mentioned in a graph and its subgraphs.
#[derive(Default)]
struct Mentioned(HashMap<String, usize>);

impl Mentioned {
    fn add_graph(&mut self, graph: &GraphProto) {
        each_name(graph, &mut |name| *self.0.entry(name.to_owned()).or_default() += 1);
    }

    fn add(&mut self, node: &NodeProto) {
        each_name_of(node, &mut |name| *self.0.entry(name.to_owned()).or_default() += 1);
    }

    fn remove(&mut self, node: &NodeProto) {
        each_name_of(node, &mut |name| {
            if let Some(count) = self.0.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        });
    }

    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|count| *count > 0)
    }
}

fn is_decided(node: &NodeProto, conditions: &[&str]) -> bool {
    let condition = node.input.first().is_some_and(|name| conditions.contains(&name.as_str()));
    node.op_type == "If" && condition && else_branch(node).is_some()
}

fn else_branch(node: &NodeProto) -> Option<&GraphProto> {
    node.attribute.iter().find(|attribute| attribute.name == "else_branch")?.g.as_ref()
}

/// Puts the nodes of a branch in the place of the `If` `node`; they are next in `open`.
fn inline(
    graph: &mut GraphProto,
    names: &mut Mentioned,
    open: &mut Vec<NodeProto>,
    node: &NodeProto,
    branch: GraphProto,
) -> Result<(), Error> {
    names.remove(node);
    check_shadowing(names, node, &branch)?;
    let renamed = branch.output.iter().zip(&node.output).filter(|(inner, outer)| inner.name != **outer);
    let passed = renamed.filter(|(_, outer)| !outer.is_empty()).map(|(inner, outer)| NodeProto {
        name: format!("eva/{outer}/Identity"),
        op_type: "Identity".to_owned(),
        input: vec![inner.name.clone()],
        output: vec![outer.clone()],
        ..Default::default()
    });
    let nodes: Vec<NodeProto> = branch.node.into_iter().chain(passed).collect();
    nodes.iter().for_each(|node| names.add(node));
    branch.initializer.iter().for_each(|tensor| *names.0.entry(tensor.name.clone()).or_default() += 1);
    open.extend(nodes.into_iter().rev());
    graph.initializer.extend(branch.initializer);
    graph.sparse_initializer.extend(branch.sparse_initializer);
    graph.value_info.extend(branch.value_info);
    graph.quantization_annotation.extend(branch.quantization_annotation);
    Ok(())
}

/// Fails if a tensor of the branch has the name of another tensor of the graph around it.
fn check_shadowing(names: &Mentioned, node: &NodeProto, branch: &GraphProto) -> Result<(), Error> {
    let returned = branch.output.iter().zip(&node.output).filter(|(inner, outer)| inner.name == **outer);
    let returned: HashSet<&str> = returned.map(|(_, outer)| outer.as_str()).collect();
    let produced = branch.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
    let stored = branch.initializer.iter().map(|tensor| &tensor.name);
    match produced.chain(stored).find(|name| names.has(name) && !returned.contains(name.as_str())) {
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

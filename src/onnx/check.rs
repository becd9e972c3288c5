//! What must hold before and after every edit of a graph.

use std::collections::{BTreeSet, HashSet};

use onnx_protobuf::{GraphProto, NodeProto};

use super::{Constant, Edit, Error, Node, Patch, Violation};

/// Checks that `patch` can be applied to `graph`.
pub(crate) fn patch(graph: &GraphProto, patch: &Patch) -> Result<(), Error> {
    node_names(graph, patch)?;
    tensor_names(graph, patch)?;
    node_inputs(graph, patch)?;
    shapes(patch)?;
    takeovers(patch)?;
    outputs(graph, patch)
}

/// Checks that the edited graph breaks no rule that the original kept.
pub(crate) fn after(before: &GraphProto, after: &GraphProto) -> Result<(), Error> {
    let old = violations(before);
    match violations(after).into_iter().find(|violation| !old.contains(violation)) {
        Some(violation) => Err(Error::Invalid { violation }),
        None => Ok(()),
    }
}

fn node_names(graph: &GraphProto, patch: &Patch) -> Result<(), Error> {
    let mut taken: HashSet<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
    for node in new_nodes(patch) {
        let bad = |reason| Err(Error::BadNode { node: node.name.clone(), reason });
        if node.name.is_empty() {
            return bad("has no name");
        }
        if node.op.is_empty() {
            return bad("has no operator type");
        }
        if node.outputs.iter().all(String::is_empty) {
            return bad("has no output");
        }
        if !taken.insert(&node.name) {
            return Err(Error::NameTaken { name: node.name.clone() });
        }
    }
    let names = patch.changes.iter().filter_map(|change| match &change.edit {
        Edit::Name(name) => Some(name),
        _ => None,
    });
    for name in names {
        if name.is_empty() || !taken.insert(name) {
            return Err(Error::NameTaken { name: name.clone() });
        }
    }
    Ok(())
}

fn new_nodes(patch: &Patch) -> impl Iterator<Item = &Node> {
    patch.leading.iter().chain(&patch.nodes).chain(patch.takeovers.iter().flat_map(|takeover| &takeover.nodes))
}

/// New tensors may not reuse a name of any scope: a subgraph may not shadow a name of the graph around it.
fn tensor_names(graph: &GraphProto, patch: &Patch) -> Result<(), Error> {
    let mut taken = HashSet::new();
    each_name(graph, &mut |name| {
        taken.insert(name);
    });
    let produced = patch.leading.iter().chain(&patch.nodes).flat_map(|node| &node.outputs);
    let produced = produced.filter(|name| !name.is_empty());
    let taken_over = patch.takeovers.iter().flat_map(|takeover| {
        let own = takeover.nodes.iter().flat_map(|node| &node.outputs);
        own.filter(|name| !name.is_empty() && **name != takeover.tensor).chain([&takeover.raw])
    });
    let added = patch.changes.iter().filter_map(|change| match &change.edit {
        Edit::Produce(tensor) => Some(tensor),
        _ => None,
    });
    let new = patch.inputs.iter().map(|input| &input.name);
    let new = new.chain(patch.optional_inputs.iter().map(|input| &input.name));
    let new = new.chain(patch.constants.iter().map(|(name, _)| name)).chain(produced).chain(taken_over).chain(added);
    for name in new {
        if name.is_empty() || !taken.insert(name) {
            return Err(Error::NameTaken { name: name.clone() });
        }
    }
    Ok(())
}

/// Visits every mention of a tensor in the graph and its subgraphs.
pub(crate) fn each_name<'g>(graph: &'g GraphProto, visit: &mut impl FnMut(&'g str)) {
    let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info).map(|value| value.name.as_str());
    values.chain(stored(graph)).for_each(&mut *visit);
    graph.node.iter().for_each(|node| each_name_of(node, visit));
}

/// Visits every mention of a tensor in the node and its subgraphs.
pub(crate) fn each_name_of<'g>(node: &'g NodeProto, visit: &mut impl FnMut(&'g str)) {
    node.input.iter().chain(&node.output).for_each(|name| visit(name));
    let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    graphs.for_each(|graph| each_name(graph, visit));
}

/// Names of initializers, sparse ones included.
fn stored(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    graph.initializer.iter().chain(sparse).map(|tensor| tensor.name.as_str())
}

/// Names of the tensors that the main graph holds or produces.
fn available(graph: &GraphProto) -> HashSet<&str> {
    let produced = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    stored(graph).chain(inputs).chain(produced).filter(|name| !name.is_empty()).collect()
}

/// Inputs of the nodes at the end; the check of the edited graph covers those further up.
fn node_inputs(graph: &GraphProto, patch: &Patch) -> Result<(), Error> {
    let mut known = available(graph);
    let takeovers = patch.takeovers.iter().filter(|takeover| takeover.subgraph.is_empty());
    known.extend(takeovers.flat_map(|takeover| &takeover.nodes).flat_map(|node| &node.outputs).map(String::as_str));
    known.extend(patch.optional_inputs.iter().map(|input| input.name.as_str()));
    known.extend(patch.inputs.iter().map(|input| input.name.as_str()));
    known.extend(patch.constants.iter().map(|(name, _)| name.as_str()));
    known.extend(patch.leading.iter().flat_map(|node| &node.outputs).map(String::as_str));
    for node in &patch.nodes {
        if let Some(tensor) = node.inputs.iter().find(|name| !name.is_empty() && !known.contains(name.as_str())) {
            return Err(Error::InputUnknown { node: node.name.clone(), tensor: tensor.clone() });
        }
        known.extend(node.outputs.iter().map(String::as_str));
    }
    Ok(())
}

fn shapes(patch: &Patch) -> Result<(), Error> {
    let defaults = patch.optional_inputs.iter().map(|input| (&input.name, &input.default));
    for (name, constant) in patch.constants.iter().map(|(name, constant)| (name, constant)).chain(defaults) {
        let (shape, values) = match constant {
            Constant::F32(shape, values) => (shape, values.len()),
            Constant::I64(shape, values) => (shape, values.len()),
            Constant::Bytes(..) | Constant::Stored(_) => continue,
        };
        let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(usize::try_from(*dim).ok()?));
        if count != Some(values) {
            return Err(Error::BadShape { name: name.clone(), shape: shape.clone(), values });
        }
    }
    for input in &patch.inputs {
        if input.shape.iter().flatten().any(|dim| *dim < 0) {
            let shape = input.shape.iter().map(|dim| dim.unwrap_or(-1)).collect();
            return Err(Error::BadShape { name: input.name.clone(), shape, values: 0 });
        }
    }
    Ok(())
}

fn takeovers(patch: &Patch) -> Result<(), Error> {
    for takeover in &patch.takeovers {
        let mut produced = takeover.nodes.iter().flat_map(|node| &node.outputs);
        if !produced.any(|name| *name == takeover.tensor) {
            return Err(Error::NotTakenOver { tensor: takeover.tensor.clone() });
        }
    }
    Ok(())
}

fn outputs(graph: &GraphProto, patch: &Patch) -> Result<(), Error> {
    let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    let mut known = available(graph);
    known.extend(patch.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
    known.extend(patch.constants.iter().map(|(name, _)| name.as_str()));
    let kept = if patch.drop_outputs { &[][..] } else { &graph.output };
    let mut seen: HashSet<&str> = kept.iter().map(|output| output.name.as_str()).collect();
    for output in &patch.outputs {
        let tensor = output.name.clone();
        let new_input = patch.inputs.iter().any(|input| input.name == tensor)
            || patch.optional_inputs.iter().any(|input| input.name == tensor);
        if new_input || inputs.contains(tensor.as_str()) {
            return Err(Error::OutputIsInput { tensor });
        }
        if tensor.is_empty() || !known.contains(tensor.as_str()) {
            return Err(Error::OutputUnknown { tensor });
        }
        if !seen.insert(&output.name) {
            return Err(Error::OutputTwice { tensor });
        }
    }
    if seen.is_empty() { Err(Error::NoOutputs) } else { Ok(()) }
}

/// Every rule that the graph breaks.
fn violations(graph: &GraphProto) -> BTreeSet<Violation> {
    let mut found = BTreeSet::new();
    let mut scopes = Vec::new();
    add_violations(graph, &mut scopes, &mut found);
    let known = scopes.pop().unwrap_or_default();
    let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    let mut returned = HashSet::new();
    for output in &graph.output {
        let tensor = || output.name.clone();
        if inputs.contains(output.name.as_str()) {
            found.insert(Violation::InputIsOutput { tensor: tensor() });
        }
        if !known.contains(output.name.as_str()) {
            found.insert(Violation::OutputMissing { tensor: tensor() });
        }
        if !returned.insert(output.name.as_str()) {
            found.insert(Violation::OutputTwice { tensor: tensor() });
        }
    }
    found
}

/// Adds the violations inside a graph that sees the tensors of `scopes`, and its own tensors to these.
fn add_violations<'g>(graph: &'g GraphProto, scopes: &mut Vec<HashSet<&'g str>>, found: &mut BTreeSet<Violation>) {
    let own = scopes.len();
    scopes.push(graph.input.iter().map(|input| input.name.as_str()).chain(stored(graph)).collect());
    let is_known = |scopes: &[HashSet<&str>], name: &str| scopes.iter().any(|scope| scope.contains(name));
    for node in &graph.node {
        for name in node.input.iter().filter(|name| !name.is_empty() && !is_known(scopes, name)) {
            found.insert(Violation::ReadTooEarly { tensor: name.clone(), node: node.name.clone() });
        }
        for inner in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            add_violations(inner, scopes, found);
            let missing = inner.output.iter().filter(|output| !is_known(scopes, &output.name));
            found.extend(missing.map(|output| Violation::SubgraphOutputMissing { tensor: output.name.clone() }));
            scopes.truncate(own + 1);
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !scopes[own].insert(name) {
                found.insert(Violation::ProducedTwice { tensor: name.clone() });
            }
        }
    }
}

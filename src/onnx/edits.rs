//! Edits of existing nodes. Their number may be that of the layers of a large model: each graph is walked once, and a node
//! is found by what it produces.

use std::collections::HashMap;

use onnx_protobuf::{GraphProto, NodeProto};

use super::patch::{Change, Edit, Patch, Takeover};
use super::protos::{attribute_proto, node_proto};
use super::{Error, graph};

/// Edits of a graph and of the subgraphs in it; the number of steps to the graph is known.
#[derive(Default)]
struct Edits<'p> {
    changes: Vec<&'p Change>,
    takeovers: Vec<&'p Takeover>,
    /// Those further inside, by the next step to them.
    inside: HashMap<&'p str, Edits<'p>>,
}

/// Carries out the changes, and then the takeovers, of `patch`.
pub(super) fn carry_out(graph: &mut GraphProto, patch: &Patch) -> Result<(), Error> {
    let mut edits = Edits::default();
    for change in &patch.changes {
        edits.at(&change.subgraph).changes.push(change);
    }
    for takeover in &patch.takeovers {
        edits.at(&takeover.subgraph).takeovers.push(takeover);
    }
    edit(graph, edits)
}

impl<'p> Edits<'p> {
    /// Those of the subgraph at `path`.
    fn at(&mut self, path: &'p [String]) -> &mut Self {
        path.iter().fold(self, |edits, step| edits.inside.entry(step).or_default())
    }
}

fn edit(graph: &mut GraphProto, mut edits: Edits<'_>) -> Result<(), Error> {
    edit_inside(&mut graph.node, &mut edits.inside)?;
    if let Some(step) = edits.inside.into_keys().min() {
        return Err(Error::SubgraphUnknown { step: step.to_owned() });
    }
    if edits.changes.is_empty() && edits.takeovers.is_empty() {
        return Ok(());
    }
    let mut chain = Chain::of(std::mem::take(&mut graph.node));
    edits.changes.into_iter().try_for_each(|change| chain.alter(change))?;
    edits.takeovers.into_iter().try_for_each(|takeover| chain.take_over(takeover))?;
    graph.node = chain.into_nodes();
    Ok(())
}

/// Carries out the edits of subgraphs of `nodes`, which are taken out of `inside`.
fn edit_inside(nodes: &mut [NodeProto], inside: &mut HashMap<&str, Edits<'_>>) -> Result<(), Error> {
    for NodeProto { name, op_type, attribute, .. } in nodes {
        for attribute in attribute {
            if inside.is_empty() {
                return Ok(());
            }
            let steps = graph::steps(name, op_type, attribute);
            let graphs = attribute.g.as_mut().into_iter().chain(&mut attribute.graphs);
            for (step, graph) in steps.iter().zip(graphs) {
                if let Some(edits) = inside.remove(step.as_str()) {
                    edit(graph, edits)?;
                }
            }
        }
    }
    Ok(())
}

/// The nodes of a graph, each of which knows the one after it.
struct Chain {
    nodes: Vec<NodeProto>,
    /// For each node, the one after it; that of the last is none of them.
    next: Vec<usize>,
    /// The first node that produces a tensor.
    producers: HashMap<String, usize>,
}

impl Chain {
    fn of(nodes: Vec<NodeProto>) -> Self {
        let mut producers = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            for tensor in &node.output {
                producers.entry(tensor.clone()).or_insert(at);
            }
        }
        Self { next: (1..=nodes.len()).collect(), nodes, producers }
    }

    fn producer(&self, tensor: &str) -> Result<usize, Error> {
        self.producers.get(tensor).copied().ok_or_else(|| Error::ProducerUnknown { tensor: tensor.to_owned() })
    }

    fn alter(&mut self, change: &Change) -> Result<(), Error> {
        let at = self.producer(&change.produces)?;
        let node = &mut self.nodes[at];
        match &change.edit {
            Edit::Read { input, tensor } => match node.input.get_mut(*input) {
                Some(name) => tensor.clone_into(name),
                None => {
                    node.input.resize(*input, String::new());
                    node.input.push(tensor.clone());
                }
            },
            Edit::Produce(tensor) => {
                node.output.push(tensor.clone());
                self.producers.insert(tensor.clone(), at);
            }
            Edit::Set(name, value) => {
                node.attribute.retain(|attribute| attribute.name != *name);
                node.attribute.push(attribute_proto(name, value));
            }
            Edit::Name(name) => node.name.clone_from(name),
        }
        Ok(())
    }

    fn take_over(&mut self, takeover: &Takeover) -> Result<(), Error> {
        let at = self.producer(&takeover.tensor)?;
        for output in self.nodes[at].output.iter_mut().filter(|output| **output == takeover.tensor) {
            output.clone_from(&takeover.raw);
        }
        self.producers.insert(takeover.raw.clone(), at);
        let mut before = at;
        for node in &takeover.nodes {
            let new = self.nodes.len();
            self.nodes.push(node_proto(node));
            self.next.push(self.next[before]);
            self.next[before] = new;
            self.producers.extend(node.outputs.iter().map(|tensor| (tensor.clone(), new)));
            before = new;
        }
        Ok(())
    }

    /// The nodes in order. The first node stays the first: others only come after one.
    fn into_nodes(self) -> Vec<NodeProto> {
        let Self { mut nodes, next, .. } = self;
        let mut ordered = Vec::with_capacity(nodes.len());
        let mut at = 0;
        for _ in 0..nodes.len() {
            ordered.push(std::mem::take(&mut nodes[at]));
            at = next[at];
        }
        ordered
    }
}

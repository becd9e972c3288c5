//! What must run for some tensors, in which order, and what of it hands values on.
//!
//! Nodes are of three kinds. *Constant* ones depend on stored tensors alone. *Free* ones also depend on graph inputs and on
//! shapes, and read no large weight: masks, positions, rotary tables. All others are the *stages* of the model. Constant and
//! free nodes can run again wherever they are read, so that only what stages return is handed from block to block. A `Shape`
//! of what a stage returns is a stage whose result takes no memory, and what follows from it is free.

use super::weights::{Weights, owner};
use crate::onnx::{Graph, NodeId, NodeView, Origin};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Operators whose results differ from run to run.
const RANDOM: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];
/// Share of all weights up to which those of a node are small.
const SMALL: u64 = 1000;

/// The kind of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Constant,
    Free,
    Stage,
}

/// The nodes of the main graph that must run.
pub(super) struct Flow<'m> {
    pub(super) graph: &'m Graph<'m>,
    pub(super) weights: Weights<'m>,
    kinds: Vec<Kind>,
    /// Tensors that each node reads, those of its subgraphs included.
    reads: Vec<Vec<&'m str>>,
    /// The stages, each after those that it reads.
    pub(super) stages: Vec<usize>,
    /// The place of a node in `stages`.
    places: HashMap<usize, usize>,
    /// Of every free node, the tensors of stages that it follows from.
    follows: HashMap<usize, BTreeSet<&'m str>>,
}

impl<'m> Flow<'m> {
    /// What must run for the tensors `wanted` of the main graph.
    pub(super) fn new(graph: &'m Graph<'m>, wanted: &[&'m str]) -> Self {
        let reads = reads(graph);
        let needed = needed(graph, &reads, wanted);
        let weights = Weights::new(graph, &reads, &needed);
        let kinds = kinds(graph, &reads, &weights);
        let (stages, places) = (Vec::new(), HashMap::new());
        let mut flow = Self { graph, weights, kinds, reads, stages, places, follows: HashMap::new() };
        flow.follow(&needed);
        wanted.iter().copied().for_each(|name| flow.add(name));
        flow
    }

    /// The node of the main graph that produces a tensor.
    pub(super) fn producer(&self, name: &str) -> Option<usize> {
        producer(self.graph, name)
    }

    /// The tensors of stages that `name` is or follows from.
    pub(super) fn stages_of(&self, name: &'m str) -> Vec<&'m str> {
        let Some(node) = self.producer(name) else { return Vec::new() };
        match self.kinds[node] {
            Kind::Constant => Vec::new(),
            Kind::Stage => vec![name],
            Kind::Free => self.follows.get(&node).into_iter().flatten().copied().collect(),
        }
    }

    /// The tensors of stages that a node reads, also by way of free nodes.
    pub(super) fn needs(&self, node: usize) -> Vec<&'m str> {
        let mut seen = HashSet::new();
        let all = self.reads[node].iter().copied().flat_map(|name| self.stages_of(name));
        all.filter(|name| seen.insert(*name)).collect()
    }

    /// The place of the stage that returns a tensor.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.places.get(&self.producer(name)?).copied()
    }

    /// The node of a stage.
    pub(super) fn node(&self, place: usize) -> NodeView<'m> {
        self.graph.node(NodeId { scope: 0, node: self.stages[place] })
    }

    /// Whether a stage returns nothing but a shape.
    pub(super) fn is_shape(&self, place: usize) -> bool {
        gives_shape(self.node(place))
    }

    /// The constant and free nodes that must run for these tensors.
    pub(super) fn others_for(&self, names: impl IntoIterator<Item = &'m str>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            let node = self.producer(name).filter(|node| self.kinds[*node] != Kind::Stage);
            if let Some(node) = node.filter(|node| found.insert(*node)) {
                open.extend(&self.reads[node]);
            }
        }
        found
    }

    /// What a node reads.
    pub(super) fn reads(&self, node: usize) -> &[&'m str] {
        &self.reads[node]
    }

    /// Notes what free nodes follow from.
    fn follow(&mut self, needed: &BTreeSet<usize>) {
        for &node in needed {
            if self.kinds[node] == Kind::Free {
                let from = self.reads[node].iter().copied().flat_map(|name| self.stages_of(name)).collect();
                self.follows.insert(node, from);
            }
        }
    }

    /// Adds the stages behind a tensor, each just before the first one that reads it.
    fn add(&mut self, name: &'m str) {
        let mut open: Vec<(usize, std::vec::IntoIter<&'m str>)> = Vec::new();
        let mut next: Vec<&'m str> = self.stages_of(name);
        let mut started = HashSet::new();
        next.reverse();
        loop {
            let found = match open.last_mut() {
                Some((_, needs)) => needs.next(),
                None => next.pop(),
            };
            let Some(name) = found else {
                let Some((node, _)) = open.pop() else { return };
                self.places.insert(node, self.stages.len());
                self.stages.push(node);
                continue;
            };
            let producer = self.producer(name).filter(|node| !self.places.contains_key(node));
            if let Some(node) = producer.filter(|node| started.insert(*node)) {
                let needs = self.needs(node);
                open.push((node, needs.into_iter()));
            }
        }
    }
}

fn producer(graph: &Graph<'_>, name: &str) -> Option<usize> {
    match graph.origin(0, name)? {
        Origin::Node(id) if id.scope == 0 => Some(id.node),
        _ => None,
    }
}

fn gives_shape(node: NodeView<'_>) -> bool {
    node.domain().is_empty() && ["Shape", "Size"].contains(&node.op())
}

/// The tensors of the main graph that each of its nodes reads, those of its subgraphs included.
fn reads<'m>(graph: &Graph<'m>) -> Vec<Vec<&'m str>> {
    let inputs = |node: NodeView<'m>| node.inputs().iter().map(String::as_str).filter(|name| !name.is_empty());
    let mut reads: Vec<Vec<&str>> = graph.nodes(0).map(|(_, node)| inputs(node).collect()).collect();
    for scope in 1..graph.scopes() {
        let Some(owner) = owner(graph, scope) else { continue };
        let inner = graph.nodes(scope).flat_map(|(_, node)| inputs(node));
        let outer = inner.chain(graph.outputs(scope).iter().copied()).filter(|name| graph.home(scope, name) == Some(0));
        reads[owner].extend(outer);
    }
    reads
}

/// The nodes behind tensors.
fn needed<'m>(graph: &Graph<'m>, reads: &[Vec<&'m str>], wanted: &[&'m str]) -> BTreeSet<usize> {
    let (mut needed, mut open) = (BTreeSet::new(), wanted.to_vec());
    while let Some(name) = open.pop() {
        if let Some(node) = producer(graph, name).filter(|node| needed.insert(*node)) {
            open.extend(&reads[node]);
        }
    }
    needed
}

fn kinds<'m>(graph: &Graph<'m>, reads: &[Vec<&'m str>], weights: &Weights<'m>) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::with_capacity(reads.len());
    for (id, node) in graph.nodes(0) {
        let mut kind = Kind::Constant;
        for name in &reads[id.node] {
            let of_read = match producer(graph, name) {
                // A shape is free for those that read it.
                Some(from) if gives_shape(graph.node(NodeId { scope: 0, node: from })) => kinds[from].min_free(),
                Some(from) => kinds[from],
                None if matches!(graph.origin(0, name), Some(Origin::Initializer(_))) => Kind::Constant,
                None => Kind::Free,
            };
            kind = kind.with(of_read);
        }
        let large = kind == Kind::Free && weights.of_node(id.node) > weights.total / SMALL;
        let random = RANDOM.contains(&node.op());
        kinds.push(if large || random { Kind::Stage } else { kind });
    }
    kinds
}

impl Kind {
    /// The kind of what depends on both.
    fn with(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Stage, _) | (_, Kind::Stage) => Kind::Stage,
            (Kind::Free, _) | (_, Kind::Free) => Kind::Free,
            _ => Kind::Constant,
        }
    }

    fn min_free(self) -> Kind {
        if self == Kind::Constant { Kind::Constant } else { Kind::Free }
    }
}

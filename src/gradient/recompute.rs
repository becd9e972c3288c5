//! Activations that are computed a second time instead of kept (Chen et al. 2016, "Training Deep Nets with Sublinear
//! Memory Cost").
//!
//! The forward pass is cut where nothing but one tensor goes on, as between the halves of a transformer's layers. Only
//! these tensors are kept. The backward pass of a block reads copies of the block's nodes, which start from the kept
//! tensor. So that they run late, and ONNX Runtime does not take them for the nodes that they copy, they depend on the
//! gradient that arrives at the end of the block.

use super::Backward;
use super::path::Path;
use super::values::Values;
use crate::dtype::DType;
use crate::onnx::{Builder, Constant, Copied, Graph, Node, NodeView, Patch};
use std::collections::{HashMap, HashSet};

/// Operators that are worth a block.
const PRODUCTS: [&str; 6] = ["MatMul", "Gemm", "MatMulNBits", "MatMulInteger", "QLinearMatMul", "Conv"];

/// The start of every name of a copy.
const STEM: &str = "again";

/// A place on the path where only one tensor goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    /// The node that produces it, counted along the path.
    at: usize,
    tensor: String,
}

/// The backward pass as an edit that computes the activations of all blocks but the first and the last again. Without
/// blocks, they are kept.
pub(crate) fn recompute(graph: &Graph<'_>, path: &Path, values: &Values, ends: &[String], pass: Backward) -> Patch {
    let cuts = cuts(graph, path, ends);
    let Backward { graph: builder, passed, before, .. } = pass;
    let (mut nodes, constants) = builder.finish();
    let mut patch = Patch { constants, ..Patch::default() };
    let mut ties = Builder::new(STEM, graph.model().opset());
    let mut done = 0;
    for block in cuts.windows(2).rev() {
        let [entry, exit] = block else { continue };
        let (from, to) = (before[exit.at], before[entry.at]);
        patch.nodes.extend(nodes[done..from].iter().cloned());
        done = to;
        let inside = Block { graph, path, entry, exit };
        let body = &mut nodes[from..to];
        let copies = inside.needed(body);
        let gradient = passed.get(&exit.tensor);
        if let (Some(gradient), false) = (gradient, copies.is_empty()) {
            let types = [&entry.tensor, &exit.tensor].map(|tensor| values.get(tensor).map(|info| info.dtype));
            let [Some(dtype), Some(arrives)] = types else { continue };
            let first = ties.nodes().len();
            let tied = tie(&mut ties, &entry.tensor, dtype, gradient, arrives);
            patch.nodes.extend(ties.nodes()[first..].iter().cloned());
            inside.copy(&copies, &tied, &mut patch);
            let renamed = inside.renamed(&copies);
            for name in body.iter_mut().flat_map(|node| &mut node.inputs) {
                if let Some(copy) = renamed.get(name.as_str()) {
                    name.clone_from(copy);
                }
            }
        }
        patch.nodes.extend(nodes[from..to].iter().cloned());
    }
    patch.nodes.extend(nodes[done..].iter().cloned());
    patch.constants.extend(ties.finish().1);
    patch
}

/// The cuts of a path, with a product between any two.
fn cuts(graph: &Graph<'_>, path: &Path, ends: &[String]) -> Vec<Cut> {
    let mut last_read: HashMap<&str, usize> = HashMap::new();
    for (index, id) in path.nodes.iter().enumerate() {
        last_read.extend(graph.node(*id).inputs().iter().map(|name| (name.as_str(), index)));
    }
    last_read.extend(ends.iter().map(|end| (end.as_str(), path.nodes.len())));
    let (mut live, mut all) = (HashSet::new(), Vec::new());
    for (index, id) in path.nodes.iter().enumerate() {
        let node = graph.node(*id);
        let goes_on = |name: &&String| last_read.get(name.as_str()).is_some_and(|last| *last > index);
        live.extend(node.outputs().iter().filter(goes_on).map(String::as_str));
        live.retain(|name| last_read[name] > index);
        let produced = node.outputs().iter().find(|name| live.contains(name.as_str()));
        if let (1, Some(tensor)) = (live.len(), produced) {
            all.push(Cut { at: index, tensor: tensor.clone() });
        }
    }
    let mut chosen: Vec<Cut> = Vec::new();
    for cut in all.into_iter().rev() {
        let next = chosen.last().map_or(path.nodes.len() - 1, |next| next.at);
        let mut between = path.nodes[cut.at + 1..=next].iter().map(|id| graph.node(*id).op());
        if between.any(|op| PRODUCTS.contains(&op)) {
            chosen.push(cut);
        }
    }
    chosen.reverse();
    chosen
}

/// The nodes between two cuts.
struct Block<'a> {
    graph: &'a Graph<'a>,
    path: &'a Path,
    entry: &'a Cut,
    exit: &'a Cut,
}

impl<'a> Block<'a> {
    fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeView<'a>> {
        self.path.nodes[self.entry.at + 1..=self.exit.at].iter().map(|id| self.graph.node(*id))
    }

    /// The nodes whose results the backward pass of the block needs, in order.
    fn needed(&self, body: &[Node]) -> Vec<NodeView<'a>> {
        let mut wanted: HashSet<&str> = body.iter().flat_map(|node| &node.inputs).map(String::as_str).collect();
        // These two are kept.
        wanted.remove(self.exit.tensor.as_str());
        wanted.remove("");
        let mut needed = Vec::new();
        for node in self.nodes().rev() {
            if node.outputs().iter().any(|name| wanted.contains(name.as_str())) {
                wanted.extend(node.inputs().iter().map(String::as_str).filter(|name| !name.is_empty()));
                needed.push(node);
            }
        }
        needed.reverse();
        needed
    }

    /// The names of the copies' results by those of the nodes that are copied.
    fn renamed(&self, nodes: &[NodeView<'a>]) -> HashMap<&'a str, String> {
        let results = nodes.iter().flat_map(|node| node.outputs());
        let results = results.filter(|name| !name.is_empty() && **name != self.exit.tensor);
        results.map(|name| (name.as_str(), format!("{STEM}/{name}"))).collect()
    }

    /// Adds copies of nodes that start from `tied`.
    fn copy(&self, nodes: &[NodeView<'a>], tied: &str, patch: &mut Patch) {
        let mut names = self.renamed(nodes);
        names.insert(&self.entry.tensor, tied.to_owned());
        let name = |tensor: &String| names.get(tensor.as_str()).unwrap_or(tensor).clone();
        for node in nodes {
            let Some(produces) = node.outputs().iter().find(|name| !name.is_empty()) else { continue };
            let called = format!("{STEM}/{produces}/{}", node.op());
            let result = |tensor: &String| match tensor.as_str() {
                "" => String::new(),
                tensor => format!("{STEM}/{tensor}"),
            };
            patch.copies.push(Copied { node: called.clone(), produces: produces.clone() });
            patch.nodes.push(Node {
                name: called,
                op: "Copied",
                inputs: node.inputs().iter().map(name).collect(),
                outputs: node.outputs().iter().map(result).collect(),
                attributes: Vec::new(),
            });
        }
    }
}

/// `tensor` plus 0 times an element of `gradient`.
fn tie(nodes: &mut Builder, tensor: &str, dtype: DType, gradient: &str, arrives: DType) -> String {
    let name = |part: &str| format!("{tensor}/{part}");
    let whole = nodes.constant(&name("whole"), Constant::ints(vec![-1]));
    let first = nodes.constant(&name("first"), Constant::ints(vec![0]));
    let bytes = dtype.bits().unwrap_or(0) / 8;
    let zero = nodes.constant(&name("zero"), Constant::Bytes(dtype, Vec::new(), vec![0; bytes]));
    let flat = nodes.op("Reshape", &[gradient, &whole]).output(&name("gradient"));
    let mut element = nodes.op("Gather", &[&flat, &first]).output(&name("element"));
    if dtype != arrives {
        element = nodes.cast(&element, dtype).output(&name("element_cast"));
    }
    let nothing = nodes.op("Mul", &[&element, &zero]).output(&name("nothing"));
    nodes.op("Add", &[tensor, &nothing]).output(&name("tied"))
}

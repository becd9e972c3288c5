//! Which module paths in the names of nodes are certain.
//!
//! TorchScript records the modules whose `forward` was running. A container whose children are called directly, such as
//! `nn.ModuleDict`, is missing there, and a bare parameter looks like the weight of a layer. So a path is certain only
//! if the names of parameters confirm its start, and if transformer architectures have layers with the names of its
//! end.

use std::collections::{HashMap, HashSet};

use super::layer_name::LayerName;
use super::tensor::{base_name, is_invented};
use super::torchscript::{self, NodePaths};
use crate::hub::conventions::{has_layers, is_body, is_head, is_layer};
use crate::linear::layer::NamedBy;
use crate::linear::module::{ancestors, is_index, is_plausible, leaf, parent};
use crate::onnx::{Graph, Origin};

/// The modules of a model, by the names of nodes and of the parameters that they read.
#[derive(Default)]
pub(crate) struct Modules {
    /// The module tree by the names of nodes.
    pub(crate) node_paths: NodePaths,
    /// Modules with a parameter that kept its name, and the modules around them.
    named: HashSet<String>,
    /// Modules around others that have parameters.
    outer: HashSet<String>,
    /// The modules that a path may stand for: one if it is certain.
    paths: HashMap<String, HashSet<String>>,
    /// By a path, the parents of the modules that paths one step longer may stand for.
    around: HashMap<String, HashSet<String>>,
}

impl Modules {
    /// Reads the names of the tensors that nodes of the main graph and its subgraphs use.
    pub(crate) fn new(graph: &Graph<'_>) -> Modules {
        let mut modules = Modules { node_paths: NodePaths::new(graph), ..Modules::default() };
        for scope in 0..graph.scopes() {
            for (_, node) in graph.nodes(scope) {
                // Where exporters merge equal tensors, an `Identity` keeps the other names.
                let is_stored = |name: &&String| match graph.origin(scope, name) {
                    Some(Origin::Initializer(_)) => true,
                    Some(Origin::Node(id)) => graph.node(id).op() == "Identity",
                    _ => false,
                };
                let path = torchscript::around(node.name()).filter(|path| is_plausible(path));
                for name in node.inputs().iter().filter(is_stored).map(|name| base_name(name)) {
                    if let Some((module, _)) =
                        name.rsplit_once('.').filter(|_| !is_invented(name) && is_plausible(name))
                    {
                        modules.named.extend(ancestors(module).map(str::to_owned));
                        if !module.contains(".lora_") {
                            modules.outer.extend(ancestors(parent(module)).map(str::to_owned));
                        }
                        path.iter().for_each(|path| modules.learn(path, module));
                    }
                }
            }
        }
        modules
    }

    /// Whether modules other than adapters are inside this one.
    pub(crate) fn is_outer(&self, module: &str) -> bool {
        self.outer.contains(module)
    }

    /// Learns from a node of this path that reads a parameter of `module`. They are the same module if the path has
    /// some components of `module` in order.
    fn learn(&mut self, path: &str, module: &str) {
        let (steps, ends): (Vec<_>, Vec<_>) = (ancestors(path).collect(), ancestors(module).collect());
        let same = |step: &str, end: &str| leaf(step) == leaf(end);
        // The first and the last component of the module's name that each step of the path can be.
        let (mut first, mut after) = (Vec::new(), 0);
        for step in &steps {
            let Some(at) = (after..ends.len()).find(|at| same(step, ends[*at])) else { return };
            first.push(at);
            after = at + 1;
        }
        let mut before = ends.len();
        for (step, first) in steps.iter().zip(first).rev() {
            let Some(at) = (first..before).rev().find(|at| same(step, ends[*at])) else { return };
            // The node and the parameter are in one module.
            let whole = before == ends.len();
            if whole && at + 1 < before {
                return;
            }
            for end in [ends[if whole { at } else { first }], ends[at]] {
                self.paths.entry((*step).to_owned()).or_default().insert(end.to_owned());
                self.around.entry(parent(step).to_owned()).or_default().insert(parent(end).to_owned());
            }
            before = at;
        }
    }

    /// The module whose path in the name of a node is `path`, with the containers that the path leaves out, and whether
    /// that is certain.
    fn complete(&self, path: &str) -> (String, bool) {
        let whole = ancestors(parent(path)).collect::<Vec<_>>();
        for start in whole.into_iter().rev() {
            let found = self.paths.get(start).map(|modules| modules.iter().collect::<Vec<_>>());
            let module = match found.as_deref() {
                Some([module]) => module.as_str(),
                Some(_) => return (path.to_owned(), false),
                None if self.named.contains(start) => start,
                None => continue,
            };
            let sure = start.len() + 1;
            return (format!("{module}.{}", &path[sure..]), self.is_sure(path, sure, module));
        }
        (path.to_owned(), self.is_sure(path, 0, ""))
    }

    /// Whether `path` continues after its first `sure` bytes, which stand for `module`, as in transformer architectures
    /// and without leaving anything out.
    fn is_sure(&self, path: &str, sure: usize, module: &str) -> bool {
        let start = &path[..sure.saturating_sub(1)];
        let mut left_out = self.around.get(start).into_iter().flatten().filter(|around| *around != module);
        if is_head(&path[sure..]) {
            let is_around = |part: &str| part.is_empty() || is_body(part);
            return left_out.all(|all| all.strip_prefix(module).is_some_and(|inside| inside.split('.').all(is_around)));
        }
        left_out.next().is_none() && is_conventional(path, sure)
    }
}

/// Whether transformer architectures have a layer of this path, whose first `sure` bytes are known already.
fn is_conventional(path: &str, sure: usize) -> bool {
    let around = parent(path);
    let is_skipped = |part: &str| part.is_empty() || is_index(part);
    let module = around.rsplit('.').find(|part| !is_skipped(part)).unwrap_or_default();
    let mut unsure = around.get(sure..).unwrap_or_default().split('.');
    let is_known = is_layer(module, leaf(path)) || is_head(leaf(path));
    is_known && unsure.all(|part| is_skipped(part) || is_body(part) || has_layers(part))
}

/// Adds the containers that the paths in `names` leave out, and returns the indices of the layers whose paths are
/// uncertain.
pub(crate) fn complete(modules: &Modules, names: &mut [LayerName]) -> HashSet<usize> {
    let mut uncertain = HashSet::new();
    for (index, named) in names.iter_mut().enumerate() {
        let Ok((module, by)) = &mut named.module else { continue };
        // A fused attention is named after the module around its projections.
        let inside = match by {
            NamedBy::Node | NamedBy::Output => "",
            NamedBy::Attention => ".query",
            _ => continue,
        };
        let (whole, is_certain) = modules.complete(&format!("{module}{inside}"));
        *module = whole[..whole.len() - inside.len()].to_owned();
        if !is_certain {
            uncertain.insert(index);
        }
    }
    uncertain
}

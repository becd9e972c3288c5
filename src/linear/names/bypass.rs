//! Modules that PyTorch does not call: the code of a module around them multiplies by their weights itself, as
//! `nn.MultiheadAttention` does with `out_proj`. PEFT's LoRA replaces what a module does when it is called, so it has
//! no effect there and never learns.

use std::collections::HashSet;

use super::dynamo::Signature;
use super::tensor::base_name;
use super::{dynamo, is_call_of, torchscript};
use crate::linear::module::{ancestors, leaf, parent, without_call_number};
use crate::onnx::{Graph, NodeView};

/// Parameters that `nn.MultiheadAttention` alone has. Source: torch/nn/modules/activation.py of PyTorch 2.9.
const OF_ATTENTION: [&str; 3] = ["in_proj_weight", "in_proj_bias", "q_proj_weight"];
/// The module inside it that it does not call.
const OUT_PROJ: &str = "out_proj";

/// A class that reads the weights of its modules in the forward pass that is traced, and calls them in training.
/// Source: the fast path of torch/nn/modules/transformer.py.
const FAST_PATH: &str = "TransformerEncoderLayer";

/// What shows that modules are not called.
#[derive(Default)]
pub(crate) struct Bypass {
    /// Whether nodes record the module whose code computes them.
    records_calls: bool,
    /// The paths of attentions by their parameters.
    attentions: HashSet<String>,
}

impl Bypass {
    /// Reads the names of the nodes and tensors of all graphs, the parameters in `signature`, and `others`, those of a
    /// checkpoint.
    pub(crate) fn new<'a>(
        graph: &Graph<'_>,
        signature: &Signature<'a>,
        others: impl Iterator<Item = &'a str>,
    ) -> Bypass {
        let mut bypass = Bypass::default();
        for (_, node) in (0..graph.scopes()).flat_map(|scope| graph.nodes(scope)) {
            bypass.records_calls |= caller(node).is_some_and(|path| !path.is_empty());
            node.inputs().iter().for_each(|name| bypass.add(base_name(name)));
        }
        signature.names().chain(others).for_each(|name| bypass.add(name));
        bypass
    }

    fn add(&mut self, parameter: &str) {
        if let Some((module, _)) = parameter.rsplit_once('.').filter(|(_, name)| OF_ATTENTION.contains(name)) {
            self.attentions.insert(module.to_owned());
        }
    }

    /// Whether PyTorch does not call the module of this name for the product that `node` computes.
    pub(crate) fn is_bypassed(&self, node: NodeView<'_>, module: &str) -> bool {
        match caller(node).filter(|_| self.records_calls) {
            Some(caller) => is_around(&caller, module),
            None => leaf(module) == OUT_PROJ && self.attentions.contains(parent(module)),
        }
    }
}

/// The path of the module whose code computes the product, if the node records it; empty for the whole model.
fn caller(node: NodeView<'_>) -> Option<String> {
    match dynamo::traced(node) {
        Some(traced) => (!traced.class.is_some_and(|class| class.ends_with(FAST_PATH))).then_some(traced.module),
        None => torchscript::caller(node.name()),
    }
}

/// Whether `caller` is the path of a module around `module`; either may lack containers that the other has.
fn is_around(caller: &str, module: &str) -> bool {
    let last = leaf(caller);
    let is_last = |path: &str| leaf(path) == last || without_call_number(last) == Some(leaf(path));
    caller.is_empty() || (!is_call_of(caller, module) && ancestors(parent(module)).any(is_last))
}

#[cfg(test)]
mod tests {
    use super::is_around;

    #[test]
    fn modules_around_others() {
        assert!(is_around("", "fc"));
        assert!(is_around("enc.self_attn", "enc.self_attn.out_proj"));
        assert!(is_around("layers.0.self_attn", "encoder.layers.0.self_attn.out_proj"));
        assert!(is_around("enc.self_attn_1", "enc.self_attn.out_proj"));
        assert!(!is_around("enc.self_attn.out_proj", "enc.self_attn.out_proj"));
        assert!(!is_around("enc.self_attn.out_proj_1", "enc.self_attn.out_proj"));
        assert!(!is_around("blocks.0.a_b", "blocks.0.d.a_b"));
        assert!(!is_around("twin", "attn.q"));
    }
}

//! Module paths in the names of nodes and tensors, as TorchScript and the genai builder write them:
//! `/model/layers.0/self_attn/q_proj/MatMul`.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use crate::linear::module::{is_plausible, is_suffix};
use crate::onnx::Graph;

/// The module tree, as the paths in the names of nodes show it.
#[derive(Default)]
pub(crate) struct NodePaths {
    /// Paths of modules that do more than multiply and add, or that have other modules inside.
    containers: HashSet<String>,
    /// Modules that choose among their results.
    choosing: HashSet<String>,
}

/// What an exported linear layer consists of, whatever the exporter.
const PARTS: [&str; 24] = [
    "Add",
    "Cast",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Flatten",
    "FusedMatMul",
    "Gather",
    "Gemm",
    "Identity",
    "MatMul",
    "MatMulBnb4",
    "MatMulInteger",
    "MatMulNBits",
    "QLinearAdd",
    "QLinearMatMul",
    "QuantizeLinear",
    "Reshape",
    "Shape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Operators of routers, whose weights are called like those of linear layers.
const CHOICES: [&str; 4] = ["ArgMax", "Sigmoid", "Softmax", "TopK"];

impl NodePaths {
    /// Reads the names of the nodes of the main graph and its subgraphs.
    pub(crate) fn new(graph: &Graph<'_>) -> NodePaths {
        let mut paths = NodePaths::default();
        let scopes = (0..graph.scopes()).filter(|scope| !graph.in_function(*scope));
        for (_, node) in scopes.flat_map(|scope| graph.nodes(scope)).filter(|(_, node)| is_plausible(node.name())) {
            let Some((path, tail)) = node.name().strip_prefix('/').and_then(|name| name.rsplit_once('/')) else {
                continue;
            };
            if !PARTS.contains(&node.op()) && !tail.contains("_quant") {
                paths.containers.insert(path.to_owned());
            }
            paths.containers.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
            if CHOICES.contains(&node.op()) {
                paths.choosing.insert(dotted(path));
            }
        }
        paths
    }

    /// Whether the node is in the module of this name, and the module chooses among its own results.
    pub(crate) fn chooses(&self, node: &str, module: &str) -> bool {
        around(node).is_some_and(|path| is_suffix(module, &path) && self.choosing.contains(&path))
    }

    /// The module path in a node's name, if that module can be a linear layer.
    pub(crate) fn of_node(&self, name: &str) -> Option<String> {
        let (path, tail) = name.strip_prefix('/')?.rsplit_once('/')?;
        (is_product(tail) && !self.containers.contains(path)).then(|| dotted(path))
    }

    /// The module path in the name of a product's result, if that module can be a linear layer.
    pub(crate) fn of_output(&self, name: &str) -> Option<String> {
        self.of_node(node_of_output(name)?)
    }
}

/// Whether the last part of a node's name is that of a product.
pub(crate) fn is_product(tail: &str) -> bool {
    static PRODUCT: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new("^(MatMul|Gemm|Gemm_MatMul|FusedMatMul)(_[0-9]+)?(_quant|_Q[48]|_matmul_Q[48]|_Bnb4)*$").ok()
    });
    PRODUCT.as_ref().is_some_and(|product| product.is_match(tail))
}

/// The path of the module whose code computes a product, by the name of its node; empty for the whole model.
pub(crate) fn caller(node: &str) -> Option<String> {
    let name = node.strip_prefix('/')?;
    let (path, tail) = name.rsplit_once('/').unwrap_or(("", name));
    is_product(tail).then(|| dotted(path))
}

/// The name of the node in the name of its first output.
fn node_of_output(name: &str) -> Option<&str> {
    let name = name.strip_suffix("_output_quantized").unwrap_or(name);
    name.strip_suffix("/output_0").or_else(|| name.strip_suffix("_output_0"))
}

/// The module path in the name of a tensor that a node of any kind in the module produces.
pub(crate) fn parent_of_output(name: &str) -> Option<String> {
    around(node_of_output(name)?)
}

/// The path of the module that a node is in, by its name.
pub(crate) fn around(node: &str) -> Option<String> {
    let (path, _) = node.strip_prefix('/')?.rsplit_once('/')?;
    Some(dotted(path))
}

/// The dotted form of a path. An `nn.Sequential` appears twice, as in `seq/seq.0`.
fn dotted(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        let repeats = |last: &&mut &str| part.strip_prefix(**last).is_some_and(|rest| rest.starts_with('.'));
        match parts.last_mut().filter(repeats) {
            Some(last) => *last = part,
            None => parts.push(part),
        }
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, module: Option<&str>) {
        let paths = NodePaths { containers: HashSet::from(["enc/self_attn".to_owned()]), ..NodePaths::default() };
        assert_eq!(paths.of_node(name).as_deref(), module, "{name}");
    }

    #[test]
    fn node_names() {
        check("/model/layers.0/self_attn/q_proj/MatMul", Some("model.layers.0.self_attn.q_proj"));
        check("/lm_head/MatMul_1", Some("lm_head"));
        check("/transformer/h.0/attn/c_attn/Gemm_MatMul_quant", Some("transformer.h.0.attn.c_attn"));
        check("/model/layers.0/attn/o_proj/MatMul_matmul_Q4", Some("model.layers.0.attn.o_proj"));
        check("/0/auto_model/encoder/layer.0/output/dense/MatMul", Some("0.auto_model.encoder.layer.0.output.dense"));
        check("/enc/self_attn/MatMul", None);
        check("/MatMul", None);
        check("node_linear_3", None);
        check("MatMul_92", None);
        check("/blocks.0/act/Relu", None);
    }

    #[test]
    fn sequential_modules_appear_once() {
        check("/blocks.0/seq/seq.0/MatMul", Some("blocks.0.seq.0"));
        check("/seq/seq.1/seq.1.0/MatMul", Some("seq.1.0"));
        check("/fc/fc1/MatMul", Some("fc.fc1"));
    }

    #[test]
    fn output_names() {
        let paths = NodePaths::default();
        let module = Some("a.q".to_owned());
        assert_eq!(paths.of_output("/a/q/MatMul_output_0"), module);
        assert_eq!(paths.of_output("/a/q/MatMul/output_0"), module);
        assert_eq!(paths.of_output("/a/q/MatMul_output_0_output_quantized"), module);
        assert_eq!(paths.of_output("logits"), None);
    }
}

//! The way that gradients take from the loss back to the adapter.

use super::PREFIX;
use crate::dtype::DType;
use crate::graph::constant;
use crate::onnx::{Attribute, Constant, Dim, Graph, Node, NodeView, Takeover};
use std::collections::{BTreeMap, HashSet};

/// What was found on the way.
#[derive(Default)]
pub(super) struct Found {
    /// What has no gradient, one clause each.
    pub(super) reasons: Vec<String>,
    /// Slices in place of splits with unused results.
    pub(super) takeovers: Vec<Takeover>,
    /// Their constants.
    pub(super) constants: Vec<(String, Constant)>,
}

/// Operators whose gradients ONNX Runtime Training 1.19.2 computes correctly, measured one by one.
const WITH_GRADIENT: &str = " Abs Add AveragePool Cast Clip Concat Conv Cos Div Dropout Erf Exp Expand Flatten Gather \
     GatherElements GatherND Gelu Gemm GlobalAveragePool Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max \
     MaxPool Min Mul Neg Pad Pow Reciprocal ReduceL2 ReduceLogSumExp ReduceMean ReduceSum Relu Reshape ScatterElements \
     ScatterND Sigmoid Sin Slice Softmax SoftmaxCrossEntropyLoss Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu \
     Unsqueeze Where com.microsoft.BiasGelu com.microsoft.FastGelu com.microsoft.Gelu com.microsoft.MatMulBnb4 \
     com.microsoft.QuickGelu ";

/// Operators whose result does not vary with the values of their inputs, or only in steps.
const CONSTANT: &str = " And ArgMax ArgMin Ceil ConstantOfShape Equal Floor Greater GreaterOrEqual IsInf IsNaN Less \
     LessOrEqual NonZero Not Or Range Round Shape Sign Size Xor ";

/// Follows the graph from the `trainable` tensors to `loss`.
pub(super) fn find(graph: &Graph<'_>, trainable: &[String], loss: &str) -> Found {
    let mut varies: HashSet<&str> = trainable.iter().map(String::as_str).collect();
    for (_, node) in graph.nodes(0) {
        if node.inputs().iter().any(|name| varies.contains(name.as_str())) && !is_constant(node) {
            varies.extend(node.outputs().iter().map(String::as_str).filter(|name| !name.is_empty()));
        }
    }
    let mut needed: HashSet<&str> = HashSet::from([loss]);
    let nodes: Vec<NodeView<'_>> = graph.nodes(0).map(|(_, node)| node).collect();
    for node in nodes.iter().rev() {
        if node.outputs().iter().any(|name| needed.contains(name.as_str())) {
            needed.extend(node.inputs().iter().map(String::as_str).filter(|name| varies.contains(name)));
        }
    }
    let mut found = Found::default();
    let mut unsupported: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let on_way = |node: &NodeView<'_>| {
        node.outputs().iter().any(|name| needed.contains(name.as_str()) && varies.contains(name.as_str()))
    };
    for node in nodes.iter().filter(|node| on_way(node)) {
        let op =
            if node.domain().is_empty() { node.op().to_owned() } else { format!("{}.{}", node.domain(), node.op()) };
        if !WITH_GRADIENT.contains(&format!(" {op} ")) {
            unsupported.entry(op).or_default().push(node.name());
        } else if op == "Split" {
            split(graph, *node, &needed, &mut found);
        } else if op == "Slice" && backwards(graph, *node) {
            found.reasons.push(format!("`{}` slices backwards, which has no gradient there", node.name()));
        }
    }
    found.reasons.extend(unsupported.into_iter().map(|(op, nodes)| {
        let more = if nodes.len() > 1 { format!(" and {} more", nodes.len() - 1) } else { String::new() };
        format!("the operator {op} (`{}`{more}) has no gradient there", nodes[0])
    }));
    inside(graph, &varies, &mut found);
    found
}

fn is_constant(node: NodeView<'_>) -> bool {
    let to = node.int("to").and_then(|to| DType::from_onnx(i32::try_from(to).ok()?));
    let whole = node.op() == "Cast" && node.int("to").is_some() && !to.is_some_and(DType::is_float);
    whole || CONSTANT.contains(&format!(" {} ", node.op()))
}

fn backwards(graph: &Graph<'_>, node: NodeView<'_>) -> bool {
    let steps = node.input(4).and_then(|name| constant::resolve(graph, 0, name));
    let values = steps.and_then(|steps| constant::ints(&steps.tensor));
    values.is_some_and(|values| values.iter().any(|step| *step < 0))
}

/// Subgraphs that read what varies: their operators have no gradient.
fn inside(graph: &Graph<'_>, varies: &HashSet<&str>, found: &mut Found) {
    for scope in (1..graph.scopes()).filter(|scope| !graph.in_function(*scope)) {
        let outer = |name: &String| graph.home(scope, name) == Some(0) && varies.contains(name.as_str());
        if graph.nodes(scope).any(|(_, node)| node.inputs().iter().any(outer)) {
            let path = graph.path(scope).join("/");
            found.reasons.push(format!("the subgraph `{path}` depends on the adapter, and has no gradient there"));
        }
    }
}

/// A split whose results do not all reach the loss gets a wrong gradient, so each that does becomes a slice.
fn split(graph: &Graph<'_>, node: NodeView<'_>, needed: &HashSet<&str>, found: &mut Found) {
    let outputs = node.outputs();
    if outputs.iter().all(|name| needed.contains(name.as_str())) {
        return;
    }
    let axis = node.int("axis").unwrap_or(0);
    let Some(sizes) = sizes(graph, node, axis) else {
        found.reasons.push(format!("`{}` splits into parts of unknown sizes, of which some are unused", node.name()));
        return;
    };
    let input = node.input(0).unwrap_or_default();
    let mut start = 0;
    for (output, size) in outputs.iter().zip(sizes) {
        let end = start + size;
        if needed.contains(output.as_str()) {
            let name = |part: &str| format!("{PREFIX}{output}/{part}");
            let int = |part: &str, value| (name(part), Constant::I64(vec![1], vec![value]));
            found.constants.extend([int("start", start), int("end", end), int("axis", axis)]);
            let inputs = vec![input.to_owned(), name("start"), name("end"), name("axis")];
            let outputs = vec![output.clone()];
            let slice =
                Node { name: name("Slice"), op: "Slice", inputs, outputs, attributes: Vec::<(&str, Attribute)>::new() };
            let takeover =
                Takeover { scope: Vec::new(), tensor: output.clone(), raw: name("split"), nodes: vec![slice] };
            found.takeovers.push(takeover);
        }
        start = end;
    }
}

fn sizes(graph: &Graph<'_>, node: NodeView<'_>, axis: i64) -> Option<Vec<i64>> {
    if let Some(sizes) = node.ints("split") {
        return Some(sizes.to_vec());
    }
    if let Some(name) = node.input(1) {
        return constant::resolve(graph, 0, name).and_then(|sizes| constant::ints(&sizes.tensor));
    }
    let shape = graph.value(0, node.input(0)?)?.shape?;
    let axis = if axis < 0 { shape.len() as i64 + axis } else { axis };
    let Dim::Fixed(total) = shape.get(usize::try_from(axis).ok()?)? else { return None };
    let parts = node.outputs().len() as i64;
    let size = (total + parts - 1) / parts;
    Some((0..parts).map(|part| size.min(total - part * size)).collect())
}

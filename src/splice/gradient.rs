//! Checking that gradients reach the adapter from the loss.

use super::names::PREFIX;
use super::obstacle::Obstacle;
use crate::graph::constant;
use crate::onnx::{Builder, Constant, Dim, Graph, NodeView, Takeover};
use std::collections::{BTreeMap, HashSet};

/// What is between the adapter and the loss.
#[derive(Default)]
pub(super) struct GradientPath {
    /// What has no gradient.
    pub(super) obstacles: Vec<Obstacle>,
    /// Slices that replace splits with unused results.
    pub(super) takeovers: Vec<Takeover>,
    /// Their constants.
    pub(super) constants: Vec<(String, Constant)>,
}

/// Operators whose gradients ONNX Runtime Training 1.19.2 computes correctly, measured one by one.
///
/// Separated by white space, as are the lists below.
const WITH_GRADIENT: &str = "
    Abs Add AveragePool Cast Clip Concat Conv Cos Div Dropout Erf Exp Expand Flatten Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool Identity LayerNormalization LeakyRelu Log LogSoftmax MatMul Max
    MaxPool Min Mul Neg Pad Pow Reciprocal ReduceL2 ReduceLogSumExp ReduceMean ReduceSum Relu Reshape
    ScatterElements ScatterND Sigmoid Sin Slice Softmax SoftmaxCrossEntropyLoss Split Sqrt Squeeze Sub Tanh
    Tile TopK Transpose Trilu Unsqueeze Where
";

/// The same for the domain `com.microsoft`.
const WITH_GRADIENT_MICROSOFT: &str = "BiasGelu FastGelu Gelu MatMulBnb4 QuickGelu";

/// Operators whose result does not vary with the values of their inputs, or only in steps.
const WITHOUT_SLOPE: &str = "
    And ArgMax ArgMin Ceil ConstantOfShape Equal Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual
    NonZero Not Or Range Round Shape Sign Size Xor
";

fn contains(list: &str, op: &str) -> bool {
    list.split_whitespace().any(|listed| listed == op)
}

/// Follows the graph from the `trainable` tensors to `loss`.
pub(super) fn find(graph: &Graph<'_>, trainable: &[String], loss: &str) -> GradientPath {
    let nodes: Vec<NodeView<'_>> = graph.nodes(0).map(|(_, node)| node).collect();
    let varying = varying(&nodes, trainable);
    let needed = needed(&nodes, &varying, loss);
    let is_between = |node: &&NodeView<'_>| {
        node.outputs().iter().any(|name| needed.contains(name.as_str()) && varying.contains(name.as_str()))
    };
    let mut path = GradientPath::default();
    let mut without: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(is_between) {
        let op = node.op();
        let known = match node.domain() {
            "" => contains(WITH_GRADIENT, op),
            "com.microsoft" => contains(WITH_GRADIENT_MICROSOFT, op),
            _ => false,
        };
        if !known {
            let domain = node.domain();
            let op = if domain.is_empty() { op.to_owned() } else { format!("{domain}.{op}") };
            without.entry(op).or_default().push(node.name());
        } else if op == "Split" {
            replace_split(graph, *node, &needed, &mut path);
        } else if op == "Slice" && slices_backwards(graph, *node) {
            path.obstacles.push(Obstacle::SlicesBackwards { node: node.name().to_owned() });
        }
    }
    path.obstacles.extend(without.into_iter().map(|(op, nodes)| Obstacle::NoGradient {
        op,
        node: nodes[0].to_owned(),
        more: nodes.len() - 1,
    }));
    path.obstacles.extend(subgraphs(graph, &varying));
    path
}

/// Those of the `trainable` tensors that `loss` is not computed from, in their order.
pub(super) fn unreached<'t>(graph: &Graph<'_>, trainable: &'t [String], loss: &str) -> Vec<&'t String> {
    let nodes: Vec<NodeView<'_>> = graph.nodes(0).map(|(_, node)| node).collect();
    let needed = needed(&nodes, &varying(&nodes, trainable), loss);
    trainable.iter().filter(|name| !needed.contains(name.as_str())).collect()
}

/// The tensors of the main graph that vary with the `trainable` ones.
fn varying<'g>(nodes: &[NodeView<'g>], trainable: &'g [String]) -> HashSet<&'g str> {
    let mut varying: HashSet<&str> = trainable.iter().map(String::as_str).collect();
    for node in nodes {
        if node.inputs().iter().any(|name| varying.contains(name.as_str())) && !has_no_slope(*node) {
            varying.extend(node.outputs().iter().map(String::as_str).filter(|name| !name.is_empty()));
        }
    }
    varying
}

/// The varying tensors that `loss` is computed from.
fn needed<'g>(nodes: &[NodeView<'g>], varying: &HashSet<&str>, loss: &'g str) -> HashSet<&'g str> {
    let mut needed: HashSet<&str> = HashSet::from([loss]);
    for node in nodes.iter().rev() {
        if node.outputs().iter().any(|name| needed.contains(name.as_str())) {
            needed.extend(node.inputs().iter().map(String::as_str).filter(|name| varying.contains(name)));
        }
    }
    needed
}

fn has_no_slope(node: NodeView<'_>) -> bool {
    match (node.op(), node.dtype("to")) {
        ("Cast", Some(dtype)) => !dtype.is_float(),
        (op, _) => contains(WITHOUT_SLOPE, op),
    }
}

fn slices_backwards(graph: &Graph<'_>, node: NodeView<'_>) -> bool {
    let steps = node.input(4).and_then(|name| constant::resolve(graph, 0, name));
    let values = steps.and_then(|steps| constant::ints(&steps.tensor));
    values.is_some_and(|values| values.iter().any(|step| *step < 0))
}

/// Subgraphs that read varying tensors: ONNX Runtime Training has no gradient for what is inside.
fn subgraphs(graph: &Graph<'_>, varying: &HashSet<&str>) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for scope in (1..graph.scopes()).filter(|scope| !graph.in_function(*scope)) {
        let varies = |name: &String| graph.home(scope, name) == Some(0) && varying.contains(name.as_str());
        if graph.nodes(scope).any(|(_, node)| node.inputs().iter().any(varies)) {
            found.push(Obstacle::Subgraph { path: graph.path(scope).join("/") });
        }
    }
    found
}

/// A split whose results do not all reach the loss gets a wrong gradient, so each that does becomes a slice.
fn replace_split(graph: &Graph<'_>, node: NodeView<'_>, needed: &HashSet<&str>, path: &mut GradientPath) {
    let outputs = node.outputs();
    if outputs.iter().all(|name| needed.contains(name.as_str())) {
        return;
    }
    let axis = node.int("axis").unwrap_or(0);
    let Some(sizes) = split_sizes(graph, node, axis) else {
        path.obstacles.push(Obstacle::SplitSizes { node: node.name().to_owned() });
        return;
    };
    let mut from = 0;
    for (output, size) in outputs.iter().zip(sizes) {
        let to = from + size;
        if needed.contains(output.as_str()) {
            let mut new = Builder::new(format!("{PREFIX}{output}"), graph.model().opset());
            let start = new.constant("start", Constant::ints(vec![from]));
            let end = new.constant("end", Constant::ints(vec![to]));
            let axis = new.constant("axis", Constant::ints(vec![axis]));
            let input = node.input(0).unwrap_or_default();
            new.op("Slice", &[input, &start, &end, &axis]).named("Slice").to(output);
            let raw = new.name("split");
            let (nodes, constants) = new.finish();
            path.constants.extend(constants);
            path.takeovers.push(Takeover { subgraph: Vec::new(), tensor: output.clone(), raw, nodes });
        }
        from = to;
    }
}

fn split_sizes(graph: &Graph<'_>, node: NodeView<'_>, axis: i64) -> Option<Vec<i64>> {
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

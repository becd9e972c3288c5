//! Which nodes are linear layers.

use super::confirm::Modules;
use super::operand::{self, Operand};
use super::{Linear, Skipped, attention, block, integer, names, settle};
use crate::checkpoint::Checkpoint;
use crate::onnx::{Graph, Model, NodeView, Place};

/// A node that multiplies by a constant matrix.
#[derive(Clone)]
pub(crate) struct Candidate<'m> {
    pub(crate) place: Place,
    pub(crate) node: NodeView<'m>,
    pub(crate) input: &'m str,
    /// The float tensor that holds the result before a bias of a later node.
    pub(crate) output: &'m str,
    /// Where the search for a bias of a later node starts.
    pub(crate) product: &'m str,
    /// Why no float tensor holds the result alone; `output` is then what the node returns.
    pub(crate) fused: Option<&'static str>,
    pub(crate) weight: Operand<'m>,
    /// Index of the node's own bias input.
    pub(crate) bias_input: Option<usize>,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// Whether the stored matrix is [in, out].
    pub(crate) stored_in_out: bool,
}

/// A node that is a layer, one that is none, or why it cannot be used.
pub(crate) type Found<'m> = Result<Option<Candidate<'m>>, String>;

/// Lists the linear layers of the main graph and of the branches of its `If` nodes in node order, and the nodes that look like linear layers but are not used.
///
/// Nodes without a constant operand (the products inside attention) are in neither list. `model_type` is the name of the
/// architecture where it is known, as in a `config.json`; it tells whether packed projections were packed by the exporter.
pub fn find(model: &Model, model_type: Option<&str>) -> (Vec<Linear>, Vec<Skipped>) {
    let Layers { linears, skipped, .. } = find_knowing(model, &Known { model_type, ..Known::default() });
    (linears, skipped)
}

/// What is known of a model beside its graph.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// The name of its architecture, as in a `config.json`.
    pub model_type: Option<&'a str>,
    /// The class of the whole model, for example `LlamaForCausalLM`.
    pub architecture: Option<&'a str>,
    /// The weights that it was exported from, by name.
    pub checkpoint: Option<&'a Checkpoint>,
    /// Whether to take names from the paths in the names of nodes where nothing else confirms them.
    pub trust_node_names: bool,
}

/// The layers of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Those that can be used.
    pub linears: Vec<Linear>,
    /// Nodes that look like layers but cannot be used.
    pub skipped: Vec<Skipped>,
    /// Where the checkpoint and the graph disagree, and how many layers lack a name, as sentences.
    pub notes: Vec<String>,
}

/// Lists the layers as [`find`] does; a checkpoint names those that the graph does not name, or names differently.
///
/// Weights are compared by value, exactly as far as their element types allow, and by the cosines of their columns if they
/// are quantized.
pub fn find_knowing(model: &Model, known: &Known<'_>) -> Layers {
    let graph = Graph::new(model);
    let mut skipped = Vec::new();
    let mut candidates = Vec::new();
    for scope in 0..graph.scopes() {
        for (place, node) in graph.nodes(scope) {
            match candidate(&graph, place, node).and_then(|found| reachable(&graph, found)) {
                Ok(found) => candidates.extend(found),
                Err(reason) => skipped.push(skip(node, reason)),
            }
        }
    }
    let modules = Modules::new(&graph);
    let mut names = names::all(&graph, &candidates, &modules);
    settle::merge_repeated_calls(&candidates, &mut names);
    let (linears, notes) = settle::linears(&graph, &candidates, names, &modules, known, &mut skipped);
    Layers { linears, skipped, notes }
}

/// The entry for a node that is not used.
pub(crate) fn skip(node: NodeView<'_>, reason: String) -> Skipped {
    let name = Some(node.name()).filter(|name| !name.is_empty()).or(node.output()).unwrap_or_default();
    Skipped { node: name.to_owned(), op: node.op().to_owned(), reason }
}

/// Refuses layers of local functions and of loops, whose tensors are made several times in a run.
fn reachable<'m>(graph: &Graph<'m>, found: Option<Candidate<'m>>) -> Found<'m> {
    let Some(found) = found else { return Ok(None) };
    let scope = found.place.scope;
    let branch = |step: &String| step.ends_with(".then_branch") || step.ends_with(".else_branch");
    if graph.path(scope).iter().all(branch) {
        return Ok(Some(found));
    }
    let path = graph.path(scope).join("/");
    let kind = if graph.in_function(scope) { "local function" } else { "loop" };
    Err(format!("it is inside the {kind} `{path}`, and only layers of the main graph and its branches are used"))
}

/// The candidate that `node` is, nothing if it has no constant weight, or why it cannot be used.
fn candidate<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    match (node.domain(), node.op()) {
        ("", "MatMul") => product(graph, place, node, false),
        ("com.microsoft", "FusedMatMul" | "TransposeMatMul") => fused(graph, place, node),
        ("", "Gemm") => gemm(graph, place, node),
        ("com.microsoft", "FusedGemm") => activated(graph, place, node),
        ("com.microsoft", "MatMulNBits" | "MatMulBnb4") => block::product(graph, place, node),
        _ if attention::is_fused(node) => attention::projections(graph, place, node),
        ("", "MatMulInteger") => integer::dynamic(graph, place, node),
        ("com.microsoft", "MatMulIntegerToFloat" | "DynamicQuantizeMatMul") => integer::to_float(graph, place, node),
        ("", "QLinearMatMul") | ("com.microsoft", "QGemm") => integer::quantized(graph, place, node),
        ("com.microsoft", "MoE" | "QMoE") if is_constant(graph, place, node, 2) => {
            Err("it holds all experts of a layer in one operator".to_owned())
        }
        _ => Ok(None),
    }
}

fn is_constant<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>, index: usize) -> bool {
    node.input(index).is_some_and(|name| operand::resolve(graph, place.scope, name).is_some())
}

fn product<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>, trans_b: bool) -> Found<'m> {
    let (Some(left), Some(right), Some(output)) = (node.input(0), node.input(1), node.output()) else {
        return Ok(None);
    };
    let constant = |name| operand::resolve(graph, place.scope, name);
    let weight = match (constant(left), constant(right)) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err("its constant is on the left".to_owned()),
        (Some(input), Some(weight)) if is_arithmetic(&input, &weight) => return Ok(None),
        (_, Some(weight)) => weight,
    };
    if !["f32", "f16", "bf16", "f64"].contains(&weight.dtype.as_str()) {
        return Err(format!("it multiplies values of type {}", weight.dtype));
    }
    let (rows, columns) = matrix(&weight)?;
    let (in_features, out_features) = if trans_b { (columns, rows) } else { (rows, columns) };
    let stored_in_out = weight.transposed == trans_b;
    let bias_input = None;
    Ok(Some(Candidate {
        place,
        node,
        input: integer::unquantized(graph, place.scope, left),
        output,
        product: output,
        fused: None,
        weight,
        bias_input,
        in_features,
        out_features,
        stored_in_out,
    }))
}

/// Whether constants are multiplied that are no layer and its input, but vectors or numbers.
fn is_arithmetic(input: &Operand<'_>, weight: &Operand<'_>) -> bool {
    let rows = input.dims.as_ref().is_some_and(|dims| dims.len() > 1 && dims.last().is_some_and(|width| *width > 1));
    !rows || !matrix(weight).is_ok_and(|(rows, columns)| rows > 1 && columns > 1)
}

/// Rows and columns of an operand that must be a matrix.
pub(crate) fn matrix(weight: &Operand<'_>) -> Result<(usize, usize), String> {
    let dims = weight.dims.as_ref().ok_or("its constant passes through a reshape that cannot be followed")?;
    let [rows, columns] = dims[..] else {
        return Err(format!("its constant has {} dimensions", dims.len()));
    };
    let size = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0);
    size(rows).zip(size(columns)).ok_or_else(|| format!("its constant has shape {dims:?}"))
}

fn fused<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let set = |name| node.int(name).is_some_and(|value| value != 0);
    let found = product(graph, place, node, set("transB"))?;
    match found {
        Some(_) if set("transA") || set("transBatchA") || set("transBatchB") => {
            Err("it transposes its input".to_owned())
        }
        Some(found) if node.float("alpha").is_some_and(|alpha| alpha != 1.0) => {
            let fused = Some("it scales its result, so that no tensor holds the unscaled one");
            Ok(Some(Candidate { fused, ..found }))
        }
        found => Ok(found),
    }
}

fn gemm<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let found = fused(graph, place, node)?;
    Ok(found.map(|found| Candidate { bias_input: node.input(2).map(|_| 2), ..found }))
}

/// A `Gemm` that ONNX Runtime fused with the activation function after it.
fn activated<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let fused = Some("it is fused with an activation function, so that no tensor holds its own result");
    Ok(gemm(graph, place, node)?.map(|found| Candidate { fused, ..found }))
}

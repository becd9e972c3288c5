//! Which nodes are linear layers.

pub(crate) mod attention;
mod blocks;
mod integer;
mod product;

use super::candidate::{Candidate, Found};
use crate::graph::constant;
use crate::onnx::{Graph, NodeView, Place};

/// The candidate that `node` is, nothing if it has no constant weight, or why it cannot be used.
pub(crate) fn recognise<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    reachable(graph, candidate(graph, place, node)?)
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
        ("", "MatMul") => product::product(graph, place, node, false),
        ("com.microsoft", "FusedMatMul" | "TransposeMatMul") => product::fused(graph, place, node),
        ("", "Gemm") => product::gemm(graph, place, node),
        ("com.microsoft", "FusedGemm") => product::activated(graph, place, node),
        ("com.microsoft", "MatMulNBits" | "MatMulBnb4") => blocks::product(graph, place, node),
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
    node.input(index).is_some_and(|name| constant::resolve(graph, place.scope, name).is_some())
}

//! Which nodes are linear layers, one family of operators a file.

pub(crate) mod attention;
mod blocks;
mod integer;
mod product;

use super::candidate::{Candidate, Recognised};
use super::reason::Reason;
use crate::graph::constant;
use crate::onnx::{Graph, NodeId, NodeView};

/// The candidate that `node` is, nothing if it has no constant weight, or why it cannot be used.
pub(crate) fn recognise<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let found = match (node.domain(), node.op()) {
        ("", "MatMul") => product::matmul(graph, id, node, false),
        ("com.microsoft", "FusedMatMul" | "TransposeMatMul") => product::fused(graph, id, node),
        ("", "Gemm") => product::gemm(graph, id, node),
        ("com.microsoft", "FusedGemm") => product::activated(graph, id, node),
        ("com.microsoft", "MatMulNBits" | "MatMulBnb4") => blocks::product(graph, id, node),
        _ if attention::is_fused(node) => attention::projections(graph, id, node),
        ("", "MatMulInteger") => integer::dynamic(graph, id, node),
        ("com.microsoft", "MatMulIntegerToFloat" | "DynamicQuantizeMatMul") => integer::to_float(graph, id, node),
        ("", "QLinearMatMul") | ("com.microsoft", "QGemm") => integer::quantized(graph, id, node),
        ("com.microsoft", "MoE" | "QMoE") => experts(graph, id),
        _ => Ok(None),
    }?;
    found.map(|found| computed_once(graph, found)).transpose()
}

/// A fused mixture of experts, whose weights have three axes.
fn experts<'m>(graph: &Graph<'m>, id: NodeId) -> Recognised<'m> {
    match constant::operand(graph, id, 2) {
        Some(_) => Err(Reason::Experts),
        None => Ok(None),
    }
}

/// Refuses layers of local functions and of loops, whose tensors are computed several times in a run.
fn computed_once<'m>(graph: &Graph<'m>, found: Candidate<'m>) -> Result<Candidate<'m>, Reason> {
    let scope = found.id.scope;
    let is_branch = |step: &String| step.ends_with(".then_branch") || step.ends_with(".else_branch");
    if graph.path(scope).iter().all(is_branch) {
        return Ok(found);
    }
    let kind = if graph.in_function(scope) { "local function" } else { "loop" };
    Err(Reason::Repeated { kind, path: graph.path(scope).join("/") })
}

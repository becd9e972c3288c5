//! Products of floats: `MatMul`, `Gemm` and their fusions.

use super::integer;
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Recognised, matrix};
use crate::linear::reason::{Fused, Reason};
use crate::onnx::{Graph, NodeId, NodeView};

/// `MatMul`; `trans_b` for operators that transpose their second operand.
pub(super) fn matmul<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>, trans_b: bool) -> Recognised<'m> {
    let (Some(input), Some(_), Some(output)) = (node.input(0), node.input(1), node.output()) else {
        return Ok(None);
    };
    let left = constant::operand(graph, id, 0);
    let Some(weight) = constant::operand(graph, id, 1) else {
        return if left.is_some() { Err(Reason::ConstantLeft) } else { Ok(None) };
    };
    if left.is_some_and(|left| is_arithmetic(&left, &weight)) {
        return Ok(None);
    }
    if !weight.dtype.is_float() {
        return Err(Reason::NotFloat { dtype: weight.dtype });
    }
    let input = integer::unquantized(graph, id.scope, input);
    Candidate::new(id, node, input, output, weight, trans_b).map(Some)
}

/// Whether a product of two constants is one of vectors or numbers, and not a layer that reads a constant.
fn is_arithmetic(input: &Operand<'_>, weight: &Operand<'_>) -> bool {
    let has_rows = match input.dims.as_deref() {
        Some([_, .., width]) => *width > 1,
        _ => false,
    };
    !has_rows || !matrix(weight).is_ok_and(|(rows, columns)| rows > 1 && columns > 1)
}

/// `FusedMatMul` and the other operators with its attributes.
pub(super) fn fused<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let Some(found) = matmul(graph, id, node, node.flag("transB"))? else {
        return Ok(None);
    };
    if node.flag("transA") || node.flag("transBatchA") || node.flag("transBatchB") {
        return Err(Reason::TransposesInput);
    }
    let is_scaled = node.float("alpha").is_some_and(|alpha| alpha != 1.0);
    Ok(Some(Candidate { fused: is_scaled.then_some(Fused::Scaled), ..found }))
}

/// `Gemm`, which has a bias.
pub(super) fn gemm<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    Ok(fused(graph, id, node)?.map(|found| found.with_bias(2)))
}

/// A `Gemm` that ONNX Runtime fused with the activation function after it.
pub(super) fn activated<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    Ok(gemm(graph, id, node)?.map(|found| Candidate { fused: Some(Fused::Activation), ..found }))
}

//! Products of floats: `MatMul`, `Gemm` and their fusions.

use super::integer;
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Found, matrix};
use crate::onnx::{Graph, NodeView, Place};

pub(super) fn product<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>, trans_b: bool) -> Found<'m> {
    let (Some(left), Some(right), Some(output)) = (node.input(0), node.input(1), node.output()) else {
        return Ok(None);
    };
    let stored = |name| constant::resolve(graph, place.scope, name);
    let weight = match (stored(left), stored(right)) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err("its constant is on the left".to_owned()),
        (Some(input), Some(weight)) if is_arithmetic(&input, &weight) => return Ok(None),
        (_, Some(weight)) => weight,
    };
    if !weight.dtype.is_float() {
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

pub(super) fn fused<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
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

pub(super) fn gemm<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let found = fused(graph, place, node)?;
    Ok(found.map(|found| Candidate { bias_input: node.input(2).map(|_| 2), ..found }))
}

/// A `Gemm` that ONNX Runtime fused with the activation function after it.
pub(super) fn activated<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let fused = Some("it is fused with an activation function, so that no tensor holds its own result");
    Ok(gemm(graph, place, node)?.map(|found| Candidate { fused, ..found }))
}

//! Attention nodes that hold the projections of q, k and v: one weight for three modules, and no tensor for their result.

use super::integer;
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Found, matrix};
use crate::onnx::{Graph, NodeView, Place};

const FUSED: &str = "its projections are fused with the attention, so that no tensor holds their result";

/// Whether the node is of this kind.
pub(crate) fn is_fused(node: NodeView<'_>) -> bool {
    node.domain() == "com.microsoft" && ["Attention", "QAttention"].contains(&node.op())
}

/// The projections of an `Attention` or `QAttention`.
pub(crate) fn projections<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let constant = |index| node.input(index).and_then(|name| constant::resolve(graph, place.scope, name));
    let (Some(operand), Some(output), Some(mut weight)) = (node.input(0), node.output(), constant(1)) else {
        return Ok(None);
    };
    let mut input = operand;
    if node.op() == "QAttention" {
        input = integer::float_before(graph, place.scope, operand).ok_or("its input exists in quantized form only")?;
        let scale = constant(4).ok_or("the scale of its weight is not constant")?;
        weight = Operand { dtype: scale.dtype, ..weight };
    }
    let (in_features, out_features) = matrix(&weight)?;
    let stored_in_out = !weight.transposed;
    Ok(Some(Candidate {
        place,
        node,
        input: integer::unquantized(graph, place.scope, input),
        output,
        product: output,
        fused: Some(FUSED),
        weight,
        bias_input: node.input(2).map(|_| 2),
        in_features,
        out_features,
        stored_in_out,
    }))
}

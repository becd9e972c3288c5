//! Attention nodes that compute the projections of q, k and v: one weight for three modules, no tensor for their
//! result.

use super::integer;
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Recognised};
use crate::linear::reason::{Fused, Reason};
use crate::onnx::{Graph, NodeId, NodeView};

/// Whether the node is of this kind.
pub(crate) fn is_fused(node: NodeView<'_>) -> bool {
    node.domain() == "com.microsoft" && ["Attention", "QAttention"].contains(&node.op())
}

/// The projections of an `Attention` or `QAttention`.
pub(super) fn projections<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let (Some(mut input), Some(output)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let Some(mut weight) = constant::operand(graph, id, 1) else {
        return Ok(None);
    };
    if node.op() == "QAttention" {
        input = integer::float_before(graph, id.scope, input).ok_or(Reason::QuantizedInput)?;
        let scale = constant::operand(graph, id, 4).ok_or(Reason::ScaleNotConstant)?;
        weight = Operand { dtype: scale.dtype, ..weight };
    }
    let input = integer::unquantized(graph, id.scope, input);
    let found = Candidate::new(id, node, input, output, weight, false)?;
    Ok(Some(Candidate { fused: Some(Fused::Attention), ..found }.with_bias(2)))
}

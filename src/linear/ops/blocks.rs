//! Products with weights that are quantized in blocks, a few bits an element.

use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Recognised};
use crate::linear::reason::Reason;
use crate::onnx::{Graph, NodeId, NodeView};

/// `MatMulNBits`, with a scale for every block, and `MatMulBnb4`, with the largest absolute value of every block.
pub(super) fn product<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let (Some(input), Some(output)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let (Some(weight), Some(scales)) = (constant::operand(graph, id, 1), constant::operand(graph, id, 2)) else {
        return Ok(None);
    };
    let size = |name| node.int(name).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let (Some(in_features), Some(out_features)) = (size("K"), size("N")) else {
        return Err(Reason::NoSizes);
    };
    let found = Candidate {
        id,
        node,
        input,
        output,
        product: output,
        fused: None,
        weight: Operand { dtype: scales.dtype, ..weight },
        bias_input: None,
        in_features,
        out_features,
        // The blocks of an output feature are stored together, whatever the layout of the original was.
        stored_in_out: true,
    };
    Ok(Some(if node.op() == "MatMulNBits" { found.with_bias(5) } else { found }))
}

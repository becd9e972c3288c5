//! Products with weights that are quantized in blocks of a few bits.

use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Found};
use crate::onnx::{Graph, NodeView, Place};

/// `MatMulNBits`, with a scale for every block, and `MatMulBnb4`, with the largest absolute value of every block.
pub(crate) fn product<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let (Some(input), Some(packed), Some(output)) = (node.input(0), node.input(1), node.output()) else {
        return Ok(None);
    };
    let scales = node.input(2).and_then(|name| constant::resolve(graph, place.scope, name));
    let Some((weight, scales)) = constant::resolve(graph, place.scope, packed).zip(scales) else {
        return Ok(None);
    };
    let size = |name| node.int(name).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let (in_features, out_features) = size("K").zip(size("N")).ok_or("its attributes K and N are missing")?;
    let weight = Operand { dtype: scales.dtype, ..weight };
    let bias_input = node.input(5).filter(|_| node.op() == "MatMulNBits").map(|_| 5);
    Ok(Some(Candidate {
        place,
        node,
        input,
        output,
        product: output,
        fused: None,
        weight,
        bias_input,
        in_features,
        out_features,
        // The blocks of a row of the result are stored together, whatever the layout of the original was.
        stored_in_out: true,
    }))
}

//! Rotated positions: the gradient is rotated back, which is a rotation with the sines negated.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use crate::onnx::{Attribute, NodeView};

/// `y = R x` with a rotation `R` of pairs of features: `R^T g`.
pub(super) fn rotary<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if (1..node.inputs().len()).any(|index| tape.wants(node, index)) {
        return Err(Unsupported::Form("for its angles"));
    }
    if node.float("scale").is_some_and(|scale| scale != 1.0) {
        return Err(Unsupported::Form("with a scale"));
    }
    let names = ["interleaved", "num_heads", "rotary_embedding_dim", "is_packed_batching"];
    let attributes = names.into_iter().filter_map(|name| Some((name, Attribute::Int(node.int(name)?))));
    let attributes: Vec<_> = attributes.collect();
    let contributed = node.domain() == "com.microsoft";
    let sines = tape.op("Neg", &[input(node, if contributed { 3 } else { 2 })?], &[]);
    let gradient = if contributed {
        tape.op("com.microsoft:RotaryEmbedding", &[g, input(node, 1)?, input(node, 2)?, &sines], &attributes)
    } else {
        let operands: Vec<&str> = [g, input(node, 1)?, &sines].into_iter().chain(node.input(3)).collect();
        tape.op("RotaryEmbedding", &operands, &attributes)
    };
    Ok(vec![Some(gradient)])
}

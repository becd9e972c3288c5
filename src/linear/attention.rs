//! Attention nodes that hold the projections of q, k and v: one weight for three modules, and no tensor for their result.

use super::find::{Candidate, Found, matrix};
use super::operand::{self, Operand};
use super::{Part, integer, path};
use crate::onnx::{Graph, NodeView, Place};

const FUSED: &str = "its projections are fused with the attention, so that no tensor holds their result";

/// How the projections are called in the modules that optimizers fuse, by how the module around them is called.
const LEAVES: [(&str, [&str; 3]); 5] = [
    ("attention.self", ["query", "key", "value"]),
    ("attention.attention", ["query", "key", "value"]),
    ("self_attn", ["q_proj", "k_proj", "v_proj"]),
    ("encoder_attn", ["q_proj", "k_proj", "v_proj"]),
    ("attention", ["q_lin", "k_lin", "v_lin"]),
];

/// Whether the node is of this kind.
pub(crate) fn is_fused(node: NodeView<'_>) -> bool {
    node.domain() == "com.microsoft" && ["Attention", "QAttention"].contains(&node.op())
}

/// The projections of an `Attention` or `QAttention`.
pub(crate) fn projections<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let constant = |index| node.input(index).and_then(|name| operand::resolve(graph, place.scope, name));
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

/// The module around the projections, from the name of the attention's result.
///
/// Nothing if the weight is not one that an optimizer packed: it is then that of a module which packs them itself.
pub(crate) fn parent(candidate: &Candidate<'_>) -> Option<String> {
    let packed = candidate.weight.names.iter().any(|name| name.contains("_qkv_weight"));
    path::parent_of_output(candidate.output).filter(|_| packed && is_fused(candidate.node))
}

/// q, k and v, or why they cannot be told apart or named.
pub(crate) fn parts(candidate: &Candidate<'_>, parent: &str) -> Result<Vec<Part>, String> {
    let [q, k, v] = widths(candidate).ok_or("it packs q, k and v, and their widths cannot be told")?;
    let distil = || parent.contains("transformer.layer.");
    let is = |end: &str| parent.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let known = LEAVES.iter().find(|(end, leaves)| is(end) && (leaves[0] != "q_lin" || distil()));
    let albert = parent.contains("albert_layer_groups.").then_some(["query", "key", "value"]);
    let unknown = || {
        format!("it packs the projections of `{parent}`, whose names are not in the file; --checkpoint would tell them")
    };
    let [a, b, c] = albert.or(known.map(|(_, leaves)| *leaves)).ok_or_else(unknown)?;
    let part =
        |leaf: &str, start, end| Part { module: format!("{parent}.{leaf}"), columns: Some((start, end)), slice: None };
    Ok(vec![part(a, 0, q), part(b, q, q + k), part(c, q + k, q + k + v)])
}

fn widths(candidate: &Candidate<'_>) -> Option<[usize; 3]> {
    let size = |size: &i64| usize::try_from(*size).ok().filter(|size| *size > 0);
    let sizes = match candidate.node.ints("qkv_hidden_sizes") {
        Some(sizes) => sizes.iter().map(size).collect::<Option<Vec<_>>>()?,
        None => vec![candidate.out_features / 3; 3],
    };
    let sizes: [usize; 3] = sizes.try_into().ok()?;
    (sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size))? == candidate.out_features).then_some(sizes)
}

//! Names of the projections that a fused attention packs.

use super::torchscript;
use crate::linear::candidate::Candidate;
use crate::linear::layer::Part;
use crate::linear::ops::attention::is_fused;

/// How the projections are called in the modules that optimizers fuse, by how the module around them is called.
const LEAVES: [(&str, [&str; 3]); 5] = [
    ("attention.self", ["query", "key", "value"]),
    ("attention.attention", ["query", "key", "value"]),
    ("self_attn", ["q_proj", "k_proj", "v_proj"]),
    ("encoder_attn", ["q_proj", "k_proj", "v_proj"]),
    ("attention", ["q_lin", "k_lin", "v_lin"]),
];

/// The module around the projections, from the name of the attention's result.
///
/// Nothing if the weight is not one that an optimizer packed: it is then that of a module which packs them itself.
pub(crate) fn parent(candidate: &Candidate<'_>) -> Option<String> {
    let packed = candidate.weight.names.iter().any(|name| name.contains("_qkv_weight"));
    torchscript::parent_of_output(candidate.output).filter(|_| packed && is_fused(candidate.node))
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

//! Names of the projections that a fused attention packs.

use super::torchscript;
use crate::hub::conventions::projections;
use crate::linear::candidate::Candidate;
use crate::linear::layer::Part;
use crate::linear::ops::attention::is_fused;
use crate::linear::reason::Reason;

/// The module around the projections, from the name of the attention's result.
///
/// Nothing if no optimizer packed the weight: then the module packs its projections itself.
pub(crate) fn parent(candidate: &Candidate<'_>) -> Option<String> {
    let is_packed = candidate.weight.names.iter().any(|name| name.contains("_qkv_weight"));
    if is_packed && is_fused(candidate.node) { torchscript::parent_of_output(candidate.output) } else { None }
}

/// q, k and v, or why their widths or names are not known.
pub(crate) fn parts(candidate: &Candidate<'_>, parent: &str) -> Result<Vec<Part>, Reason> {
    let widths = widths(candidate).ok_or(Reason::UnknownWidths)?;
    let leaves = projections(parent).ok_or_else(|| Reason::UnknownProjections { parent: parent.to_owned() })?;
    Ok(side_by_side(parent, leaves, widths))
}

/// Modules `leaves` inside `parent`, whose columns of the given `widths` follow one another.
pub(super) fn side_by_side(parent: &str, leaves: [&str; 3], widths: [usize; 3]) -> Vec<Part> {
    let mut start = 0;
    let part = |(leaf, width): (&str, usize)| {
        let columns = Some((start, start + width));
        start += width;
        Part { module: format!("{parent}.{leaf}"), columns, slice: None }
    };
    leaves.into_iter().zip(widths).map(part).collect()
}

fn widths(candidate: &Candidate<'_>) -> Option<[usize; 3]> {
    let size = |size: &i64| usize::try_from(*size).ok().filter(|size| *size > 0);
    let sizes = match candidate.node.ints("qkv_hidden_sizes") {
        Some(sizes) => sizes.iter().map(size).collect::<Option<Vec<_>>>()?,
        None => vec![candidate.out_features / 3; 3],
    };
    let sizes: [usize; 3] = sizes.try_into().ok()?;
    let sum = sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size))?;
    (sum == candidate.out_features).then_some(sizes)
}

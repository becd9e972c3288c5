//! The weights that a model has, module by module.

use super::error::Unmergeable;
use super::fit::Site;
use crate::checkpoint::CheckpointMatrix;
use crate::graph::decode::{self, ALIKE, Precision, Values};
use crate::onnx::{Graph, Model, NodeId, Origin};
use ndarray::Array2;
use std::collections::HashSet;

/// The weight of a module.
pub(super) struct ModuleWeight {
    /// [out, in].
    pub(super) values: Array2<f32>,
    /// How closely they agree with the PyTorch parameter.
    pub(super) precision: Precision,
    /// Whether PyTorch keeps it as [in, out].
    pub(super) fan_in_fan_out: bool,
}

/// The node of a site's layer, in the graph that it is in.
pub(super) fn node(graph: &Graph<'_>, site: &Site<'_>) -> Result<NodeId, Unmergeable> {
    let linear = site.linear;
    let scope = (0..graph.scopes()).find(|scope| graph.path(*scope) == linear.at.subgraph);
    match scope.and_then(|scope| graph.origin(scope, &linear.output.tensor)) {
        Some(Origin::Node(id)) => Ok(id),
        _ => Err(Unmergeable::NoNode),
    }
}

/// The weight of `module`, from all sites that compute a part of it.
pub(super) fn of_module(graph: &Graph<'_>, sites: &[Site<'_>], module: &str) -> Result<ModuleWeight, Unmergeable> {
    let mut found: Option<ModuleWeight> = None;
    let mut rows_left: HashSet<usize> = HashSet::new();
    for site in sites {
        let linear = site.linear;
        for part in linear.modules.iter().filter(|part| part.module == module) {
            let stored = decode::weight(graph, node(graph, site)?).ok_or(Unmergeable::NotConstant)?;
            let (inside, outside) = (linear.in_features, linear.out_features);
            if !stored.is(inside, outside) {
                return Err(Unmergeable::Shape { shape: vec![inside as i64, outside as i64] });
            }
            let weight = found.get_or_insert_with(|| {
                rows_left.extend(0..part.out_features(linear));
                ModuleWeight {
                    values: Array2::zeros((part.out_features(linear), inside)),
                    precision: Precision::Exact,
                    fan_in_fan_out: linear.weight.fan_in_fan_out,
                }
            });
            let rows = part.slice.map_or(0..part.out_features(linear), |slice| slice.start..slice.end);
            let first = part.columns.map_or(0, |(from, _)| from);
            weight.precision = weight.precision.max(stored.precision());
            // A module that is called several times has its weight at each of its sites.
            for (column, row) in rows.enumerate().filter(|(_, row)| rows_left.remove(row)) {
                let values = (0..inside).map(|input| stored.at(input, first + column));
                weight.values.row_mut(row).iter_mut().zip(values).for_each(|(to, value)| *to = value);
            }
        }
    }
    found.filter(|_| rows_left.is_empty()).ok_or(Unmergeable::NotConstant)
}

/// Whether the model's weight of `module` is `saved` [out, in], as closely as their storage allows.
///
/// # Errors
/// [`Unmergeable`] when one of them cannot be decoded.
pub fn is_weight(
    model: &Model,
    sites: &[Site<'_>],
    module: &str,
    saved: &CheckpointMatrix<'_>,
) -> Result<bool, Unmergeable> {
    let weight = of_module(&Graph::new(model), sites, module)?;
    if weight.values.dim() != (saved.rows, saved.columns) {
        return Ok(false);
    }
    let values = Values::of_matrix(saved.bytes, saved.dtype, saved.rows, saved.columns);
    let values = values.ok_or(Unmergeable::Type { dtype: saved.dtype })?;
    let precision = weight.precision.max(values.precision());
    let pairs = |row: usize| (0..saved.columns).map(move |column| (row, column));
    if precision != Precision::Quantized {
        let same = |(row, column)| precision.allows(weight.values[[row, column]], values.at(row, column));
        return Ok((0..saved.rows).flat_map(pairs).all(same));
    }
    let cosine = |row: usize| {
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for at in pairs(row) {
            let (a, b) = (f64::from(weight.values[at]), f64::from(values.at(at.0, at.1)));
            (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
        }
        // Rows of zeros are alike.
        if aa == 0.0 && bb == 0.0 { 1.0 } else { ab / (aa * bb).sqrt() }
    };
    Ok((0..saved.rows).map(cosine).sum::<f64>() >= ALIKE * saved.rows as f64)
}

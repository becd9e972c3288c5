//! Adapters that belong to changed base weights, as plain adapters of twice the rank.

use super::error::{Error, Unmergeable};
use super::fit::Site;
use super::weight::{self, ModuleWeight};
use crate::adapter::{Adapter, AdapterModule, BaseWeights};
use crate::graph::constant;
use crate::graph::decode::Precision;
use crate::onnx::{Graph, Model};
use crate::pca::low_rank;
use ndarray::{Array2, Axis, concatenate};

/// The adapter that gives the original weights of the model what `adapter` gives `base` weights.
///
/// A layer with a changed base weight is `W - C + s B A`, where the low-rank `C = B0 A0` follows from W: a plain
/// adapter with the matrices `[B, -B0 / s]` and `[A; A0]`. Source: `pissa_init` and `olora_init` in `tuners/lora/layer.py` of
/// PEFT 0.21.
///
/// # Errors
/// [`Error::NoBase`] for quantized weights, and for all that cannot be decoded.
pub fn plain(model: &Model, sites: &[Site<'_>], adapter: &Adapter, base: BaseWeights) -> Result<Adapter, Error> {
    let Some(init) = base.init() else { return Ok(adapter.clone()) };
    let graph = Graph::new(model);
    let plain = |module: &AdapterModule| {
        let weight = exact(&graph, sites, module);
        let change = weight.and_then(|weight| change(&weight, module, base));
        let (left, right) = change.map_err(|reason| Error::NoBase { module: module.module.clone(), init, reason })?;
        Ok::<_, Error>(less(module, &left, &right))
    };
    let modules = adapter.modules.iter().map(plain).collect::<Result<_, _>>()?;
    Ok(Adapter { modules, unadapted: adapter.unadapted.clone() })
}

/// Whether the weight is also that of an embedding: PEFT then changes both, because they are one parameter.
fn is_tied(graph: &Graph<'_>, weight: &ModuleWeight) -> bool {
    let shape = weight.values.shape().iter().map(|size| *size as i64).collect::<Vec<_>>();
    let mut gathers =
        (0..graph.scopes()).flat_map(|scope| graph.nodes(scope)).filter(|(_, node)| node.op() == "Gather");
    gathers.any(|(id, _)| {
        let Some(table) = constant::operand(graph, id, 0).filter(|table| table.dims.as_ref() == Some(&shape)) else {
            return false;
        };
        let (rows, columns) = weight.values.dim();
        let stored = table.tensor.to_f32().filter(|values| values.len() == rows * columns);
        let at =
            |row: usize, column: usize| if table.transposed { column * rows + row } else { row * columns + column };
        stored.is_some_and(|stored| {
            weight.values.indexed_iter().all(|((row, column), value)| stored[at(row, column)] == *value)
        })
    })
}

/// Checks that [`plain`] has the weights that it needs.
///
/// # Errors
/// As [`plain`].
pub fn check_plain(model: &Model, sites: &[Site<'_>], base: BaseWeights) -> Result<(), Error> {
    let Some(init) = base.init() else { return Ok(()) };
    let graph = Graph::new(model);
    let mut modules = sites.iter().flat_map(|site| site.modules.iter().flatten());
    modules.try_for_each(|module| {
        let refused = |reason| Error::NoBase { module: module.module.clone(), init, reason };
        exact(&graph, sites, module).map(drop).map_err(refused)
    })
}

/// The weight of a module, if its values are all there.
fn exact(graph: &Graph<'_>, sites: &[Site<'_>], module: &AdapterModule) -> Result<ModuleWeight, Unmergeable> {
    let weight = weight::of_module(graph, sites, &module.module)?;
    match weight.precision {
        Precision::Quantized => Err(Unmergeable::Quantized),
        _ if module.alpha == 0.0 => Err(Unmergeable::NoScale),
        _ if is_tied(graph, &weight) => Err(Unmergeable::Tied),
        _ => Ok(weight),
    }
}

/// The factors [out, rank] and [rank, in] of what PEFT takes from the weight.
fn change(
    weight: &ModuleWeight,
    module: &AdapterModule,
    base: BaseWeights,
) -> Result<(Array2<f64>, Array2<f64>), Unmergeable> {
    let values = weight.values.mapv(f64::from);
    match base {
        BaseWeights::Original => Ok((Array2::zeros((values.nrows(), 0)), Array2::zeros((0, values.ncols())))),
        BaseWeights::Pissa => low_rank::best(&values, module.rank()).map_err(|_| Unmergeable::NotFinite),
        // The decomposition is that of the parameter as PyTorch keeps it.
        BaseWeights::Olora if weight.fan_in_fan_out => {
            let (left, right) = low_rank::of_first_columns(&values.reversed_axes(), module.rank());
            Ok((right.reversed_axes() * module.scale(), left.reversed_axes()))
        }
        BaseWeights::Olora => {
            let (left, right) = low_rank::of_first_columns(&values, module.rank());
            Ok((left * module.scale(), right))
        }
    }
}

/// The adapter of `W - left right`, with the same scale.
fn less(module: &AdapterModule, left: &Array2<f64>, right: &Array2<f64>) -> AdapterModule {
    let scale = module.scale();
    let (left, right) = (left.mapv(|value| (-value / scale) as f32), right.mapv(|value| value as f32));
    let a = concatenate![Axis(0), module.a, right];
    let b = concatenate![Axis(1), module.b(), left];
    AdapterModule { alpha: scale * a.nrows() as f64, a, b: Some(b), ..module.clone() }
}

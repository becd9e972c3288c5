//! The adapter that EVA starts from.

use super::allocate::Allocation;
use super::settings::Settings;
use super::statistics::{GroupStatistics, Statistics};
use crate::adapter::{Adapter, AdapterModule};
use crate::group::Module;
use ndarray::{Array2, s};

/// Makes the leading components of each module's input its A [rank, d] (paper section 3.3). B is left out, which means
/// zeros. Modules of rank 0 are listed as unadapted.
pub fn factors(
    statistics: &Statistics,
    modules: &[Module],
    allocations: &[Allocation],
    settings: &Settings,
) -> Adapter {
    let mut adapter = Adapter::default();
    for (module, &Allocation { rank, .. }) in modules.iter().zip(allocations) {
        if rank == 0 {
            adapter.unadapted.push(module.name.clone());
            continue;
        }
        adapter.modules.push(AdapterModule {
            module: module.name.clone(),
            a: down_projection(&statistics.groups[module.group], rank, settings.whiten),
            out_features: module.out_features,
            b: None,
            alpha: settings.alpha_at(rank),
            fan_in_fan_out: module.fan_in_fan_out,
            magnitude: None,
        });
    }
    adapter
}

fn down_projection(group: &GroupStatistics, rank: usize, whiten: bool) -> Array2<f32> {
    let leading = group.components.slice(s![..rank, ..]);
    if !whiten {
        return leading.mapv(|v| v as f32);
    }
    let mut a = leading.to_owned();
    divide_by_roots(&mut a, &group.spectrum.singular_values);
    a.mapv(|v| v as f32)
}

/// Divides row j by the square root of singular value j. A row without variance stays as it is.
fn divide_by_roots(a: &mut Array2<f64>, singular_values: &[f64]) {
    let floor = singular_values.first().map_or(0.0, |s| s * f64::from(f32::EPSILON));
    for (mut row, &s) in a.rows_mut().into_iter().zip(singular_values) {
        if s > floor {
            row /= s.sqrt();
        }
    }
}

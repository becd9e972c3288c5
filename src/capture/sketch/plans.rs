//! Which groups share a subgraph.

use super::strategy::stands_alone;
use crate::capture::rows::Layout;
use crate::capture::setup::Setup;
use crate::group::Group;
use crate::pca::{Precision, SketchSize};
use crate::sketch::{Plan, Rows};
use std::collections::BTreeMap;

/// The subgraphs for all groups, as `setup.strategy` says. Groups of equal sizes share one if their rows have the same
/// layouts, where these are known.
pub(super) fn plans(setup: &Setup<'_>, layouts: Option<&[Vec<Layout>]>) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::new();
    let mut open = BTreeMap::new();
    for (index, group) in setup.groups.iter().enumerate() {
        let is_open = |layouts: &[Vec<Layout>]| layouts[index].iter().any(|layout| layout.is_open());
        let group = &Group { routed: group.routed || layouts.is_some_and(is_open), ..group.clone() };
        let size = SketchSize::new(group.features, setup.components);
        let key = (group.features, layouts.map(|layouts| &layouts[index]));
        let shares = !stands_alone(group);
        let room = |at: &usize| plans[*at].groups.len() < setup.strategy.capacity(size);
        if let Some(at) = open.get(&key).copied().filter(|at| shares && room(at)) {
            plans[at].groups.push(group.tensors.clone());
            plans[at].order.push(index);
            continue;
        }
        if shares {
            open.insert(key, plans.len());
        }
        plans.push(setup.strategy.plan(plans.len(), index, group, size));
    }
    plans
}

/// The same subgraphs with rows that are gathered and products of 32 bits, which take padding that is not finite and
/// activations that 16 bits do not hold; `None` if the plans have both already.
pub(super) fn fallback(plans: &[Plan]) -> Option<Vec<Plan>> {
    let needed = plans.iter().any(|plan| plan.precision == Precision::F16 || plan.rows == Rows::Masked);
    let plain = plans.iter().map(|plan| {
        let rows = if plan.rows == Rows::All { Rows::All } else { Rows::Gathered };
        Plan { rows, precision: Precision::F32, centred: true, ..plan.clone() }
    });
    needed.then(|| plain.collect())
}

/// Logs which groups have which subgraphs.
pub(super) fn log(setup: &Setup<'_>, plans: &[Plan]) {
    tracing::debug!(device = %setup.options.device, strategy = ?setup.strategy, subgraphs = plans.len(), "sketch");
    for Plan { number, groups, rows, joined, precision, piece, size, .. } in plans {
        let (groups, tensor) = (groups.len(), groups.iter().flatten().next());
        tracing::debug!(number, groups, first = ?tensor, ?rows, joined, ?precision, piece, ?size, "subgraph");
    }
}

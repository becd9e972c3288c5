//! Which groups share a subgraph.

use crate::capture::Setup;
use crate::capture::rows::Layout;
use crate::pca::SketchSize;
use crate::sketch::{self, Rows};
use std::collections::BTreeMap;

/// The subgraphs that the groups need, as `setup.placement` says; groups share one if their rows are laid out in the
/// same way as far as `layouts` tells.
pub(super) fn plans(setup: &Setup<'_>, layouts: Option<&[Vec<Layout>]>) -> Vec<sketch::Plan> {
    let placement = setup.placement;
    let mut plans: Vec<sketch::Plan> = Vec::new();
    let mut open = BTreeMap::new();
    for (number, group) in setup.groups.iter().enumerate() {
        let size = SketchSize::new(group.features, setup.components);
        let key = (group.features, layouts.map(|layouts| &layouts[number]));
        let alone = group.routed || group.tensors.len() > 1;
        let room =
            |at: &usize| (plans[*at].groups.len() + 1) * size.features * sketch::columns(size) <= placement.stacked;
        match open.get(&key).copied().filter(|at: &usize| !alone && room(at)) {
            Some(at) => {
                plans[at].groups.push(group.tensors.clone());
                plans[at].order.push(number);
            }
            None => {
                if !alone {
                    open.insert(key, plans.len());
                }
                let joined = if alone { 1 } else { placement.joined_groups(group.features) };
                let rows = match (group.routed, joined) {
                    (true, _) => Rows::All,
                    (false, 1) if placement.masked => Rows::Masked,
                    _ => Rows::Gathered,
                };
                let (half, overlapped, groups) = (placement.half, placement.overlapped, vec![group.tensors.clone()]);
                let (order, summed) = (vec![number], !overlapped || joined > 1);
                let number = plans.len();
                let piece = placement.piece(group.features);
                let plan = sketch::Plan { number, groups, order, rows, joined, half, overlapped, summed, piece, size };
                plans.push(plan);
            }
        }
    }
    plans
}

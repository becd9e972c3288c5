//! What the statistics of a run say of modules and groups.

use super::note::Note;
use crate::capture::Events;
use crate::eva::{Allocation, Settings, Statistics};
use crate::group::Grouping;
use crate::report::{GroupReport, ModuleReport};

/// What is reported of each module.
pub(super) fn modules(
    grouping: &Grouping,
    statistics: &Statistics,
    allocations: &[Allocation],
    settings: &Settings,
) -> Vec<ModuleReport> {
    let modules = grouping.modules.iter().zip(allocations);
    let report = modules.map(|(module, &Allocation { rank, converged })| {
        let spectrum = &statistics.groups[module.group].spectrum;
        let ratio = spectrum.explained_variance_ratio();
        ModuleReport {
            name: module.name.clone(),
            group: module.group,
            rank,
            alpha: settings.alpha_at(rank),
            in_features: module.in_features,
            out_features: module.out_features,
            explained_variance: ratio.iter().take(rank).sum(),
            explained_variance_ratio: ratio,
            similarity: spectrum.similarity.clone(),
            converged,
        }
    });
    report.collect()
}

/// What is reported of each group.
pub(super) fn groups(grouping: &Grouping, statistics: &Statistics) -> Vec<GroupReport> {
    let groups = grouping.groups.iter().zip(&statistics.groups).enumerate();
    let report = groups.map(|(id, (group, found))| GroupReport {
        id,
        tensors: group.tensors.clone(),
        features: group.features,
        rows: found.spectrum.rows,
        total_variance: found.spectrum.total_variance,
        singular_values: found.spectrum.singular_values.clone(),
        directions: found.spectrum.directions(),
    });
    report.collect()
}

/// Notes on the statistics of a run with this `rank`; `range` is the largest ratio of singular values at which weak components are exact.
pub(super) fn notes(
    grouping: &Grouping,
    statistics: &Statistics,
    allocations: &[Allocation],
    (rank, range): (usize, f64),
) -> Vec<Note> {
    let mut notes: Vec<Note> = of_device(&statistics.events).collect();
    let spectrum = |group: usize| &statistics.groups[group].spectrum;
    let modules = grouping.modules.iter().zip(allocations);
    let weak = modules.filter(|(module, allocation)| {
        let spectrum = spectrum(module.group);
        spectrum.spread(allocation.rank.min(spectrum.directions())) > range
    });
    let weak = weak.count();
    if weak > 0 {
        notes.push(Note::WeakComponents { modules: weak, of: grouping.modules.len(), range });
    }
    notes.extend(of_rows(&statistics.events));
    let unreached = grouping.modules.iter().filter(|module| spectrum(module.group).rows == 0);
    let unreached: Vec<String> = unreached.map(|module| module.name.clone()).collect();
    if !unreached.is_empty() {
        notes.push(Note::NoRows { modules: unreached });
    }
    notes.extend(few_directions(grouping, statistics, allocations, rank));
    notes
}

/// Notes on what the device could not do at once.
pub(super) fn of_device(events: &Events) -> impl Iterator<Item = Note> {
    let split = (events.split_batches > 0).then_some(Note::SplitBatches { count: events.split_batches });
    split.into_iter().chain(events.reloaded_in_f32.then_some(Note::Reloaded))
}

/// Notes on rows that count and should not.
pub(super) fn of_rows(events: &Events) -> impl Iterator<Item = Note> {
    events.counted_others.then_some(Note::RoutedTokens).into_iter()
}

/// Notes on modules whose input has fewer directions than `rank`, though it has the features for them.
fn few_directions(grouping: &Grouping, statistics: &Statistics, allocations: &[Allocation], rank: usize) -> Vec<Note> {
    let (mut constant, mut few, mut arbitrary) = (Vec::new(), Vec::new(), 0);
    for (module, allocation) in grouping.modules.iter().zip(allocations) {
        let spectrum = &statistics.groups[module.group].spectrum;
        let directions = spectrum.directions();
        arbitrary += if spectrum.rows > 0 { allocation.rank.saturating_sub(directions) } else { 0 };
        match directions {
            0 if spectrum.rows > 0 => constant.push(module.name.clone()),
            1.. if directions < rank.min(module.in_features) => few.push((module.name.clone(), directions)),
            _ => {}
        }
    }
    let mut notes = Vec::new();
    if !constant.is_empty() {
        notes.push(Note::NoVariance { modules: constant });
    }
    if !few.is_empty() {
        let (modules, counts): (Vec<_>, Vec<_>) = few.into_iter().unzip();
        let directions = counts.iter().fold((rank, 0), |(least, most), &n: &usize| (least.min(n), most.max(n)));
        notes.push(Note::FewDirections { modules, of: grouping.modules.len(), rank, directions });
    }
    if arbitrary > 0 {
        notes.push(Note::ArbitraryRanks { count: arbitrary });
    }
    notes
}

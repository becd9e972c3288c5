//! What the facts and numbers of a summary may be; a file may come from anywhere.

use super::facts::{Facts, Part};
use super::group::GroupSummary;
use crate::eva::Settings;
use crate::group::Module;
use crate::linear::module::is_plausible;
use std::collections::HashSet;

/// Largest rank, and largest multiple of it.
const RANK: usize = 65_536;
/// Most features of an input or output.
const FEATURES: usize = 1 << 24;
/// Most rows of a group, tokens, and the like.
const ROWS: u64 = 1 << 48;
/// Largest sum of squares.
const SQUARES: f64 = 1e100;

/// What is wrong with facts.
pub(super) fn facts(facts: &Facts) -> Result<(), String> {
    let Facts { run, settings, grouping, untargeted, parts, .. } = facts;
    settings_fit(settings)?;
    if !(1..=RANK * RANK).contains(&run.components) || run.components < settings.components() {
        return Err(format!("it cannot follow {} components", run.components));
    }
    let others = [&run.encoder, &run.embed_tokens, &run.processor, &run.tokenizer];
    for hash in others.into_iter().flatten().chain([&run.model]) {
        hash_fits(hash)?;
    }
    if grouping.modules.is_empty() || grouping.groups.is_empty() || parts.is_empty() {
        return Err("it has no modules, groups or rows".to_owned());
    }
    let mut names = HashSet::new();
    let all = grouping.modules.iter().map(|module| &module.name).chain(untargeted);
    if let Some(name) = all.into_iter().find(|name| name.is_empty() || !is_plausible(name) || !names.insert(*name)) {
        return Err(format!("it has a module `{name}`, which is no name or there twice"));
    }
    for group in &grouping.groups {
        if group.tensors.is_empty() || !(1..=FEATURES).contains(&group.features) {
            return Err(format!("it has a group of {} features", group.features));
        }
    }
    let fits = |module: &Module| {
        let group = grouping.groups.get(module.group);
        group.is_some_and(|group| group.features == module.in_features) && (1..=FEATURES).contains(&module.out_features)
    };
    if let Some(module) = grouping.modules.iter().find(|module| !fits(module)) {
        return Err(format!("the sizes of its module `{}` cannot be", module.name));
    }
    parts.iter().try_for_each(part)
}

fn part(part: &Part) -> Result<(), String> {
    hash_fits(&part.data)?;
    let shard = part.shard;
    if shard.index >= shard.count || shard.count as u64 > ROWS {
        return Err(format!("it has rows of shard {shard}"));
    }
    let rows = &part.rows;
    let counts = [part.batches, part.tokens_seen, part.tokens_kept, part.bad_rows.count, part.events.split_batches];
    let all = counts.into_iter().chain([rows.rows, rows.empty, rows.masked, rows.truncated]);
    if all.into_iter().any(|count| count as u64 > ROWS) {
        return Err("it has more rows than can be".to_owned());
    }
    Ok(())
}

fn settings_fit(settings: &Settings) -> Result<(), String> {
    let Settings { rank, alpha, rho, tau, min_rank, .. } = *settings;
    let ranks = (1..=RANK).contains(&rank) && min_rank <= RANK;
    let numbers = alpha.is_finite() && alpha > 0.0 && (1.0..=RANK as f64).contains(&rho) && tau > 0.0 && tau <= 1.0;
    if ranks && numbers { Ok(()) } else { Err("its settings are out of range".to_owned()) }
}

fn hash_fits(hash: &str) -> Result<(), String> {
    let digits = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digits { Ok(()) } else { Err("one of its hashes is none".to_owned()) }
}

/// Which numbers of a group cannot be.
pub(super) fn group(group: &GroupSummary) -> Result<(), &'static str> {
    let GroupSummary { summary, similarity } = group;
    let bound = |value: f64| (0.0..=SQUARES).contains(&value);
    let checks = [
        (summary.rows <= ROWS, "there are too many rows"),
        (bound(summary.total_variance) && bound(summary.noise), "the variance is out of range"),
        (summary.mean.iter().all(|value| value.abs() <= f64::from(f32::MAX)), "the mean is out of range"),
        (summary.factor.iter().all(|value| value.is_finite()), "the factor is not finite"),
        (similarity.iter().all(|value| (0.0..=1.0).contains(value)), "the similarity is out of range"),
    ];
    checks.into_iter().find(|(fits, _)| !fits).map_or(Ok(()), |(_, what)| Err(what))
}

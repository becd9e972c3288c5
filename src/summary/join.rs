//! Files that belong together become one summary.

use super::error::Error;
use super::facts::{Facts, Part};
use super::file::SummaryFile;
use super::group::GroupSummary;
use crate::calib::Shard;
use crate::parallel::map_each;
use crate::pca::{Summary, joint_similarity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Several summaries as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// What was run, and all rows, in the order of their shards.
    pub facts: Facts,
    /// What is known of each group.
    pub groups: Vec<GroupSummary>,
    /// Rows that are in no file, if that is allowed.
    pub missing: Vec<String>,
}

/// Merges summaries of the same model and options, and of different rows. The order of the rows, and not that of the files,
/// decides the result; so it is the same to the last bit, with any number of `threads`.
///
/// Rows of other data are added as a whole: all shards of each data set must be there, unless `allow_missing` says that
/// some may lack.
///
/// # Errors
/// [`Error`]: of reading, and when files do not belong together.
pub fn join(paths: &[PathBuf], allow_missing: bool, threads: usize) -> Result<Joined, Error> {
    let mut files = paths.iter().map(|path| SummaryFile::open(path)).collect::<Result<Vec<_>, _>>()?;
    for file in &mut files {
        file.facts.parts.sort_by(|a, b| a.key().cmp(&b.key()));
    }
    files.sort_by(|a, b| a.facts.parts[0].key().cmp(&b.facts.parts[0].key()));
    let Some((first, others)) = files.split_first() else { return Err(Error::NoFiles) };
    for other in others {
        let what = first.facts.differences(&other.facts);
        if !what.is_empty() {
            return Err(Error::Differ { one: first.path().to_owned(), other: other.path().to_owned(), what });
        }
    }
    let missing = missing(&files)?;
    if !(missing.is_empty() || allow_missing) {
        return Err(Error::Missing { missing });
    }
    let mut facts = first.facts.clone();
    facts.parts = files.iter().flat_map(|file| file.facts.parts.iter().cloned()).collect();
    facts.parts.sort_by(|a, b| a.key().cmp(&b.key()));
    Ok(Joined { groups: groups(&files, &facts, threads)?, facts, missing })
}

/// The parts that are in no file.
fn missing(files: &[SummaryFile]) -> Result<Vec<String>, Error> {
    let mut data: BTreeMap<&str, BTreeMap<usize, (&Path, &Part)>> = BTreeMap::new();
    for file in files {
        for part in &file.facts.parts {
            let shards = data.entry(&part.data).or_default();
            if let Some((one, known)) = shards.values().find(|(_, known)| known.shard.count != part.shard.count) {
                let (one, other) = (one.to_path_buf(), file.path().to_owned());
                return Err(Error::Counts { one, part: known.name(), other, but: part.name() });
            }
            if let Some((one, _)) = shards.insert(part.shard.index, (file.path(), part)) {
                let (one, other) = (one.to_path_buf(), file.path().to_owned());
                return Err(Error::Twice { one, other, part: part.name() });
            }
        }
    }
    // A file may say that there are more shards than can be listed.
    const LISTED: usize = 1000;
    let mut missing = Vec::new();
    for shards in data.values() {
        let Some((_, some)) = shards.values().next() else { continue };
        let absent = (0..some.shard.count).filter(|index| !shards.contains_key(index));
        let name = |index| Part { shard: Shard { index, ..some.shard }, ..(*some).clone() }.name();
        missing.extend(absent.take(LISTED).map(name));
    }
    Ok(missing)
}

/// Merges the groups of all files, as many at a time as there are threads.
fn groups(files: &[SummaryFile], facts: &Facts, threads: usize) -> Result<Vec<GroupSummary>, Error> {
    let all: Vec<usize> = (0..facts.grouping.groups.len()).collect();
    let mut groups = Vec::with_capacity(all.len());
    for some in all.chunks(threads.max(1)) {
        let read = |g: &usize| files.iter().map(|file| file.group(*g)).collect::<Result<Vec<_>, _>>();
        let parts = some.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<_> = some.iter().zip(parts).collect();
        groups.extend(map_each(&parts, threads, |(g, parts)| {
            let tensor = || facts.grouping.groups[**g].tensors.join("`, `");
            merged(parts).map_err(|source| Error::Decompose { tensor: tensor(), source })
        })?);
    }
    Ok(groups)
}

/// One group of several files. Its factor has no more directions than the largest of theirs, rounded as in a file.
fn merged(parts: &[GroupSummary]) -> Result<GroupSummary, crate::pca::Error> {
    if let [only] = parts {
        return Ok(only.clone());
    }
    let directions = parts.iter().map(|part| part.summary.factor.nrows()).max().unwrap_or(0);
    let summaries: Vec<Summary> = parts.iter().map(|part| part.summary.clone()).collect();
    let mut summary = Summary::merge(&summaries).shortened(directions)?;
    summary.factor.mapv_inplace(|value| f64::from(value as f32));
    // Parts without rows know nothing.
    let known: Vec<_> = parts.iter().filter(|part| part.summary.rows > 0).map(GroupSummary::convergence).collect();
    Ok(GroupSummary { summary, similarity: joint_similarity(known.iter()) })
}

//! What is read of `eva.json` and `train.json`.

use super::error::Error;
use crate::linear::module::split_block;
use crate::regular;
use crate::{output, report};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Largest file that is read: the eva.json of 20,000 modules with 128 components each has about 100 MB.
const MAX_BYTES: u64 = 1 << 28;

/// Largest rank, and most features of a layer, that a run records.
const LARGEST_RANK: usize = 1 << 16;
const MOST_FEATURES: usize = u32::MAX as usize;
/// Most bytes of the name of a module, and most cells of the table of all modules, empty ones included.
const LONGEST_NAME: usize = 512;
const MOST_CELLS: usize = 1 << 18;

/// What the runs recorded that wrote a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Of `init`.
    pub run: Option<RunRecord>,
    /// Of `train`.
    pub training: Option<TrainRecord>,
}

/// What is shown of [`eva.json`](crate::report::Report).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RunRecord {
    pub(super) version: String,
    pub(super) model: String,
    #[serde(default)]
    pub(super) data: Vec<String>,
    pub(super) device: String,
    pub(super) onnxruntime: String,
    pub(super) rank: usize,
    pub(super) rho: f64,
    pub(super) tau: f64,
    pub(super) budget: usize,
    pub(super) ranks_total: usize,
    pub(super) batches: usize,
    pub(super) tokens_seen: usize,
    pub(super) tokens_kept: usize,
    pub(super) stopped_by: String,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) notes: Vec<String>,
    pub(super) seconds: Seconds,
    #[serde(default)]
    pub(super) peak_rss_bytes: Option<u64>,
    /// The modules, in graph order.
    pub layers: Vec<Module>,
    #[serde(default)]
    pub(super) history: Vec<Batch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Seconds {
    pub(super) load: f64,
    pub(super) forward_and_sketch: f64,
    pub(super) decompose: f64,
    pub(super) write: f64,
    pub(super) total: f64,
}

/// A module of eva.json.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Module {
    /// Its full name.
    #[serde(rename = "module")]
    pub name: String,
    /// Its rank.
    pub rank: usize,
    pub(super) group: usize,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) explained_variance_ratio: Vec<f64>,
    pub(super) converged: bool,
}

impl Module {
    /// Share of the input's variance that the components of the module explain.
    pub(super) fn explained(&self) -> f64 {
        self.explained_variance_ratio.iter().take(self.rank).sum()
    }

    /// Parameters of A and B at a rank.
    pub(super) fn parameters(&self, rank: usize) -> u64 {
        rank as u64 * (self.in_features as u64 + self.out_features as u64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Batch {
    pub(super) converged: usize,
    pub(super) similarity: Option<f64>,
}

/// What is shown of train.json.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TrainRecord {
    pub(super) model: String,
    pub(super) device: String,
    pub(super) rate: f64,
    pub(super) schedule: String,
    pub(super) seconds: f64,
    pub(super) steps: Vec<Loss>,
    #[serde(default)]
    pub(super) evaluations: Vec<Loss>,
}

/// The loss at a step.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Loss {
    pub(super) step: usize,
    pub(super) loss: f64,
}

impl RunRecord {
    /// Checks that a table of the modules has a size for it, and that its numbers can be counted with.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self) -> Result<(), String> {
        let (mut blocks, mut kinds) = (HashSet::new(), HashSet::new());
        for Module { name, rank, in_features, out_features, .. } in &self.layers {
            if name.len() > LONGEST_NAME {
                return Err(format!("the name of a module has {} bytes", name.len()));
            }
            if *rank > LARGEST_RANK || (*in_features).max(*out_features) > MOST_FEATURES {
                return Err(format!("`{name}` has rank {rank}, {in_features} inputs and {out_features} outputs"));
            }
            let (block, kind) = split_block(name);
            blocks.insert(block);
            kinds.insert(kind);
        }
        if self.rank > LARGEST_RANK {
            return Err(format!("its rank is {}", self.rank));
        }
        if blocks.len().saturating_mul(kinds.len()) > MOST_CELLS {
            return Err(format!("{} blocks have {} types of modules", blocks.len(), kinds.len()));
        }
        Ok(())
    }
}

impl Record {
    /// Reads `eva.json` and `train.json` of a folder, or one of them if `path` is a file.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is neither; else when one cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self, Error> {
        if path.is_file() {
            let is_training = path.file_name().is_some_and(|name| name == report::TRAINING);
            return Ok(if is_training {
                Self { run: None, training: Some(document(path)?) }
            } else {
                Self { run: Some(checked(document(path)?, path)?), training: None }
            });
        }
        let of_run = path.join(report::REPORT);
        let run = existing(&of_run)?.map(|run| checked(run, &of_run)).transpose()?;
        let record = Self { run, training: existing(&path.join(report::TRAINING))? };
        if record.run.is_none() && record.training.is_none() {
            return Err(Error::Missing { folder: path.to_owned() });
        }
        Ok(record)
    }
}

impl Record {
    /// Checks that a page may be written to a file.
    ///
    /// # Errors
    /// When the file exists and `force` is false.
    pub fn check_html(path: &Path, force: bool) -> Result<(), Error> {
        Ok(output::check_file(path, force)?)
    }

    /// Writes the page to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// When the file exists and `force` is false, or cannot be written.
    pub fn save_html(&self, path: &Path, force: bool) -> Result<(), Error> {
        Ok(output::file(path, self.to_html().as_bytes(), force)?)
    }
}

fn checked(run: RunRecord, path: &Path) -> Result<RunRecord, Error> {
    match run.check() {
        Ok(()) => Ok(run),
        Err(what) => Err(Error::Unsound { path: path.to_owned(), what }),
    }
}

fn existing<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    path.exists().then(|| document(path)).transpose()
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let reading = |source| Error::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(reading)?.len();
    if bytes > MAX_BYTES {
        return Err(Error::TooLarge { path: path.to_owned(), bytes });
    }
    let text = regular::read(path).map_err(reading)?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

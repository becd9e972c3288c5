//! Why summaries could not be read or merged.

use crate::hint::Hint;
use crate::pca;
use std::io;
use std::path::PathBuf;

/// Why summaries could not be read, written or merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else, or damaged.
    #[error("`{}` is no summary: {what}", path.display())]
    NotASummary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file is of another format.
    #[error("`{}` is a summary of format {found}, and this program reads format {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format that is read.
        known: u64,
    },
    /// A number does not fit the file.
    #[error("the summary of `{tensor}` cannot be written: its numbers exceed 32-bit floats")]
    TooLarge {
        /// A tensor of the group.
        tensor: String,
    },
    /// The file could not be made.
    #[error("the summary cannot be written: {reason}")]
    Encode {
        /// Why.
        reason: String,
    },
    /// No file is given.
    #[error("there is no summary to merge")]
    NoFiles,
    /// Two files are of different runs.
    #[error("`{}` and `{}` differ in {}", one.display(), other.display(), what.join(", "))]
    Differ {
        /// The first file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
        /// What differs.
        what: Vec<String>,
    },
    /// The same rows are in two files.
    #[error("`{}` and `{}` both hold {part}", one.display(), other.display())]
    Twice {
        /// One file.
        one: PathBuf,
        /// The other; it may be the same.
        other: PathBuf,
        /// The rows.
        part: String,
    },
    /// One data set is cut in two ways.
    #[error("`{}` holds {part}, and `{}` holds {but}", one.display(), other.display())]
    Counts {
        /// One file.
        one: PathBuf,
        /// Its rows.
        part: String,
        /// The other.
        other: PathBuf,
        /// Its rows.
        but: String,
    },
    /// Parts of a data set are in no file.
    #[error("not all rows are there: {}", list(missing))]
    Missing {
        /// The parts.
        missing: Vec<String>,
    },
    /// A rank asks for more components than were followed.
    #[error("ranks up to {wanted} are asked for, and the summary follows {followed} components")]
    Components {
        /// Components asked for.
        wanted: usize,
        /// Components of the summary.
        followed: usize,
    },
    /// No module is chosen.
    #[error("no module of the summary matches the target modules `{targets}`")]
    NothingTargeted {
        /// The targets as given.
        targets: String,
        /// Last components of the names of its modules.
        leaves: Vec<String>,
    },
    /// A module is named that has no statistics.
    #[error("the target modules `{targets}` name `{module}`, which is not in the summary")]
    NotCalibrated {
        /// The targets as given.
        targets: String,
        /// The module.
        module: String,
    },
    /// Nothing varies.
    #[error("no layer input varies over the rows of the summaries, so that there are no components")]
    NoVariance,
    /// The adapter would not fit.
    #[error("the adapter would have {entries} entries, more than {most}")]
    Huge {
        /// Entries of all matrices.
        entries: u128,
        /// Most of them.
        most: u128,
    },
    /// A decomposition failed.
    #[error("the summary of `{tensor}` cannot be decomposed: {source}")]
    Decompose {
        /// A tensor of the group.
        tensor: String,
        /// Why.
        source: pca::Error,
    },
}

/// Names that a message lists.
const SHOWN: usize = 8;

fn list(names: &[String]) -> String {
    let mut shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if names.len() > SHOWN {
        shown += &format!("; and {} more", names.len() - SHOWN);
    }
    shown
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotASummary { .. } => "`eva-onnx init MODEL --data FILE --summary OUT` writes one",
            Self::Format { .. } => "make the summary again with this version of eva-onnx",
            Self::NoFiles => "give the files that `eva-onnx init --summary` wrote",
            Self::Differ { .. } => "merge only what the same model and options gave",
            Self::Twice { .. } => "give every part once; a merged summary holds all its parts",
            Self::Counts { .. } => "all parts of the same data need the same number of shards",
            Self::Missing { .. } => "run the missing shards, or merge without them with --allow-missing",
            Self::Components { .. } => {
                "lower --rank or --rho, or run `init` again with the larger --rank: it decides how many components are \
                 followed"
            }
            Self::NothingTargeted { leaves, .. } => {
                return Some(format!("the summary has modules called {}", leaves.join(", ")));
            }
            Self::NotCalibrated { .. } => "run `init` again with --target-modules that name it too",
            Self::NoVariance => "give more data, or more varied data",
            Self::Huge { .. } => "lower --rank",
            Self::Read { .. } | Self::TooLarge { .. } | Self::Encode { .. } | Self::Decompose { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

//! Why a run could not be continued, or its rows not be divided.

use crate::hint::Hint;
use std::io;
use std::path::{Path, PathBuf};

/// Why a run could not be continued, kept, or be a part of a larger one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows can be read once only.
    #[error("the rows of {names} can be read once only, so that no other run can continue or complete this one")]
    Once {
        /// The source.
        names: String,
    },
    /// A checkpoint is there, and nothing says what to do with it.
    #[error("`{}` holds a run that ended after {batches} batches", path.display())]
    Unfinished {
        /// The checkpoint.
        path: PathBuf,
        /// Batches that it has run.
        batches: usize,
    },
    /// The checkpoint is of another run.
    #[error("`{}` is of another run: it differs in {}", path.display(), what.join(", "))]
    Another {
        /// The checkpoint or summary.
        path: PathBuf,
        /// What differs.
        what: Vec<String>,
    },
    /// The file is no checkpoint, or damaged.
    #[error("`{}` is no checkpoint of `init`, or damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The checkpoint cannot be read or removed.
    #[error("cannot read or remove `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data has fewer batches than the checkpoint.
    #[error("the data has no {batches} batches, which `{}` has run", path.display())]
    Shorter {
        /// The checkpoint.
        path: PathBuf,
        /// Batches that it has run.
        batches: usize,
    },
    /// The user stopped the run, which can go on.
    #[error("interrupted after {batches} batches; `{}` holds them", path.display())]
    Stopped {
        /// The checkpoint.
        path: PathBuf,
        /// Batches that were run.
        batches: usize,
    },
    /// The user stopped the run of a shard.
    #[error("interrupted after {batches} batches; no summary is written, as it would lack rows")]
    Incomplete {
        /// Batches that were run.
        batches: usize,
    },
    /// The folder of states holds a run in blocks, and nothing says what to do with it.
    #[error("`{}` holds a run that ended after {blocks} blocks", path.display())]
    UnfinishedBlocks {
        /// The folder.
        path: PathBuf,
        /// Blocks that it has run.
        blocks: usize,
    },
    /// The user stopped a run in blocks.
    #[error("interrupted in block {block} of {of}{}", kept(path.as_deref()))]
    StoppedInBlock {
        /// The block, from 1.
        block: usize,
        /// All blocks.
        of: usize,
        /// The folder that holds the blocks before.
        path: Option<PathBuf>,
    },
    /// What blocks hand on does not fit.
    #[error(
        "the hidden states of {batches} batches need {}, and {} are free{}",
        bytes(*needed), bytes(*free), place(path.as_deref())
    )]
    States {
        /// All batches.
        batches: usize,
        /// Bytes that they need.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The folder, unless they are in memory.
        path: Option<PathBuf>,
    },
    /// `auto` finds no scheduler.
    #[error("--shard auto: none of {} is set", variables.join(", "))]
    NoScheduler {
        /// Variables that were looked for.
        variables: Vec<&'static str>,
    },
    /// A variable of the scheduler is not what it should be.
    #[error("--shard auto: {what}")]
    Scheduler {
        /// What is wrong.
        what: String,
    },
    /// A shard is not written as it should be.
    #[error("`{text}` is no shard")]
    NoShard {
        /// What was given.
        text: String,
    },
}

impl Error {
    /// Whether the user stopped the run.
    pub(crate) fn is_interrupt(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::StoppedInBlock { .. } | Self::Incomplete { .. })
    }

    /// Whether an option or the surroundings are at fault.
    pub(crate) fn is_usage(&self) -> bool {
        let of_options = matches!(
            self,
            Self::Once { .. } | Self::Unfinished { .. } | Self::UnfinishedBlocks { .. } | Self::NoShard { .. }
        );
        of_options
            || matches!(self, Self::NoScheduler { .. } | Self::Scheduler { .. } | Self::States { .. } | Self::Io { .. })
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Once { .. } => "give files",
            Self::UnfinishedBlocks { .. } => "--resume goes on with it; delete the folder to begin anew",
            Self::StoppedInBlock { path: None, .. } => {
                "with --spill, the state after each block is kept, and --resume goes on"
            }
            Self::States { path: None, .. } => "--spill writes them to a folder; --max-batches runs fewer",
            Self::States { .. } => "name a folder with more space, or run fewer batches with --max-batches",
            Self::Unfinished { .. } => "--resume goes on with it; delete it to begin anew",
            Self::Another { .. } => "give the options of that run, or another file, or delete that one",
            Self::Damaged { .. } | Self::Shorter { .. } => "delete it, and begin anew",
            Self::Stopped { .. } | Self::StoppedInBlock { .. } => "the same command with --resume goes on",
            Self::Incomplete { .. } => "run the command again; with --checkpoint-every, --resume goes on",
            Self::NoScheduler { .. } => "give the shard, for example --shard 0/4",
            Self::Scheduler { .. } => "give the shard and the number of shards, for example --shard 0/4",
            Self::NoShard { .. } => "write I/N for part I of N, from 0, or auto, or auto/N",
            Self::Io { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

fn kept(folder: Option<&Path>) -> String {
    folder.map_or(String::new(), |folder| format!("; `{}` holds the blocks before", folder.display()))
}

fn place(folder: Option<&Path>) -> String {
    folder.map_or(" in memory".to_owned(), |folder| format!(" in `{}`", folder.display()))
}

/// Bytes for a person.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        1_000_000.. => format!("{:.0} MB", bytes as f64 / 1e6),
        1000.. => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{bytes} bytes"),
    }
}

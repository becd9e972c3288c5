//! Why a checkpoint could not be written, or a training not go on from one.

use crate::hint::Hint;
use crate::output;
use std::path::PathBuf;

/// Why a checkpoint could not be written, or a training not go on from one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder has checkpoints of another training.
    #[error("`{}` has checkpoints of an earlier training", dir.display())]
    Earlier {
        /// The folder.
        dir: PathBuf,
    },
    /// There is nothing to go on from.
    #[error("there is no checkpoint in `{}`", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// No checkpoint can be read.
    #[error("the checkpoint `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The newest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The training would go on with something else.
    #[error("the checkpoint `{}` is of a training with other settings: {}", path.display(), listed(differences))]
    Settings {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// A checkpoint was not written.
    #[error("the checkpoint of step {step} was not written: {source}")]
    Write {
        /// The steps done.
        step: usize,
        /// Why.
        source: Box<output::Error>,
        /// The step of the last one that was.
        last: Option<usize>,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Earlier { .. } => {
                "--resume goes on from the newest; to start anew, delete the folder or give another --out".to_owned()
            }
            Self::Missing { .. } => {
                "leave out --resume to start; --save-every and Ctrl-C write checkpoints into the folder of --out"
                    .to_owned()
            }
            Self::Damaged { .. } => "delete it and start anew without --resume".to_owned(),
            Self::Settings { .. } => {
                "give the same settings to go on, or another --out and no --resume to start with these".to_owned()
            }
            Self::Write { source, last, .. } => {
                let first = source.hint().unwrap_or_default();
                match last {
                    Some(step) => format!("{first}; then --resume goes on from step {step}"),
                    None => first,
                }
            }
        })
    }
}

/// A setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub setting: String,
    /// Its value at the time of the checkpoint.
    pub then: String,
    /// Its value now.
    pub now: String,
}

/// Inputs, whose values are hashes.
const INPUTS: [&str; 5] = ["the model", "--encoder", "--embed-tokens", "the adapter", "the rows"];

/// The differences in words.
pub(super) fn listed(differences: &[Difference]) -> String {
    let words = differences.iter().map(|Difference { setting, then, now }| {
        if INPUTS.contains(&setting.as_str()) { setting.clone() } else { format!("{setting} {then}, now {now}") }
    });
    words.collect::<Vec<_>>().join("; ")
}

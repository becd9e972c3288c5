//! Why there is nothing to show.

use crate::hint::Hint;
use crate::output;
use std::io;
use std::path::PathBuf;

/// Why what a run recorded cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds no record.
    #[error("`{}` has neither eva.json nor train.json", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is too large for a record.
    #[error("`{}` has {bytes} bytes, more than a record of a run has", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file is not what this program writes.
    #[error("`{}` cannot be understood: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file says what no run has.
    #[error("`{}` is no record of a run: {what}", path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The page cannot be written.
    #[error(transparent)]
    Output(#[from] output::Error),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("give the output folder of `init` or `train`".to_owned()),
            Self::Read { .. } => None,
            Self::Output(error) => error.hint(),
            Self::TooLarge { .. } | Self::Json { .. } | Self::Unsound { .. } => {
                Some("give an eva.json or train.json that eva-onnx has written".to_owned())
            }
        }
    }
}

//! Why output could not be written.

use crate::hint::Hint;
use crate::onnx;
use std::io;
use std::path::{Path, PathBuf};

/// Why the output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not empty.
    #[error("the output folder `{}` exists and is not empty", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The file exists.
    #[error("the output `{}` exists", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// The path is a file, or a link to nothing.
    #[error("the output `{}` is not a folder", dir.display())]
    NotAFolder {
        /// The path.
        dir: PathBuf,
    },
    /// The output would replace a file that the command reads.
    #[error("the output `{}` would replace a file that is read", path.display())]
    Input {
        /// The file.
        path: PathBuf,
    },
    /// A folder inside the output folder is a link to another place.
    #[error("`{}` in the output folder is a link", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Another run makes the same output.
    #[error("another run makes this output: its files are in `{}`", staging.display())]
    Busy {
        /// The folder of its files.
        staging: PathBuf,
    },
    /// The files are complete, and could not get their place.
    #[error("cannot write `{}`: {source}; the files are in `{}`", path.display(), kept.display())]
    Kept {
        /// Where they should be.
        path: PathBuf,
        /// Where they are.
        kept: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that belongs to the output could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the model is not what it was when the model was opened.
    #[error("`{}` was changed during the run", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot make this file a clone of the model's.
    #[error("cannot clone the model's file to `{}`: {source}", path.display())]
    NoReflink {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two files of the output have the same name.
    #[error("two files of the output are called `{}`", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// The graph could not be serialised.
    #[error(transparent)]
    Graph {
        /// Why.
        source: onnx::Error,
    },
    /// The system refused.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Exists { .. } => {
                "give another output folder, or --force to replace the files of the same names in it"
            }
            Self::FileExists { .. } => "give another name, or --force to replace it",
            Self::NotAFolder { .. } => "give another output folder",
            Self::Input { .. } | Self::Link { .. } => "give another output folder",
            Self::Twice { .. } => "rename the data file of the model, for example by saving the model again",
            Self::Busy { .. } => {
                "wait until it has ended, or give another output; if no other run is alive, delete that folder"
            }
            Self::Kept { .. } => "move them to where you want them",
            Self::Read { .. } => {
                "make the file readable, or move it out of the model's folder if it does not belong there"
            }
            Self::Changed { .. } => "run the command again, and let nothing write to the model meanwhile",
            Self::NoReflink { .. } => {
                "use --link copy; clones need a file system like Btrfs or XFS that holds both the model and --out"
            }
            Self::Graph { source } => return source.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, or give an output on another disk"
            }
            Self::Io { .. } => "give an output in a folder that you may write to",
        };
        Some(hint.to_owned())
    }
}

/// The error of a file or folder that could not be written.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

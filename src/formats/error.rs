//! What can be wrong with an adapter.

use std::io;
use std::path::PathBuf;

/// Why an adapter could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("`{}` cannot be understood: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The adapter is of a kind that a low-rank product does not cover.
    #[error("`{}` is an adapter with {what}, which {reason}", path.display())]
    Unsupported {
        /// The config or weights file.
        path: PathBuf,
        /// The kind or setting.
        what: String,
        /// Why it cannot be used.
        reason: &'static str,
    },
    /// A module has one of its two matrices only, or they do not fit.
    #[error("`{}`: the matrices of module `{module}` do not fit: {reason}", path.display())]
    Matrices {
        /// The weights file.
        path: PathBuf,
        /// The module.
        module: String,
        /// Why.
        reason: String,
    },
    /// A pattern of the config is no regular expression that this program understands.
    #[error("`{}`: the pattern `{pattern}` is not understood: {reason}", path.display())]
    Pattern {
        /// The config.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A checkpoint without what tells the scales.
    #[error("`{}` does not tell the scales of its adapter, and no `manifest.json` is beside it", path.display())]
    NoManifest {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The adapter has no module.
    #[error("`{}` holds no adapter", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { .. } => {
                "an adapter of PEFT is a folder with `adapter_config.json` and `adapter_model.safetensors`"
            }
            Self::Malformed { .. } => "the file may be truncated: compare its size with the original, or save it again",
            Self::Unsupported { .. } => "merge the adapter into the model with PEFT and export the model again",
            Self::Matrices { .. } => "save the adapter again with PEFT's `save_pretrained`",
            Self::Pattern { .. } => "write the full names of the modules in `rank_pattern` and `alpha_pattern`",
            Self::NoManifest { .. } => "put the manifest.json that `splice --ort-training` wrote beside the checkpoint",
            Self::Empty { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

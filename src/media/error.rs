//! What can be wrong with pictures, sounds, and the settings of their processors.

use std::io;
use std::path::PathBuf;

use super::kind::Kind;
use crate::hint::Hint;

/// Why files cannot be made the model's input at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// Nothing says how.
    #[error("there is no preprocessor_config.json beside the model, which says how {kind} become its input")]
    NoSettings {
        /// What the rows hold.
        kind: Kind,
    },
    /// The file with the settings cannot be read.
    #[error("cannot read `{}`: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The file names no processor, and config.json no model whose processor is known.
    #[error("`{}` does not say which processor of transformers it is for", path.display())]
    NoClass {
        /// The file.
        path: PathBuf,
        /// What the rows hold.
        kind: Kind,
    },
    /// The processor is none of those that are known.
    #[error("`{}` is for {class}, which is not known here", path.display())]
    Class {
        /// The file.
        path: PathBuf,
        /// Its class in transformers.
        class: String,
        /// What the rows hold.
        kind: Kind,
    },
    /// A setting cannot be followed.
    #[error("`{}`: `{field}` {reason}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        field: String,
        /// What is wrong with it.
        reason: String,
        /// What the rows hold.
        kind: Kind,
    },
}

impl Hint for ProcessorError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSettings { kind } => format!(
                "put the one of the PyTorch model there (`save_pretrained` of its {} writes it); {}",
                kind.class(),
                kind.instead()
            ),
            Self::Unreadable { .. } => {
                "`save_pretrained` of the model's processor in transformers writes the file".to_owned()
            }
            Self::NoClass { kind, .. } => format!("add `{}` to it; or {}", kind.class_field(), kind.instead()),
            Self::Class { kind, .. } | Self::Setting { kind, .. } => kind.instead().to_owned(),
        })
    }
}

/// What is wrong with a file of a picture or a sound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFile {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It holds something else.
    #[error("is {found}, not {expected}")]
    Foreign {
        /// What it is.
        found: &'static str,
        /// What can be read.
        expected: &'static str,
    },
    /// Its format is broken, or a part of it is missing.
    #[error("is broken: {0}")]
    Broken(String),
    /// The picture has more pixels than Pillow opens.
    #[error("has {width} x {height} pixels, and pictures of at most {most} are read")]
    Large {
        /// Pixels of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Most pixels.
        most: u64,
    },
    /// The picture would get more pixels than can be held.
    #[error("would be resized to {width} x {height} pixels, and at most {most} are made")]
    Stretched {
        /// Pixels of a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Most pixels.
        most: u64,
    },
    /// The sound has another sampling rate than the model takes.
    #[error("has {got} samples a second, and the model takes {expected}")]
    Rate {
        /// Samples a second of the file.
        got: u64,
        /// Samples a second that the model takes.
        expected: u32,
    },
    /// The sound has no sample.
    #[error("has no samples")]
    Silent,
    /// The sound is too long to be one row.
    #[error("has more than {most} samples")]
    Long {
        /// Most samples.
        most: usize,
    },
}

impl Hint for BadFile {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "paths in rows are relative to the folder of the data file".to_owned()
            }
            Self::Io(_) => "check the file and its permissions".to_owned(),
            Self::Foreign { expected, .. } => format!("convert it to {expected}"),
            Self::Broken(_) => "copy it again, or leave it out with `--on-bad-row skip`".to_owned(),
            Self::Large { .. } => "make it smaller".to_owned(),
            Self::Stretched { .. } => "cut it: one side is much longer than the other".to_owned(),
            Self::Rate { expected, .. } => {
                format!("resample it, for example with `ffmpeg -i IN -ar {expected} -ac 1 OUT.wav`")
            }
            Self::Silent => "leave it out, or use `--on-bad-row skip`".to_owned(),
            Self::Long { .. } => "cut it into several rows".to_owned(),
        })
    }
}

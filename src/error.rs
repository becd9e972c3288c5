//! The error of the library's entry points: what went wrong, in which file, whose fault it is, and what to do about it.

use crate::blocks::PlanError;
use crate::hint::Hint;
use crate::hub::layout;
use crate::init::InitError;
use crate::training::CheckpointError;
use crate::{
    calib, capture, checkpoint, eva, feeds, formats, linear, onnx, output, page, runtime, splice, summary, train,
};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The model, the data or the adapter is at fault.
    Input,
    /// An option, the system, or ONNX Runtime is at fault.
    Environment,
    /// A file changed while it was used.
    Changed,
    /// The observer stopped the run before there was a result.
    Interrupted,
}

/// Why a model could not be inspected, initialised, spliced, or an adapter not converted.
///
/// Its `Display` is one sentence that names the file; [`hint`](Self::hint) says what to do about it.
#[derive(Debug)]
pub struct Error {
    file: Option<PathBuf>,
    cause: Cause,
}

impl Error {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.cause.kind()
    }

    /// Names the file that the error is about, unless its message does so itself.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        let named = self.file.is_some() || self.cause.to_string().contains(&path.display().to_string());
        if named { self } else { Self { file: Some(path.to_owned()), ..self } }
    }

    /// Whether ONNX Runtime loaded the model, and failed to run it.
    pub(crate) fn is_of_run(&self) -> bool {
        use runtime::Error::Run;
        matches!(
            &self.cause,
            Cause::Capture(
                capture::Error::Runtime(Run { .. }) | capture::Error::Feeds(feeds::Error::Runtime(Run { .. }))
            )
        )
    }

    /// Whether the model is at fault, or what it made of the data.
    pub(crate) fn is_of_model(&self) -> bool {
        matches!(&self.cause, Cause::Eva(_) | Cause::Capture(_)) && self.cause.of_states().is_none()
    }

    /// Options that do not go together.
    pub(crate) fn usage(message: impl Into<String>, hint: Option<&str>) -> Self {
        Cause::Usage { message: message.into(), hint: hint.map(str::to_owned) }.into()
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        self.cause.hint()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => write!(f, "`{}`: {}", path.display(), self.cause),
            None => self.cause.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

impl<C: Into<Cause>> From<C> for Error {
    fn from(cause: C) -> Self {
        Self { file: None, cause: cause.into() }
    }
}

/// The error of one room.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Cause {
    /// Options that do not go together.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The folder given as a model.
    Layout(#[from] layout::Error),
    /// The model.
    Onnx(#[from] onnx::Error),
    /// The PyTorch checkpoint.
    Checkpoint(#[from] checkpoint::Error),
    /// The choice of layers.
    Linear(#[from] linear::Error),
    /// The calibration data.
    Calib(#[from] calib::Error),
    /// What the model is fed.
    Feeds(#[from] feeds::Error),
    /// The adapter that was read.
    Read(#[from] formats::Error),
    /// The edit of the model.
    Splice(#[from] splice::Error),
    /// The output folder.
    Output(#[from] output::Error),
    /// The record of a run.
    Page(#[from] page::Error),
    /// The statistics.
    Capture(#[from] capture::Error),
    /// ONNX Runtime.
    Runtime(#[from] runtime::Error),
    /// The method.
    Eva(eva::Error),
    /// The cut of a model.
    Blocks(#[from] PlanError),
    /// A run that is continued, or a part of a larger one.
    Init(#[from] InitError),
    /// Summaries.
    Summary(Box<summary::Error>),
    /// The training.
    Train(#[from] train::Error),
    /// The state of a training on disk.
    Checkpoints(#[from] CheckpointError),
}

impl From<summary::Error> for Cause {
    fn from(error: summary::Error) -> Self {
        Self::Summary(Box::new(error))
    }
}

impl From<eva::Error> for Cause {
    fn from(error: eva::Error) -> Self {
        match error {
            eva::Error::Data(error) => Self::Calib(*error),
            other => Self::Eva(other),
        }
    }
}

impl Cause {
    /// Why hidden states cannot be kept, if it is that.
    fn of_states(&self) -> Option<&io::Error> {
        match self {
            Self::Feeds(feeds::Error::States { source, .. })
            | Self::Capture(capture::Error::Feeds(feeds::Error::States { source, .. }))
            | Self::Eva(eva::Error::Capture(capture::Error::Feeds(feeds::Error::States { source, .. }))) => {
                Some(source)
            }
            _ => None,
        }
    }

    fn kind(&self) -> ErrorKind {
        if self.of_states().is_some_and(|source| source.kind() != io::ErrorKind::InvalidData) {
            return ErrorKind::Environment;
        }
        match self {
            Self::Output(output::Error::Changed { .. }) => ErrorKind::Changed,
            Self::Usage { .. }
            | Self::Output(_)
            | Self::Page(page::Error::Output(_))
            | Self::Splice(splice::Error::Write { .. }) => ErrorKind::Environment,
            Self::Runtime(error) => runtime_kind(error),
            Self::Capture(capture::Error::Runtime(error))
            | Self::Eva(eva::Error::Capture(capture::Error::Runtime(error))) => runtime_kind(error),
            Self::Train(train::Error::Runtime(error)) => runtime_kind(error),
            Self::Blocks(PlanError::Unknown { .. } | PlanError::NoRoom | PlanError::Few { .. }) => {
                ErrorKind::Environment
            }
            Self::Init(error) if error.is_interrupt() => ErrorKind::Interrupted,
            Self::Init(error) if error.is_usage() => ErrorKind::Environment,
            Self::Eva(eva::Error::Interrupted) | Self::Train(train::Error::Interrupted) => ErrorKind::Interrupted,
            Self::Checkpoints(CheckpointError::Damaged { .. }) => ErrorKind::Input,
            Self::Checkpoints(_) => ErrorKind::Environment,
            Self::Calib(calib::Error::File(calib::FileError::Changed { .. })) => ErrorKind::Changed,
            _ => ErrorKind::Input,
        }
    }
}

impl Hint for Cause {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::Layout(error) => error.hint(),
            Self::Onnx(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Linear(error) => error.hint(),
            Self::Calib(error) => error.hint(),
            Self::Feeds(error) => error.hint(),
            Self::Read(error) => error.hint(),
            Self::Splice(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::Page(error) => error.hint(),
            Self::Capture(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Eva(error) => error.hint(),
            Self::Blocks(error) => error.hint(),
            Self::Init(error) => error.hint(),
            Self::Summary(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Checkpoints(error) => error.hint(),
        }
    }
}

fn runtime_kind(error: &runtime::Error) -> ErrorKind {
    match error {
        runtime::Error::Load { .. } | runtime::Error::Run { .. } | runtime::Error::Tensor { .. } => ErrorKind::Input,
        runtime::Error::Changed { .. } => ErrorKind::Changed,
        _ => ErrorKind::Environment,
    }
}

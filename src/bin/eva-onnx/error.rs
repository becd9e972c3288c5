//! What ends a command without a result.

use eva_onnx::{Error, ErrorKind, Hint};

/// How the process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// The command did what it was asked to.
    #[default]
    Done = 0,
    /// The model, the data or the adapter is at fault.
    Input = 1,
    /// The options or the system are at fault.
    Environment = 2,
    /// A file changed while it was used.
    Changed = 3,
    /// Ctrl-C ended the run; an adapter may still have been written.
    Interrupted = 130,
}

/// A message with its hint and exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What happened.
    pub(crate) message: String,
    /// What the user can do about it.
    pub(crate) hint: Option<String>,
    /// How the process ends.
    pub(crate) status: ExitStatus,
}

impl Failure {
    /// Usage that clap cannot check.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, status: ExitStatus::Environment }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: Error = error.into();
        let status = match error.kind() {
            ErrorKind::Input => ExitStatus::Input,
            ErrorKind::Environment => ExitStatus::Environment,
            ErrorKind::Changed => ExitStatus::Changed,
            ErrorKind::Interrupted => ExitStatus::Interrupted,
        };
        Self { message: error.to_string(), hint: error.hint(), status }
    }
}

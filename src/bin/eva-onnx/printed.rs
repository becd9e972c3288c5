//! What a command prints when it has succeeded.

use super::error::ExitStatus;

/// The result of a command.
pub(crate) struct Printed {
    /// Text for stdout.
    pub(crate) text: String,
    /// Remarks for stderr.
    pub(crate) notes: Vec<String>,
    /// Exit status.
    pub(crate) status: ExitStatus,
}

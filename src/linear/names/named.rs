//! What is known about the name of a layer.

use crate::linear::layer::NamedBy;

/// What is known about the name of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The module path and its source, or why there is none.
    pub(crate) module: Result<(String, NamedBy), &'static str>,
    /// The bias initializer.
    pub(crate) bias: Option<String>,
    /// Whether the module is a GPT-2 `Conv1D`.
    pub(crate) fan_in_fan_out: bool,
    /// Whether the weight is an embedding's too.
    pub(crate) tied: bool,
}

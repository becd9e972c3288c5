//! What is known about the name of a layer.

use crate::linear::layer::NamedBy;
use crate::linear::reason::Reason;

/// What is known about the name of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerName {
    /// The module path and its source, or why there is none.
    pub(crate) module: Result<(String, NamedBy), Reason>,
    /// The bias initializer.
    pub(crate) bias: Option<String>,
    /// Whether the module is a GPT-2 `Conv1D`.
    pub(crate) fan_in_fan_out: bool,
    /// Whether the weight is also that of an embedding.
    pub(crate) tied: bool,
    /// Other names of the module.
    pub(crate) aliases: Vec<String>,
}

//! What the graph of a loss reads and returns.

/// The loss, a number.
pub(in crate::train) const LOSS: &str = "loss";
/// Rows of the logits, flattened to [batch * length, classes] or [batch, classes], that have a target, ascending:
/// [targets].
pub(in crate::train) const ROWS: &str = "loss/rows";
/// The class of each of them, [targets]; or its numbers, [targets, classes].
pub(in crate::train) const TARGETS: &str = "loss/targets";
/// What the loss of each prediction is multiplied by, a number: 1 / predictions for a mean.
pub(in crate::train) const WEIGHT: &str = "loss/weight";

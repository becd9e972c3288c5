//! What the graph of a loss reads and returns.

/// The loss, a number.
pub(crate) const LOSS: &str = "loss";
/// Rows of the logits, flattened to [batch * length, classes] or [batch, classes], that have a target, ascending:
/// [targets].
pub(crate) const ROWS: &str = "loss/rows";
/// The class of each of them, [targets]; or its numbers, [targets, classes].
pub(crate) const TARGETS: &str = "loss/targets";
/// What the loss of each prediction is multiplied by, a number: 1 / predictions for a mean.
pub(crate) const WEIGHT: &str = "loss/weight";
/// What the gradient of the logits is multiplied by in a model in `f16`, so that it does not vanish on its way: a number,
/// an input.
pub(crate) const SCALE: &str = "loss/scale";

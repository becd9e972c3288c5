//! Labels of rows that a training cannot use.

use super::row::RowOrigin;

/// The tensor of a batch with the labels of its rows, [batch, numbers] in 64 bits: one class, or what the logits of each
/// class should be.
pub const LABEL: &str = "label";
/// The tensor of a batch with the labels of its tokens, [batch, length]; [`IGNORED`] for none.
pub const LABELS: &str = "labels";
/// The label of what is not predicted.
pub const IGNORED: i64 = -100;

/// A label of a row to train on is missing or wrong.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct LabelError {
    /// The row.
    pub origin: RowOrigin,
    /// What is wrong.
    pub reason: BadLabel,
}

/// What is wrong with the label of a row.
#[derive(Debug, thiserror::Error)]
pub enum BadLabel {
    /// A label is not the token that it stands for, where tokens are predicted from those before.
    #[error("label {label} of token {token}, counted from 0, is another token than `input_ids` has there")]
    OtherToken {
        /// Index of the token.
        token: usize,
        /// The label.
        label: i64,
    },
    /// The row has none.
    #[error("the row has no `label` or `labels`, which {loss} needs")]
    Missing {
        /// The loss.
        loss: &'static str,
    },
    /// The row has two fields for it.
    #[error("the row has both `label` and `labels`")]
    Both,
    /// It is of the wrong kind.
    #[error("the label must be {expected}, got {got}")]
    Kind {
        /// What the loss takes.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The model has no such class.
    #[error("label {label} is outside the model's classes, 0 to {}", classes.saturating_sub(1))]
    OutOfRange {
        /// The label.
        label: i64,
        /// The number of classes.
        classes: usize,
    },
    /// The model has no class of this name.
    #[error("the model has no class `{name}`; config.json has {known}")]
    UnknownName {
        /// The name.
        name: String,
        /// The names of the classes.
        known: String,
    },
}

impl LabelError {
    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self.reason {
            BadLabel::OtherToken { .. } => {
                "labels are the `input_ids` themselves, not shifted, or -100 for tokens that are not predicted"
            }
            BadLabel::Missing { .. } => "give every row a label, or choose another loss with --loss",
            BadLabel::Both => "leave one of them out",
            BadLabel::Kind { .. } => {
                "see docs/training.md for the labels that each loss takes; --loss chooses another loss"
            }
            BadLabel::OutOfRange { .. } => {
                "classes are counted from 0; -100 leaves a label out; a model with more classes has to be exported"
            }
            BadLabel::UnknownName { .. } => "`id2label` of config.json names the classes; a number always works",
        }
    }
}

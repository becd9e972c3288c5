//! Labels that are other tokens than the row has.

use super::row::RowOrigin;

/// A label is not the token that it stands for, where a training predicts tokens.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: label {label} of token {token}, counted from 0, is another token than `input_ids` has there")]
pub struct OtherLabels {
    /// The row.
    pub origin: RowOrigin,
    /// Index of the token.
    pub token: usize,
    /// The label.
    pub label: i64,
}

impl OtherLabels {
    /// What to do about it.
    pub(super) const HINT: &str =
        "labels are the `input_ids` themselves, not shifted, or -100 for tokens that are not predicted";
}

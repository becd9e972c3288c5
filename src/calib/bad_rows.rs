//! Rows at fault.

use serde::{Deserialize, Serialize};

use super::chat::ChatError;
use super::error::Error;
use super::row::RowOrigin;

/// What is done about a row that cannot be read or does not fit the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The run ends.
    #[default]
    Fail,
    /// The row is passed over.
    Skip,
}

/// Messages that are kept.
const SHOWN: usize = 20;

/// Rows that were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRows {
    /// How many.
    pub count: usize,
    /// What is wrong with the first ones.
    pub first: Vec<String>,
}

impl BadRows {
    /// Adds the rows of another part of the data.
    pub(crate) fn add(&mut self, other: &Self) {
        self.count += other.count;
        let room = SHOWN.saturating_sub(self.first.len());
        self.first.extend(other.first.iter().take(room).cloned());
    }

    /// Passes over a row, if that is wanted and the rows after it can be read.
    ///
    /// # Errors
    /// The error itself, otherwise.
    pub(crate) fn pass_over(&mut self, error: Error, on: OnBadRow) -> Result<(), Error> {
        if on == OnBadRow::Fail || error.row().is_none() {
            return Err(error);
        }
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(error.to_string());
        }
        Ok(())
    }
}

impl Error {
    /// The row at fault, where the rows after it can be read.
    pub(crate) fn row(&self) -> Option<&RowOrigin> {
        match self {
            Self::File(error) => error.row(),
            Self::NotUtf8 { origin, .. }
            | Self::Json { origin, .. }
            | Self::NotAnObject { origin, .. }
            | Self::NoText { origin, .. }
            | Self::NoPair { origin }
            | Self::BadTensor { origin, .. }
            | Self::BadFile { origin, .. }
            | Self::MissingField { origin, .. }
            | Self::FieldType { origin, .. }
            | Self::FieldLength { origin, .. }
            | Self::Tokenize { origin, .. }
            | Self::Vocabulary { origin, .. }
            | Self::NoCompletion { origin }
            | Self::Chat(
                ChatError::Render { origin, .. } | ChatError::NotText { origin, .. } | ChatError::NoTurn { origin, .. },
            ) => Some(origin),
            _ => None,
        }
    }
}

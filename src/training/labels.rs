//! Rows whose labels are their tokens: the loss predicts tokens, so other labels would be ignored.

use crate::calib::{Error, FieldValue, OtherLabels, Row, RowSource, Rows};
use serde_json::Value;

/// The label of a token that is not predicted.
const IGNORED: i64 = -100;

/// The rows of a source, of which each label must be the token there or -100.
pub(super) struct TokenLabels<S>(pub(super) S);

impl<S: RowSource> RowSource for TokenLabels<S> {
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        Ok(Box::new(self.0.rows()?.map(|row| row.and_then(checked))))
    }

    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        Ok(Box::new(self.0.permuted(permutation)?.map(|row| row.and_then(checked))))
    }
}

fn checked(row: Row) -> Result<Row, Error> {
    let (Some(ids), Some(labels)) = (integers(&row, "input_ids"), integers(&row, "labels")) else {
        return Ok(row);
    };
    let other = labels.iter().zip(&ids).position(|(label, id)| *label != IGNORED && label != id);
    match other {
        Some(token) => Err(OtherLabels { origin: row.origin, token, label: labels[token] }.into()),
        None => Ok(row),
    }
}

/// The integers of a field, without an axis of the batch.
fn integers(row: &Row, field: &str) -> Option<Vec<i64>> {
    let Some(FieldValue::Json(Value::Array(values))) = row.fields.get(field) else { return None };
    let values = match values.as_slice() {
        [Value::Array(inner)] => inner,
        _ => values,
    };
    values.iter().map(Value::as_i64).collect()
}

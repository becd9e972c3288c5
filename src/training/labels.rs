//! The labels of rows, checked and as tensors of the batch.

use super::label::{Classes, flat, given};
use crate::calib::{BadLabel, Error, IGNORED, LABEL, LABELS, LabelError, Row, RowSource, Rows, Size, TensorInput};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::train::Loss;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// How the rows say what is right.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    /// The loss, from the start or from the first label on.
    loss: Arc<OnceLock<Loss>>,
    classes: Arc<Classes>,
    /// Whether rows are texts or tokens of an encoder and a decoder, whose batches have the labels already.
    in_pairs: bool,
}

impl Labels {
    /// The labels for a loss, of so many classes.
    pub(super) fn of(loss: Loss, count: usize, by_name: BTreeMap<String, usize>) -> Self {
        let labels = Self::of_first(count, by_name);
        labels.loss.get_or_init(|| loss);
        labels
    }

    /// The labels of a classifier of rows: one class each, or a number for each class, as the first row has it. In
    /// transformers, the type of the labels of the first batch decides.
    pub(super) fn of_first(count: usize, by_name: BTreeMap<String, usize>) -> Self {
        Self { loss: Arc::default(), classes: Arc::new(Classes { count, by_name }), in_pairs: false }
    }

    /// The same for rows of an encoder and a decoder.
    pub(super) fn in_pairs(self) -> Self {
        Self { in_pairs: true, ..self }
    }

    /// The loss, as far as it is decided.
    pub(super) fn loss(&self) -> Loss {
        self.loss.get().copied().unwrap_or(Loss::SingleLabel)
    }

    /// What batches hold for the labels.
    pub(super) fn input(&self) -> Option<TensorInput> {
        let input = |name: &str, dtype, size| TensorInput { name: name.to_owned(), dtype, shape: vec![size] };
        match self.loss() {
            Loss::CausalLm => None,
            Loss::Seq2SeqLm if self.in_pairs => None,
            loss if loss.is_per_token() => Some(input(LABELS, DType::I64, Size::Tokens)),
            _ => Some(input(LABEL, DType::F64, Size::Any)),
        }
    }

    /// The row with its label as a tensor.
    fn read(&self, row: Row) -> Result<Row, Error> {
        let wrong = |reason| Error::from(LabelError { origin: row.origin.clone(), reason });
        let loss = self.loss.get().copied();
        if loss == Some(Loss::CausalLm) {
            return same_tokens(&row).map_err(wrong).map(|()| row);
        }
        let label = match (given(&row, LABEL), given(&row, LABELS)) {
            (Some(_), Some(_)) if loss.is_none_or(|loss| !loss.is_per_token()) => return Err(wrong(BadLabel::Both)),
            (Some(label), None) if loss.is_none_or(|loss| !loss.is_per_token()) => Some(label),
            (_, labels) => labels,
        };
        let Some(label) = label else {
            // A decoder's input tells its targets too.
            let needed = !self.in_pairs;
            let missing = || BadLabel::Missing { loss: self.loss().as_str() };
            return if needed { Err(wrong(missing())) } else { Ok(row) };
        };
        let (field, tensor) = self.tensor(&label).map_err(wrong)?;
        let fields = row.fields.replaced(&[LABEL, LABELS], field, tensor);
        Ok(Row { fields, ..row })
    }

    /// The field of the batch that a label is for, and its value there.
    fn tensor(&self, label: &Value) -> Result<(&'static str, Tensor), BadLabel> {
        let classes = &self.classes;
        let loss = match self.loss.get() {
            Some(loss) => *loss,
            None => {
                *self.loss.get_or_init(|| if classes.is_several(label) { Loss::MultiLabel } else { Loss::SingleLabel })
            }
        };
        let (field, tensor) = match loss {
            Loss::SingleLabel => (LABEL, Tensor::from_vec(&[1], vec![classes.one(label)? as f64])),
            Loss::MultiLabel => (LABEL, Tensor::from_vec(&[classes.count], classes.shares(label)?)),
            Loss::Regression => (LABEL, Tensor::from_vec(&[classes.count], classes.numbers(label)?)),
            _ => {
                let labels = classes.each(label)?;
                (LABELS, Tensor::from_vec(&[labels.len()], labels))
            }
        };
        // As many values as the shape says.
        let unfilled = || BadLabel::Kind { expected: "numbers".to_owned(), got: "others".to_owned() };
        Ok((field, tensor.ok_or_else(unfilled)?))
    }
}

/// Each label must be the token there, or none: tokens are predicted from those before.
fn same_tokens(row: &Row) -> Result<(), BadLabel> {
    let integers = |field: &str| {
        let values = given(row, field)?;
        flat(&values)?.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>()
    };
    let (Some(ids), Some(labels)) = (integers("input_ids"), integers(LABELS)) else { return Ok(()) };
    let other = labels.iter().zip(&ids).position(|(label, id)| *label != IGNORED && label != id);
    other.map_or(Ok(()), |token| Err(BadLabel::OtherToken { token, label: labels[token] }))
}

/// The rows of a source with their labels as tensors.
pub(super) struct Labelled<S> {
    pub(super) labels: Labels,
    pub(super) source: S,
}

impl<S: RowSource> RowSource for Labelled<S> {
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        let labels = self.labels.clone();
        Ok(Box::new(self.source.rows()?.map(move |row| labels.read(row?))))
    }

    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        let labels = self.labels.clone();
        Ok(Box::new(self.source.permuted(permutation)?.map(move |row| labels.read(row?))))
    }
}

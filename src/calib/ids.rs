//! Rows that are tokenised already.

use serde_json::Value;

use super::content::Ids;
use super::error::Error;
use super::fields::{flags, integers, token_ids, wrong_type};
use super::row::{FieldValue, Row};

/// Names that the mask of a row's tokens has in exports; 0 is padding.
const MASKS: [&str; 3] = ["attention_mask", "decoder_attention_mask", "input_mask"];

/// Names of masks in which 1 is a token that is learnt from: TRL's, that of `apply_chat_template`, and a common third.
const LEARNT: [&str; 3] = ["completion_mask", "assistant_masks", "loss_mask"];

/// Whether the name is that of a mask in which 1 is padding, as in PyTorch's `nn.MultiheadAttention` and `nn.Transformer`.
pub(crate) fn marks_padding(name: &str) -> bool {
    ["key_padding_mask", "src_key_padding_mask", "tgt_key_padding_mask"].contains(&name)
}

/// Whether a row has a mask of its tokens, by whose name it is known what padding is.
pub(crate) fn has_mask(row: &Row) -> bool {
    row.fields.names().any(|name| MASKS.contains(&name) || marks_padding(name))
}

/// The `input_ids` of a row and what goes with them. Labels are those of the tokens, unless they belong to a decoder.
pub(crate) fn ids(row: &Row, labels: bool) -> Result<Ids, Error> {
    let ids = integers(row, "input_ids")?.unwrap_or_default();
    let ids = token_ids(ids, "input_ids", &row.origin)?;
    beside(row, ids, "input_ids", labels)
}

/// What stands for the token ids of a row whose tensor `field` has `length` entries, and what goes with them. Labels that
/// are not as many are not those of entries.
pub(crate) fn entries(row: &Row, field: &str, length: usize) -> Result<Ids, Error> {
    let labels = integers(row, "labels").ok().flatten().is_some_and(|labels| labels.len() == length);
    beside(row, vec![0; length], field, labels)
}

/// The fields with an entry for each of the tokens `ids`, which are those of `field`.
fn beside(row: &Row, ids: Vec<u32>, field: &str, labels: bool) -> Result<Ids, Error> {
    let same_length = |name: &str, values: Option<Vec<i64>>| match values {
        Some(values) if values.len() != ids.len() => Err(Error::FieldLength {
            origin: row.origin.clone(),
            field: name.to_owned(),
            beside: field.into(),
            expected: ids.len(),
            got: values.len(),
        }),
        other => Ok(other),
    };
    let mask = MASKS.into_iter().find(|name| row.fields.has(name));
    let padding = row.fields.names().find(|name| marks_padding(name) && row.fields.has(name));
    let (mask, of_token) = match (mask, padding) {
        (None, Some(padding)) => (padding, 0),
        (mask, _) => (mask.unwrap_or(MASKS[0]), 1),
    };
    let attended = same_length(mask, flags(row, mask)?)?;
    if let Some(bad) = attended.iter().flatten().find(|&&value| value != 0 && value != 1) {
        return Err(wrong_type(mask, "a list of 0 and 1", bad.to_string(), &row.origin));
    }
    let numbers = |name: &str| {
        let values = same_length(name, integers(row, name)?)?;
        values.map(|values| token_ids(values, name, &row.origin)).transpose()
    };
    let (types, positions) = (numbers("token_type_ids")?, numbers("position_ids")?);
    let of_tokens = if labels && !is_class(row, ids.len()) { labels_of(row, &same_length)? } else { None };
    let mut labelled: Option<Vec<bool>> = of_tokens.map(|values| values.iter().map(|&value| value != -100).collect());
    for name in LEARNT.into_iter().filter(|name| labels && row.fields.has(name)) {
        let Some(learnt) = same_length(name, flags(row, name)?)? else { continue };
        let labelled = labelled.get_or_insert_with(|| vec![true; ids.len()]);
        labelled.iter_mut().zip(learnt).for_each(|(counts, learnt)| *counts &= learnt != 0);
    }
    Ok(Ids {
        attended: attended.map(|values| values.iter().map(|&value| value == of_token).collect()),
        labelled,
        types,
        positions,
        ids,
    })
}

/// Whether `labels` says something of the row rather than of its tokens: a number, a name, a truth value, or numbers
/// with a decimal point, as scores of several classes are.
fn is_class(row: &Row, tokens: usize) -> bool {
    match row.fields.get("labels") {
        Some(FieldValue::Json(Value::Number(_) | Value::String(_) | Value::Bool(_))) => true,
        Some(FieldValue::Json(Value::Array(values))) => {
            values.len() != tokens && values.iter().any(|value| value.is_f64())
        }
        Some(FieldValue::Tensor(tensor)) => tensor.shape().is_empty() || tensor.dtype().is_float(),
        _ => false,
    }
}

/// The labels of the tokens. Names of classes are no -100.
fn labels_of(
    row: &Row,
    same_length: &impl Fn(&str, Option<Vec<i64>>) -> Result<Option<Vec<i64>>, Error>,
) -> Result<Option<Vec<i64>>, Error> {
    let names = match row.fields.get("labels") {
        Some(FieldValue::Json(Value::Array(names))) if names.iter().all(Value::is_string) => Some(vec![0; names.len()]),
        _ => None,
    };
    match names {
        Some(names) => same_length("labels", Some(names)),
        None => same_length("labels", integers(row, "labels")?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;
    use crate::tensor::Tensor;

    fn shown(row: &Row) -> String {
        let flags = |flags: Vec<bool>| flags.iter().map(|&f| if f { '1' } else { '0' }).collect::<String>();
        match ids(row, true) {
            Ok(row) => {
                let mut out = format!("{:?}", row.ids);
                out.extend(row.attended.map(|a| format!(" a{}", flags(a))));
                out.extend(row.labelled.map(|l| format!(" l{}", flags(l))));
                out.extend(row.types.map(|t| format!(" t{t:?}")));
                out.extend(row.positions.map(|p| format!(" p{p:?}")));
                out
            }
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        }
    }

    #[track_caller]
    fn check(row: &str, expected: &str) {
        assert_eq!(shown(&testing::row(row)), expected);
    }

    #[test]
    fn token_forms() {
        check(r#"{"input_ids": [1, 2]}"#, "[1, 2]");
        check(r#"{"input_ids": []}"#, "[]");
        check(r#"{"input_ids": [1, 2], "attention_mask": [1, 0], "labels": [-100, 2]}"#, "[1, 2] a10 l01");
        check(r#"{"input_ids": [1, 2], "token_type_ids": [0, 1], "labels": null}"#, "[1, 2] t[0, 1]");
        for mask in ["completion_mask", "assistant_masks", "loss_mask"] {
            check(&format!(r#"{{"input_ids": [1, 2], "{mask}": [0, 1]}}"#), "[1, 2] l01");
            check(
                &format!(r#"{{"input_ids": [1, 2, 3], "labels": [1, -100, 3], "{mask}": [0, 1, 1]}}"#),
                "[1, 2, 3] l001",
            );
        }
        check(r#"{"input_ids": [1, 2], "position_ids": [[4, 0]]}"#, "[1, 2] p[4, 0]");
    }

    #[test]
    fn rows_as_tokenizers_and_tables_give_them() {
        check(r#"{"input_ids": [[1, 2]], "attention_mask": [[1, 0]], "labels": [[-100, 2]]}"#, "[1, 2] a10 l01");
        check(r#"{"input_ids": [[]]}"#, "[]");
        check(r#"{"input_ids": [1, 2], "attention_mask": [true, false]}"#, "[1, 2] a10");
        check(r#"{"input_ids": [1, 2], "src_key_padding_mask": [false, true]}"#, "[1, 2] a10");
        check(r#"{"input_ids": [1.0, 2.0], "attention_mask": [1.0, 0.0]}"#, "[1, 2] a10");
        check(r#"{"input_ids": "[1, 2]", "attention_mask": "[1, 0]"}"#, "[1, 2] a10");
        let tensor = |shape: &[usize]| Tensor::from_vec(shape, vec![1i64, 2]).unwrap();
        let row = |shape: &[usize]| Row { origin: testing::origin(), fields: [("input_ids", tensor(shape))].into() };
        assert_eq!(shown(&row(&[2])), "[1, 2]");
        assert_eq!(shown(&row(&[1, 2])), "[1, 2]");
        assert_eq!(
            shown(&row(&[2, 1])),
            "`input_ids` must be a list of integers, got a tensor of type i64 and shape [2, 1]"
        );
    }

    #[test]
    fn classes_mask_nothing() {
        for labels in ["1", "0.5", r#""sports""#, "true", "[0.0, 1.0, 0.0]"] {
            check(&format!(r#"{{"input_ids": [1, 2], "labels": {labels}}}"#), "[1, 2]");
        }
        check(r#"{"input_ids": [1, 2], "labels": ["O", "B-PER"]}"#, "[1, 2] l11");
        check(r#"{"input_ids": [1, 2], "labels": [-100.0, 2.0]}"#, "[1, 2] l01");
    }

    #[test]
    fn wrong_token_rows() {
        check(r#"{"input_ids": "1"}"#, "`input_ids` must be a list of integers, got a string");
        check(r#"{"input_ids": [1.5]}"#, "`input_ids` must be a list of integers, got 1.5 in it");
        check(r#"{"input_ids": [true]}"#, "`input_ids` must be a list of integers, got a boolean in it");
        check(r#"{"input_ids": [[1], [2]]}"#, "`input_ids` must be a list of integers, got 2 lists in it");
        check(r#"{"input_ids": [1, [2]]}"#, "`input_ids` must be a list of integers, got an array in it");
        check(r#"{"input_ids": [-1]}"#, "`input_ids` must be a list of token ids from 0, got -1 in it");
        check(r#"{"input_ids": [1], "labels": [1, 2]}"#, "`labels` has 2 entries, `input_ids` has 1");
        check(r#"{"input_ids": [1], "labels": ["a", "b"]}"#, "`labels` has 2 entries, `input_ids` has 1");
        check(r#"{"input_ids": [1], "attention_mask": []}"#, "`attention_mask` has 0 entries, `input_ids` has 1");
        check(r#"{"input_ids": [1], "attention_mask": [2]}"#, "`attention_mask` must be a list of 0 and 1, got 2");
    }
}

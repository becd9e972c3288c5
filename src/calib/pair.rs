//! Rows for an encoder-decoder model: what each of the two reads.

use super::content::{Completion, Ids, Pair, Text};
use super::error::Error;
use super::example::{Example, Limits, Tensors, from_ids, from_text};
use super::fields::{integers, token_ids, wrong_type};
use super::labels::{IGNORED, LABELS};
use super::row::{Row, RowOrigin};
use super::tensors::NamedTensor;
use super::tokenizer::Tokenized;
use crate::tensor::Tensor;
use ndarray::Array1;

/// A row of texts with separate prompt and completion.
pub(crate) fn texts(text: Text, origin: &RowOrigin) -> Result<Pair, Error> {
    let Some(Completion::From(at)) = text.completion else {
        return Err(Error::NoPair { origin: origin.clone() });
    };
    let (prompt, completion) = text.text.split_at(at);
    Ok(Pair::Texts(Text::plain(prompt.trim_end_matches('\n')), Text::plain(completion)))
}

/// A row of token ids. The decoder reads `decoder_input_ids`, or `labels` shifted right by the token `start`.
pub(crate) fn ids(row: &Row, source: Ids, start: u32) -> Result<Pair, Error> {
    let labels = integers(row, LABELS)?;
    if row.fields.present("decoder_input_ids").is_none() {
        let labels = labels.ok_or_else(|| Error::NoPair { origin: row.origin.clone() })?;
        return Ok(Pair::Ids(source, shifted(&labels, start, &row.origin)?, labels));
    }
    let target = target(row)?;
    let labels = labels.unwrap_or_else(|| next(&target.ids));
    if labels.len() != target.ids.len() {
        return Err(Error::FieldLength {
            origin: row.origin.clone(),
            field: LABELS.to_owned(),
            beside: "decoder_input_ids".into(),
            expected: target.ids.len(),
            got: labels.len(),
        });
    }
    Ok(Pair::Ids(source, target, labels))
}

/// What a decoder that reads these tokens should predict, as far as they tell.
fn next(ids: &[u32]) -> Vec<i64> {
    let ids = ids.iter().map(|id| i64::from(*id)).chain([IGNORED]);
    ids.skip(1).collect()
}

/// The `decoder_input_ids` of a row.
pub(crate) fn target(row: &Row) -> Result<Ids, Error> {
    let ids = integers(row, "decoder_input_ids")?.unwrap_or_default();
    Ok(plain(token_ids(ids, "decoder_input_ids", &row.origin)?))
}

fn plain(ids: Vec<u32>) -> Ids {
    Ids { ids, attended: None, labelled: None, types: None, positions: None }
}

/// What the decoder reads to predict `labels`. Positions whose label is -100 do not enter the statistics.
fn shifted(labels: &[i64], start: u32, origin: &RowOrigin) -> Result<Ids, Error> {
    let id = |label: &i64| match *label {
        IGNORED => Ok(start),
        label => u32::try_from(label)
            .map_err(|_| wrong_type("labels", "a list of token ids from 0, or -100", label.to_string(), origin)),
    };
    let targets = labels.iter().map(id).collect::<Result<Vec<u32>, Error>>()?;
    let ids = std::iter::once(start).chain(targets).take(labels.len()).collect();
    Ok(Ids { labelled: Some(labels.iter().map(|label| *label != IGNORED).collect()), ..plain(ids) })
}

/// The decoder's example with the encoder's tokens, and the tokens that it should predict as the tensor [`LABELS`]; `encode` gives those of a text.
pub(crate) fn example(
    pair: Pair,
    encode: &impl Fn(&Text) -> Result<Tokenized, Error>,
    start: u32,
    limits: Limits,
    origin: &RowOrigin,
) -> Result<Example, Error> {
    // All that the decoder reads belongs to the completion.
    let limits = Limits { completion_only: false, ..limits };
    let (source, target, labels) = match pair {
        Pair::Ids(source, target, labels) => (
            from_ids(Ids { labelled: None, ..source }, Tensors::default(), limits, origin.clone())?,
            from_ids(target, Tensors::default(), limits, origin.clone())?,
            labels,
        ),
        Pair::Texts(source, target) => {
            let mut target = from_text(encode(&target)?, None, limits, origin.clone())?;
            let labels = target.ids.iter().map(|id| i64::from(*id)).collect();
            target.ids.insert(0, start);
            target.ids.pop();
            (from_text(encode(&source)?, None, limits, origin.clone())?, target, labels)
        }
    };
    let labels = labels.into_iter().take(target.ids.len()).collect::<Vec<i64>>();
    let labels = Tensor::I64(Array1::from(labels).into_dyn());
    let tensors = vec![NamedTensor { name: LABELS.to_owned(), tensor: labels, token_axes: vec![0] }];
    let truncated = source.truncated || target.truncated;
    let given = [target.given[0], source.given[0]];
    // A row with nothing for the encoder is empty.
    let empty = !source.attended.contains(&true);
    let attended = if empty { vec![false; target.ids.len()] } else { target.attended.clone() };
    Ok(Example { truncated, attended, given, tensors, source: Some((source.ids, source.attended)), ..target })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing::{origin, row};

    /// Encoder ids, decoder ids and kept tokens of a row of ids.
    #[track_caller]
    fn check(json: &str, expected: &str) {
        let limits = Limits { max_length: 3, completion_only: true, masks: true };
        let pair = ids(&row(json), plain(vec![7, 8]), 0);
        let no_text = |_: &Text| Ok(Tokenized::default());
        let text = match pair.and_then(|pair| example(pair, &no_text, 0, limits, &origin())) {
            Ok(Example { ids, keep, source: Some((source, _)), tensors, .. }) => {
                format!("{source:?} {ids:?} {keep:?} {:?}", tensors[0].tensor.to_integers().unwrap())
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn decoders_read_the_labels_before() {
        check(r#"{"decoder_input_ids": [0, 4]}"#, "[7, 8] [0, 4] [true, true] [4, -100]");
        check(r#"{"decoder_input_ids": [0, 4], "labels": [4, 1]}"#, "[7, 8] [0, 4] [true, true] [4, 1]");
        check(
            r#"{"decoder_input_ids": [0, 4], "labels": [4]}"#,
            "`f` line 1: `labels` has 1 entries, `decoder_input_ids` has 2",
        );
        check(r#"{"labels": [4, 5, 6]}"#, "[7, 8] [0, 4, 5] [true, true, true] [4, 5, 6]");
        check(r#"{"labels": [4, -100, 6, 9]}"#, "[7, 8] [0, 4, 0] [true, false, true] [4, -100, 6]");
        check(r#"{"labels": [-5]}"#, "`f` line 1: `labels` must be a list of token ids from 0, or -100, got -5");
        check(r#"{}"#, "`f` line 1: nothing for the decoder to read");
    }

    #[test]
    fn prompts_are_for_the_encoder() {
        let text = Text { completion: Some(Completion::From(4)), ..Text::plain("ask\nsay") };
        assert_eq!(texts(text, &origin()).ok(), Some(Pair::Texts(Text::plain("ask"), Text::plain("say"))));
        assert!(texts(Text::plain("t"), &origin()).is_err());
    }
}

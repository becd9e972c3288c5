//! Reads the content of a row from its fields.

use serde_json::Value;

use super::content::{Content, Ids, Text};
use super::error::Error;
use super::fields::{integers, string, token_ids, wrong_type};
use super::pair;
use super::row::{FieldValue, Row};
use super::template::Template;

/// Where the text of a row comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TextSource {
    /// The first that fits of `input_ids`, `text`, `prompt` + `completion`, `question` + `answer`,
    /// `instruction` (+ `input`) + `output`.
    #[default]
    Auto,
    /// One field by name.
    Field(String),
    /// Field names in braces within literal text; `{{` and `}}` are literal braces.
    Template(String),
}

impl TextSource {
    /// The template to render, `None` to find the fields row by row.
    pub(crate) fn template(&self) -> Result<Option<Template>, Error> {
        match self {
            Self::Auto => Ok(None),
            Self::Field(name) => Ok(Some(Template::field(name))),
            Self::Template(template) => Template::parse(template).map(Some),
        }
    }
}

/// Reads the content of a row; with `start`, the token that decoders start with, for an encoder and a decoder.
pub(crate) fn parse(row: &Row, template: Option<&Template>, start: Option<u32>) -> Result<Content, Error> {
    if let Some(template) = template {
        let text = Text { text: template.render(row)?, completion: None };
        if start.is_some() {
            return pair::texts(&text, &row.origin).map(Content::Pair);
        }
        return Ok(Content::Text(text));
    }
    let has_ids = row.fields.present("input_ids").is_some();
    match start {
        Some(start) if has_ids => pair::ids(row, token_row(row, None)?, start).map(Content::Pair),
        Some(_) => pair::texts(&text_row(row)?, &row.origin).map(Content::Pair),
        None if has_ids => token_row(row, labels(row)).map(Content::Ids),
        // A decoder beside an encoder that reads no tokens.
        None if row.fields.present("decoder_input_ids").is_some() => pair::target(row).map(Content::Ids),
        None => text_row(row).map(Content::Text),
    }
}

fn text_row(row: &Row) -> Result<Text, Error> {
    let has = |name| row.fields.present(name).is_some();
    let get = |name| string(row, name);
    if has("text") {
        return Ok(Text { text: get("text")?.to_owned(), completion: None });
    }
    let (prompt, completion) = if has("prompt") && has("completion") {
        (get("prompt")?.to_owned(), get("completion")?)
    } else if has("question") && has("answer") {
        (format!("{}\n", get("question")?), get("answer")?)
    } else if has("instruction") && has("output") {
        let input = if has("input") { get("input")? } else { "" };
        let separator = if input.is_empty() { "" } else { "\n" };
        (format!("{}{separator}{input}\n", get("instruction")?), get("output")?)
    } else {
        return Err(no_text(row));
    };
    Ok(Text { completion: Some(prompt.len()), text: prompt + completion })
}

fn no_text(row: &Row) -> Error {
    let origin = row.origin.clone();
    let conversation = ["messages", "conversations"].into_iter().find(|name| row.fields.get(name).is_some());
    match conversation {
        Some(field) => Error::Conversation { origin, field: field.to_owned() },
        None => Error::NoText { origin, fields: row.fields.names().map(str::to_owned).collect() },
    }
}

/// The field with a label for each token. A single number is the class of the row.
fn labels(row: &Row) -> Option<&'static str> {
    let is_class = matches!(row.fields.get("labels"), Some(FieldValue::Json(Value::Number(_))));
    (!is_class).then_some("labels")
}

/// The `input_ids` of a row and what goes with them, with the labels of the field `labels`.
fn token_row(row: &Row, labels: Option<&str>) -> Result<Ids, Error> {
    let ids = integers(row, "input_ids")?.unwrap_or_default();
    let ids = token_ids(ids, "input_ids", &row.origin)?;
    let same_length = |name: &str| match integers(row, name)? {
        Some(values) if values.len() != ids.len() => Err(Error::FieldLength {
            origin: row.origin.clone(),
            field: name.to_owned(),
            expected: ids.len(),
            got: values.len(),
        }),
        other => Ok(other),
    };
    let attended = same_length("attention_mask")?;
    if let Some(bad) = attended.iter().flatten().find(|&&value| value != 0 && value != 1) {
        return Err(wrong_type("attention_mask", "a list of 0 and 1", bad.to_string(), &row.origin));
    }
    let numbers = |name: &str| {
        let values = same_length(name)?;
        values.map(|values| token_ids(values, name, &row.origin)).transpose()
    };
    let (types, positions) = (numbers("token_type_ids")?, numbers("position_ids")?);
    let labels = labels.map(same_length).transpose()?.flatten();
    Ok(Ids {
        attended: attended.map(|values| values.iter().map(|&value| value == 1).collect()),
        labelled: labels.map(|values| values.iter().map(|&value| value != -100).collect()),
        types,
        positions,
        ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;

    /// The row in short: `text` with `|` at the completion, or the lists, or the error.
    fn outcome(text: &str, source: &TextSource) -> String {
        let row = testing::row(text);
        let flags = |flags: Vec<bool>| flags.iter().map(|&f| if f { '1' } else { '0' }).collect::<String>();
        match source.template().and_then(|template| parse(&row, template.as_ref(), None)) {
            Ok(Content::Text(Text { mut text, completion })) => {
                if let Some(at) = completion {
                    text.insert(at, '|');
                }
                text
            }
            Ok(Content::Ids(row)) => {
                let mut out = format!("{:?}", row.ids);
                out.extend(row.attended.map(|a| format!(" a{}", flags(a))));
                out.extend(row.labelled.map(|l| format!(" l{}", flags(l))));
                out.extend(row.types.map(|t| format!(" t{t:?}")));
                out.extend(row.positions.map(|p| format!(" p{p:?}")));
                out
            }
            Ok(Content::NoTokens) => "no tokens".to_owned(),
            Ok(Content::Pair(pair)) => format!("{pair:?}"),
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        }
    }

    #[track_caller]
    fn check(row: &str, expected: &str) {
        assert_eq!(outcome(row, &TextSource::Auto), expected);
    }

    #[test]
    fn text_forms() {
        check(r#"{"text": "a"}"#, "a");
        check(r#"{"prompt": "a ", "completion": "b"}"#, "a |b");
        check(r#"{"question": "é", "answer": "b"}"#, "é\n|b");
        check(r#"{"instruction": "a", "output": "b"}"#, "a\n|b");
        check(r#"{"instruction": "a", "input": "", "output": "b"}"#, "a\n|b");
        check(r#"{"instruction": "a", "input": null, "output": "b"}"#, "a\n|b");
        check(r#"{"instruction": "a", "input": "i", "output": "b"}"#, "a\ni\n|b");
    }

    #[test]
    fn the_first_form_that_fits_is_taken() {
        check(r#"{"answer": "b", "question": "a", "text": "t"}"#, "t");
        check(r#"{"text": null, "question": "a", "answer": "b"}"#, "a\n|b");
        check(r#"{"prompt": "p", "question": "a", "answer": "b"}"#, "a\n|b");
        check(r#"{"text": "t", "input_ids": [1]}"#, "[1]");
        check(r#"{"text": "t", "input_ids": null}"#, "t");
    }

    #[test]
    fn token_forms() {
        check(r#"{"input_ids": [1, 2]}"#, "[1, 2]");
        check(r#"{"input_ids": []}"#, "[]");
        check(r#"{"input_ids": [1, 2], "attention_mask": [1, 0], "labels": [-100, 2]}"#, "[1, 2] a10 l01");
        check(r#"{"input_ids": [1, 2], "token_type_ids": [0, 1], "labels": null}"#, "[1, 2] t[0, 1]");
        check(r#"{"input_ids": [1, 2], "position_ids": [4, 0]}"#, "[1, 2] p[4, 0]");
        check(r#"{"input_ids": [1, 2], "labels": 1}"#, "[1, 2]");
    }

    #[test]
    fn wrong_token_rows() {
        check(r#"{"input_ids": "1"}"#, "`input_ids` must be a list of integers, got a string");
        check(r#"{"input_ids": [1.5]}"#, "`input_ids` must be a list of integers, got 1.5 in it");
        check(r#"{"input_ids": [[1]]}"#, "`input_ids` must be a list of integers, got an array in it");
        check(r#"{"input_ids": [-1]}"#, "`input_ids` must be a list of token ids from 0, got -1 in it");
        check(r#"{"input_ids": [1], "labels": [1, 2]}"#, "`labels` has 2 entries, `input_ids` has 1");
        check(r#"{"input_ids": [1], "attention_mask": []}"#, "`attention_mask` has 0 entries, `input_ids` has 1");
        check(r#"{"input_ids": [1], "attention_mask": [2]}"#, "`attention_mask` must be a list of 0 and 1, got 2");
    }

    #[test]
    fn wrong_rows() {
        check(r#"{"text": 1}"#, "`text` must be a string, got a number");
        check(r#"{"prompt": [], "completion": "b"}"#, "`prompt` must be a string, got an array");
        check("{}", "no text or token ids in a row without fields");
        check(r#"{"a": 1, "b": 2}"#, "no text or token ids in a row with `a`, `b`");
    }

    #[test]
    fn conversations_are_named() {
        let expected = "`messages` holds a conversation, which needs a chat template";
        check(r#"{"prompt": "a", "messages": []}"#, expected);
        check(r#"{"messages": [], "text": "t"}"#, "t");
    }

    #[test]
    fn named_fields_and_templates_come_first() {
        let row = r#"{"text": "t", "input_ids": [1], "q": "a"}"#;
        assert_eq!(outcome(row, &TextSource::Field("q".into())), "a");
        assert_eq!(outcome(row, &TextSource::Template("<{q}{text}>".into())), "<at>");
        let missing = outcome(row, &TextSource::Field("z".into()));
        assert_eq!(missing, "no field `z` in a row with `text`, `input_ids`, `q`");
    }
}

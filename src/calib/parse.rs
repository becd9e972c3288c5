//! What a row says: token ids, or text that may have a completion.

use serde_json::{Map, Value};

use super::error::{Error, Origin};
use super::fields::{integers, kind, narrow, present, string, wrong_type};
use super::jsonl::Line;
use super::pair::{self, Pair};
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
    /// Field names in braces within literal text; `{{` and `}}` stand for braces.
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

/// The content of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    Ids(Ids),
    Text(Text),
    Pair(Pair),
    /// Nothing to tokenise: the row holds tensors alone.
    NoTokens,
}

/// A tokenised row; every list has the length of `ids`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) ids: Vec<u32>,
    /// Tokens that are no padding.
    pub(crate) attended: Option<Vec<bool>>,
    /// Tokens with a label other than -100.
    pub(crate) labelled: Option<Vec<bool>>,
    pub(crate) types: Option<Vec<u32>>,
}

/// A row to tokenise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// Byte at which the completion begins, when the row tells prompt and completion apart.
    pub(crate) completion: Option<usize>,
}

/// Reads a line as a row; with `start`, the token that decoders start with, as a row for an encoder and a decoder.
pub(crate) fn parse(line: &Line, template: Option<&Template>, start: Option<u32>) -> Result<Row, Error> {
    let origin = &line.origin;
    let row = object(line)?;
    if let Some(template) = template {
        let text = Text { text: template.render(&row, origin)?, completion: None };
        return if start.is_some() { pair::texts(&text, origin).map(Row::Pair) } else { Ok(Row::Text(text)) };
    }
    let ids = present(&row, "input_ids").is_some();
    match start {
        Some(start) if ids => {
            let mut source = row.clone();
            source.remove("labels");
            pair::ids(&row, token_row(&source, origin)?, start, origin).map(Row::Pair)
        }
        Some(_) => pair::texts(&text_row(&row, origin)?, origin).map(Row::Pair),
        None if ids => token_row(&row, origin).map(Row::Ids),
        // A decoder beside an encoder that reads no tokens.
        None if present(&row, "decoder_input_ids").is_some() => pair::target(&row, origin).map(Row::Ids),
        None => text_row(&row, origin).map(Row::Text),
    }
}

/// The fields of a line.
pub(crate) fn object(line: &Line) -> Result<Map<String, Value>, Error> {
    match serde_json::from_str(&line.text) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(other) => Err(Error::NotAnObject { origin: line.origin.clone(), got: kind(&other) }),
        Err(error) => Err(broken_json(&error, &line.origin)),
    }
}

fn text_row(row: &Map<String, Value>, origin: &Origin) -> Result<Text, Error> {
    let has = |name| present(row, name).is_some();
    let get = |name| string(row, name, origin);
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
        return Err(no_text(row, origin));
    };
    Ok(Text { completion: Some(prompt.len()), text: prompt + completion })
}

fn no_text(row: &Map<String, Value>, origin: &Origin) -> Error {
    let origin = origin.clone();
    let conversation = ["messages", "conversations"].into_iter().find(|name| row.contains_key(*name));
    match conversation {
        Some(field) => Error::Conversation { origin, field: field.to_owned() },
        None => Error::NoText { origin, fields: row.keys().cloned().collect() },
    }
}

fn token_row(row: &Map<String, Value>, origin: &Origin) -> Result<Ids, Error> {
    let ids = integers(row, "input_ids", origin)?.unwrap_or_default();
    let ids = narrow(ids, "input_ids", origin)?;
    let same_length = |name: &'static str| match integers(row, name, origin)? {
        Some(values) if values.len() != ids.len() => Err(Error::FieldLength {
            origin: origin.clone(),
            field: name.to_owned(),
            expected: ids.len(),
            got: values.len(),
        }),
        other => Ok(other),
    };
    let attended = same_length("attention_mask")?;
    if let Some(bad) = attended.iter().flatten().find(|&&value| value != 0 && value != 1) {
        return Err(wrong_type("attention_mask", "a list of 0 and 1", bad.to_string(), origin));
    }
    let types = same_length("token_type_ids")?;
    let types = types.map(|types| narrow(types, "token_type_ids", origin)).transpose()?;
    // A single number is the class of the row, not a label for each token.
    let classified = matches!(row.get("labels"), Some(Value::Number(_)));
    let labels = if classified { None } else { same_length("labels")? };
    Ok(Ids {
        attended: attended.map(|values| values.iter().map(|&value| value == 1).collect()),
        labelled: labels.map(|values| values.iter().map(|&value| value != -100).collect()),
        types,
        ids,
    })
}

fn broken_json(error: &serde_json::Error, origin: &Origin) -> Error {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    Error::Json { origin: origin.clone(), column: error.column(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row in short: `text` with `|` at the completion, or the lists, or the error.
    fn outcome(text: &str, source: &TextSource) -> String {
        let origin = Origin { file: std::path::Path::new("f").into(), line: 1 };
        let line = Line { origin, text: text.to_owned() };
        let flags = |flags: Vec<bool>| flags.iter().map(|&f| if f { '1' } else { '0' }).collect::<String>();
        match source.template().and_then(|template| parse(&line, template.as_ref(), None)) {
            Ok(Row::Text(Text { mut text, completion })) => {
                if let Some(at) = completion {
                    text.insert(at, '|');
                }
                text
            }
            Ok(Row::Ids(row)) => {
                let mut out = format!("{:?}", row.ids);
                out.extend(row.attended.map(|a| format!(" a{}", flags(a))));
                out.extend(row.labelled.map(|l| format!(" l{}", flags(l))));
                out.extend(row.types.map(|t| format!(" t{t:?}")));
                out
            }
            Ok(Row::NoTokens) => "no tokens".to_owned(),
            Ok(Row::Pair(pair)) => format!("{pair:?}"),
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
        check("3", "expected an object, got a number");
        check(r#"{"a": }"#, "broken JSON at column 7: expected value");
        check(r#"{"a": 1"#, "broken JSON at column 7: EOF while parsing an object");
        check(r#"{"a": 1} x"#, "broken JSON at column 10: trailing characters");
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

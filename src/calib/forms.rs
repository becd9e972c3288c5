//! The fields that hold the text of a row.

use serde_json::Value;

use super::content::{Completion, Text};
use super::error::Error;
use super::fields::{string, wrong_type};
use super::row::{FieldValue, Row};

/// Fields with a prompt and its completion, best first. The first two are joined as they are, others with a line break.
const COMPLETIONS: [(&str, &str); 10] = [
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
];

/// Fields with the two texts of a pair, as data sets for classification, ranking and reading call them.
const PAIRS: [(&str, &str); 9] = [
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "context"),
    ("question", "sentence"),
];

/// Whether a field of this name can hold text of a row.
pub(crate) fn is_text_field(name: &str) -> bool {
    name == "text" || COMPLETIONS.iter().chain(&PAIRS).any(|(first, second)| *first == name || *second == name)
}

/// The text of a row, by the fields that it has.
pub(crate) fn text(row: &Row) -> Result<Text, Error> {
    let has = |name: &str| row.fields.has(name);
    let both = |(first, second): &&(&str, &str)| has(first) && has(second);
    if has("text") && !has("text_pair") {
        return Ok(Text::plain(string(row, "text")?));
    }
    if let Some((prompt, answer)) = COMPLETIONS.iter().find(both).filter(|_| !has("text")) {
        return completed(row, prompt, answer);
    }
    if let Some((first, second)) = PAIRS.iter().find(both) {
        return Ok(Text { second: Some(string(row, second)?.to_owned()), ..Text::plain(string(row, first)?) });
    }
    // A prompt beside answers of other names would be learnt without them.
    if has("prompt") && !has("chosen") {
        return Ok(Text::plain(string(row, "prompt")?));
    }
    Err(Error::NoText { origin: row.origin.clone(), fields: row.fields.names().map(str::to_owned).collect() })
}

/// Whether a row has a text or a prompt with its completion, which come before conversations.
pub(crate) fn is_text(row: &Row) -> bool {
    let text = |name: &str| !matches!(row.fields.peek(name), None | Some(FieldValue::Json(Value::Array(_))));
    row.fields.has("text") || COMPLETIONS.iter().any(|(prompt, answer)| text(prompt) && text(answer))
}

/// A prompt and its completion as one text.
fn completed(row: &Row, prompt: &str, answer: &str) -> Result<Text, Error> {
    let answer_text = string(row, answer)?;
    let mut text = String::new();
    if answer == "completion" {
        text.push_str(string(row, prompt)?);
    } else {
        let mut lines = before(row)?;
        lines.push(string(row, prompt)?);
        lines.extend(context(row, prompt)?);
        lines.iter().for_each(|line| text.extend([line, "\n"]));
    }
    let completion = Some(Completion::From(text.len()));
    Ok(Text { completion, ..Text::plain(text + answer_text) })
}

/// The system prompt and the turns before the prompt.
fn before(row: &Row) -> Result<Vec<&str>, Error> {
    let mut lines = Vec::new();
    for name in ["system", "system_prompt"] {
        if row.fields.has(name) {
            lines.push(string(row, name)?);
        }
    }
    let wrong = |got: &str| wrong_type("history", "a list of [prompt, answer] lists", got.to_owned(), &row.origin);
    match row.fields.present("history") {
        None => {}
        Some(FieldValue::Json(Value::Array(turns))) => {
            let texts = turns.iter().map(|turn| match turn.as_array().map(Vec::as_slice) {
                Some([Value::String(prompt), Value::String(answer)]) => Ok([prompt.as_str(), answer.as_str()]),
                _ => Err(wrong("something else in it")),
            });
            lines.extend(texts.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten());
        }
        Some(other) => return Err(wrong(other.kind())),
    }
    lines.retain(|line| !line.is_empty());
    Ok(lines)
}

/// What the prompt is about.
fn context<'a>(row: &'a Row, prompt: &str) -> Result<Option<&'a str>, Error> {
    if prompt == "instruction" && row.fields.has("input") {
        return string(row, "input").map(|text| Some(text).filter(|text| !text.is_empty()));
    }
    Ok(match row.fields.get("context") {
        Some(FieldValue::Json(Value::String(text))) if !text.is_empty() => Some(text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;

    /// The text with `|` at the completion, or the pair with `||` between, or the error.
    #[track_caller]
    fn check(json: &str, expected: &str) {
        let shown = match text(&testing::row(json)) {
            Ok(Text { text, second: Some(second), .. }) => format!("{text}||{second}"),
            Ok(Text { mut text, completion, .. }) => {
                if let Some(Completion::From(at)) = completion {
                    text.insert(at, '|');
                }
                text
            }
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn prompts_with_completions() {
        check(r#"{"prompt": "a ", "completion": "b"}"#, "a |b");
        check(r#"{"question": "é", "answer": "b"}"#, "é\n|b");
        check(r#"{"instruction": "a", "output": "b"}"#, "a\n|b");
        check(r#"{"instruction": "a", "input": "", "output": "b"}"#, "a\n|b");
        check(r#"{"instruction": "a", "input": null, "output": "b"}"#, "a\n|b");
        check(r#"{"instruction": "a", "input": "i", "output": "b"}"#, "a\ni\n|b");
        check(r#"{"instruction": "a", "context": "", "response": "b", "category": "qa"}"#, "a\n|b");
        check(r#"{"instruction": "a", "context": "c", "response": "b"}"#, "a\nc\n|b");
        check(r#"{"query": "a", "response": "b"}"#, "a\n|b");
        check(r#"{"input": "a", "output": "b"}"#, "a\n|b");
    }

    #[test]
    fn system_prompts_and_turns_before() {
        check(r#"{"system_prompt": "s", "question": "a", "response": "b"}"#, "s\na\n|b");
        check(r#"{"system": "", "history": [], "instruction": "a", "input": "i", "output": "b"}"#, "a\ni\n|b");
        let row = r#"{"instruction": "a", "output": "b", "system": "s", "history": [["p", "q"], ["r", "t"]]}"#;
        check(row, "s\np\nq\nr\nt\na\n|b");
        let wrong = "`history` must be a list of [prompt, answer] lists, got";
        check(r#"{"instruction": "a", "output": "b", "history": "h"}"#, &format!("{wrong} a string"));
        check(r#"{"instruction": "a", "output": "b", "history": [["p"]]}"#, &format!("{wrong} something else in it"));
    }

    #[test]
    fn pairs() {
        check(r#"{"text": "a", "text_pair": "b"}"#, "a||b");
        check(r#"{"text": "a", "text_pair": null}"#, "a");
        check(r#"{"premise": "a", "hypothesis": "b", "label": 1}"#, "a||b");
        check(r#"{"sentence2": "b", "sentence1": "a"}"#, "a||b");
        check(r#"{"query": "a", "passage": "b"}"#, "a||b");
        check(r#"{"question": "a", "context": "b", "answers": {"text": ["c"], "answer_start": [0]}}"#, "a||b");
        check(r#"{"text": "a", "text_pair": 1}"#, "`text_pair` must be a string, got a number");
    }

    #[test]
    fn answers_make_one_text() {
        check(r#"{"question": "a", "context": "c", "answer": "b"}"#, "a\nc\n|b");
        check(r#"{"question": "a", "context": {"c": 1}, "answer": "b"}"#, "a\n|b");
    }

    #[test]
    fn the_first_form_that_fits_is_taken() {
        check(r#"{"answer": "b", "question": "a", "text": "t"}"#, "t");
        check(r#"{"answer": "b", "question": "a", "text": "t", "text_pair": "u"}"#, "t||u");
        check(r#"{"text": null, "question": "a", "answer": "b"}"#, "a\n|b");
        check(r#"{"prompt": "p", "question": "a", "answer": "b"}"#, "a\n|b");
        check(r#"{"prompt": "p", "completion": "c", "question": "a", "answer": "b"}"#, "p|c");
    }

    #[test]
    fn prompts_alone() {
        check(r#"{"prompt": "a"}"#, "a");
        check(
            r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
            "no text or token ids in a row with `prompt`, `chosen`, `rejected`",
        );
    }

    #[test]
    fn wrong_rows() {
        check(r#"{"text": 1}"#, "`text` must be a string, got a number");
        check(r#"{"prompt": [], "completion": "b"}"#, "`prompt` must be a string, got an array");
        check("{}", "no text or token ids in a row without fields");
        check(r#"{"a": 1, "b": 2}"#, "no text or token ids in a row with `a`, `b`");
    }
}

//! Reads the content of a row from its fields.

use super::chat::conversation;
use super::content::{Content, Text};
use super::error::Error;
use super::row::Row;
use super::template::Template;
use super::{forms, ids, pair};

/// Where the text of a row comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextSource {
    /// The first fields that fit: `input_ids`, `text`, a prompt and its completion, the two texts of a pair.
    #[default]
    Auto,
    /// One field by name.
    Field(String),
    /// The two texts of a pair, by the names of their fields.
    Pair(String, String),
    /// Field names in braces within literal text; `{{` and `}}` are literal braces.
    Template(String),
}

/// How to find the text in every row.
pub(crate) struct Fixed {
    text: Template,
    second: Option<Template>,
}

impl TextSource {
    /// Where the text is, `None` to find it row by row.
    pub(crate) fn fixed(&self) -> Result<Option<Fixed>, Error> {
        let (text, second) = match self {
            Self::Auto => return Ok(None),
            Self::Field(name) => (Template::field(name), None),
            Self::Pair(first, second) => (Template::field(first), Some(Template::field(second))),
            Self::Template(template) => (Template::parse(template)?, None),
        };
        Ok(Some(Fixed { text, second }))
    }
}

impl Fixed {
    fn text(&self, row: &Row) -> Result<Text, Error> {
        let second = self.second.as_ref().map(|template| template.render(row)).transpose()?;
        Ok(Text { second, ..Text::plain(self.text.render(row)?) })
    }
}

/// Reads the content of a row; with `start`, the token that decoders start with, for an encoder and a decoder.
pub(crate) fn parse(row: &Row, fixed: Option<&Fixed>, start: Option<u32>) -> Result<Content, Error> {
    if let Some(fixed) = fixed {
        let text = fixed.text(row)?;
        if start.is_some() {
            return pair::texts(text, &row.origin).map(Content::Pair);
        }
        return Ok(Content::Text(text));
    }
    let has_ids = row.fields.has("input_ids");
    match start {
        Some(start) if has_ids => pair::ids(row, ids::ids(row, false)?, start).map(Content::Pair),
        Some(_) => pair::texts(forms::text(row)?, &row.origin).map(Content::Pair),
        None if has_ids => ids::ids(row, true).map(Content::Ids),
        // A decoder beside an encoder that reads no tokens.
        None if row.fields.has("decoder_input_ids") => pair::target(row).map(Content::Ids),
        None if forms::is_text(row) => forms::text(row).map(Content::Text),
        None => match conversation(row)? {
            Some(conversation) => Ok(Content::Chat(conversation)),
            None => forms::text(row).map(Content::Text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;

    /// The text, the first with ` || ` before the second, or the ids, or the error.
    #[track_caller]
    fn check(row: &str, source: &TextSource, expected: &str) {
        let row = testing::row(row);
        let shown = match source.fixed().and_then(|fixed| parse(&row, fixed.as_ref(), None)) {
            Ok(Content::Text(Text { text, second: None, .. })) => text,
            Ok(Content::Text(Text { text, second: Some(second), .. })) => format!("{text} || {second}"),
            Ok(Content::Ids(row)) => format!("{:?}", row.ids),
            Ok(Content::Chat(chat)) if chat.messages.len() == 1 => "1 message".to_owned(),
            Ok(Content::Chat(chat)) => format!("{} messages", chat.messages.len()),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn ids_come_first() {
        check(r#"{"text": "t", "input_ids": [1]}"#, &TextSource::Auto, "[1]");
        check(r#"{"text": "t", "input_ids": null}"#, &TextSource::Auto, "t");
    }

    #[test]
    fn conversations_come_after_texts() {
        let messages = r#"[{"role": "user", "content": "a"}]"#;
        let check = |row: String, expected| check(&row, &TextSource::Auto, expected);
        check(format!(r#"{{"messages": {messages}}}"#), "1 message");
        check(format!(r#"{{"messages": {messages}, "text": "t"}}"#), "t");
        check(format!(r#"{{"messages": {messages}, "prompt": "p", "prompt_id": "q"}}"#), "1 message");
        check(format!(r#"{{"messages": {messages}, "prompt": "p", "completion": "c"}}"#), "pc");
        check(format!(r#"{{"prompt": {messages}, "completion": {messages}}}"#), "2 messages");
        check(format!(r#"{{"prompt": {messages}, "answer": "b"}}"#), "1 message");
    }

    #[test]
    fn named_fields_and_templates_come_before_all() {
        let row = r#"{"text": "t", "input_ids": [1], "q": "a"}"#;
        check(row, &TextSource::Field("q".into()), "a");
        check(row, &TextSource::Pair("q".into(), "text".into()), "a || t");
        check(row, &TextSource::Template("<{q}{text}>".into()), "<at>");
        check(row, &TextSource::Field("z".into()), "no field `z` in a row with `text`, `input_ids`, `q`");
    }
}

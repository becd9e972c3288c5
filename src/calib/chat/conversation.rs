//! Rows that are conversations, in the form that chat templates read: messages with `role` and `content`.

use serde_json::{Map, Value};

use super::super::error::Error;
use super::super::fields::wrong_type;
use super::super::row::{FieldValue, Row, RowOrigin};

/// Fields that hold a whole conversation.
const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];

/// Roles by the names that ShareGPT and its descendants have for them.
const ROLES: [(&str, &str); 8] = [
    ("human", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("observation", "tool"),
    ("function_response", "tool"),
];

/// What a chat template is given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversation {
    /// Objects with a `role`.
    pub(crate) messages: Vec<Value>,
    /// The number of messages before the completion, when the row separates the two.
    pub(crate) prompt: Option<usize>,
    /// Whether the text ends with the beginning of the assistant's answer.
    pub(crate) open: bool,
    /// Other variables of the template.
    pub(crate) variables: Map<String, Value>,
}

impl Eq for Conversation {}

/// The conversation of a row: `messages`, or `prompt` and `completion` as lists of messages. `None` for other rows.
pub(crate) fn conversation(row: &Row) -> Result<Option<Conversation>, Error> {
    let (messages, prompt) = if let Some(prompt) = list(row, "prompt") {
        let prompt = read(prompt, "prompt", &row.origin)?;
        let before = prompt.len();
        match row.fields.present("completion") {
            Some(_) => {
                let completion = list(row, "completion").unwrap_or_default();
                let completion = read(completion, "completion", &row.origin)?;
                ([prompt, completion].concat(), Some(before))
            }
            None => (prompt, None),
        }
    } else if let Some(name) = CONVERSATIONS.into_iter().find(|name| row.fields.has(name)) {
        let messages = list(row, name);
        let got = || row.fields.present(name).map_or("nothing", FieldValue::kind).to_owned();
        let messages = messages.ok_or_else(|| wrong_type(name, "a list of messages", got(), &row.origin))?;
        (read(messages, name, &row.origin)?, None)
    } else {
        return Ok(None);
    };
    let is_user = |message: &Value| message["role"] == "user";
    let open = row.fields.has("prompt") && prompt.is_none() && messages.last().is_some_and(is_user);
    let mut found =
        Conversation { messages, prompt, open: open && list(row, "prompt").is_some(), variables: Map::new() };
    add_system(row, &mut found)?;
    found.variables = variables(row)?;
    Ok(Some(found))
}

/// A field that is a list, or text that is a JSON list.
fn list(row: &Row, name: &str) -> Option<Vec<Value>> {
    if !row.fields.has(name) {
        return None;
    }
    let list = |text: &String| serde_json::from_str(text).ok();
    match row.fields.get(name)? {
        FieldValue::Json(Value::Array(values)) => Some(values.clone()),
        FieldValue::Json(Value::String(text)) if text.trim_start().starts_with('[') => list(text),
        _ => None,
    }
}

/// Messages as templates read them.
fn read(messages: Vec<Value>, field: &str, origin: &RowOrigin) -> Result<Vec<Value>, Error> {
    let wrong = |got: &str| wrong_type(field, "a list of messages with `role` and `content`", got.to_owned(), origin);
    if messages.is_empty() {
        return Err(wrong("an empty list"));
    }
    let message = |message| match message {
        Value::Object(message) => renamed(message).ok_or_else(|| wrong("a message without a role")),
        _ => Err(wrong("something else in it")),
    };
    messages.into_iter().map(message).collect()
}

/// A message with `from` and `value` as `role` and `content`.
fn renamed(mut message: Map<String, Value>) -> Option<Value> {
    if !message.contains_key("role") {
        let role = message.remove("from")?;
        let content = message.remove("value").unwrap_or_default();
        message.insert("role".to_owned(), role);
        message.insert("content".to_owned(), content);
    }
    let role = message.get("role")?.as_str()?;
    if let Some((_, known)) = ROLES.iter().find(|(name, _)| *name == role) {
        message.insert("role".to_owned(), (*known).into());
    }
    Some(Value::Object(message))
}

/// Puts the system prompt of the row in front, where the messages have none.
fn add_system(row: &Row, found: &mut Conversation) -> Result<(), Error> {
    let Some(name) = ["system", "system_prompt"].into_iter().find(|name| row.fields.has(name)) else {
        return Ok(());
    };
    let content = super::super::fields::string(row, name)?;
    if !content.is_empty() && found.messages[0]["role"] != "system" {
        found.messages.insert(0, serde_json::json!({"role": "system", "content": content}));
        found.prompt = found.prompt.map(|before| before + 1);
    }
    Ok(())
}

/// `tools`, `documents` and what `chat_template_kwargs` names.
fn variables(row: &Row) -> Result<Map<String, Value>, Error> {
    let mut variables = Map::new();
    for name in ["tools", "documents"] {
        if row.fields.has(name) {
            let got = || row.fields.get(name).map_or("nothing", FieldValue::kind).to_owned();
            let values = list(row, name).ok_or_else(|| wrong_type(name, "a list", got(), &row.origin))?;
            variables.insert(name.to_owned(), Value::Array(values));
        }
    }
    match row.fields.present("chat_template_kwargs") {
        None => {}
        Some(FieldValue::Json(Value::Object(given))) => variables.extend(given.clone()),
        Some(other) => {
            return Err(wrong_type("chat_template_kwargs", "an object", other.kind().to_owned(), &row.origin));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;

    /// `role:content` of each message, then what else there is.
    #[track_caller]
    fn check(json: &str, expected: &str) {
        let shown = match conversation(&testing::row(json)) {
            Ok(None) => "none".to_owned(),
            Ok(Some(found)) => {
                let said = |message: &Value| format!("{}:{}", message["role"], message["content"]).replace('"', "");
                let mut said = found.messages.iter().map(said).collect::<Vec<_>>().join(" ");
                said.extend(found.prompt.map(|before| format!(" |{before}")));
                said.extend(found.open.then_some(" ..."));
                said.extend(found.variables.iter().map(|(name, value)| format!(" {name}={value}")));
                said
            }
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn conversations() {
        check(r#"{"messages": [{"role": "user", "content": "a"}]}"#, "user:a");
        check(
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            "user:a assistant:b",
        );
        check(r#"{"messages": "[{\"role\": \"user\", \"content\": \"a\"}]"}"#, "user:a");
        let row = r#"{"system": "s", "conversations": [{"from": "human", "value": "a"}], "tools": "[1]"}"#;
        check(row, "system:s user:a tools=[1]");
        let row = r#"{"system": "s", "messages": [{"role": "system", "content": "t"}], "tools": null}"#;
        check(row, "system:t");
        let row =
            r#"{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"enable_thinking": false}}"#;
        check(row, "user:a enable_thinking=false");
        check(r#"{"question": "a"}"#, "none");
    }

    #[test]
    fn prompts_and_completions() {
        let (prompt, completion) =
            (r#"[{"role": "user", "content": "a"}]"#, r#"[{"role": "assistant", "content": "b"}]"#);
        check(&format!(r#"{{"prompt": {prompt}, "completion": {completion}}}"#), "user:a assistant:b |1");
        check(
            &format!(r#"{{"prompt": {prompt}, "completion": {completion}, "system": "s"}}"#),
            "system:s user:a assistant:b |2",
        );
        check(&format!(r#"{{"prompt": {prompt}}}"#), "user:a ...");
        check(&format!(r#"{{"prompt": {completion}}}"#), "assistant:b");
        let wrong = "`completion` must be a list of messages with `role` and `content`, got an empty list";
        check(&format!(r#"{{"prompt": {prompt}, "completion": "b"}}"#), wrong);
    }

    #[test]
    fn wrong_conversations() {
        let wrong = "`messages` must be a list of messages with `role` and `content`, got";
        check(r#"{"messages": []}"#, &format!("{wrong} an empty list"));
        check(r#"{"messages": ["a"]}"#, &format!("{wrong} something else in it"));
        check(r#"{"messages": [{"content": "a"}]}"#, &format!("{wrong} a message without a role"));
        check(r#"{"messages": "a"}"#, "`messages` must be a list of messages, got a string");
    }
}

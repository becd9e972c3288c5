//! Text of conversations, and what of it is the completion.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

use super::super::content::{Completion, Text};
use super::super::row::RowOrigin;
use super::conversation::Conversation;
use super::error::ChatError;
use super::files::{self, Files};
use super::template::{Rendered, Template};

/// The chat templates of a tokenizer, or the one that the user named.
pub(crate) struct Chat {
    default: Named,
    /// The template for conversations with tools.
    tools: Option<Named>,
    tokens: Map<String, Value>,
}

struct Named {
    name: String,
    template: Template,
    /// Whether the template takes the content of a message as text.
    text: bool,
    /// Whether it takes the content of a message as a list of parts.
    parts: bool,
}

impl Chat {
    /// The templates beside a tokenizer; `wanted` is the name of one, or a file with another.
    ///
    /// # Errors
    /// When there is none, several and none is the default, or one that cannot be compiled.
    pub(crate) fn open(tokenizer: &Path, wanted: Option<&str>, origin: &RowOrigin) -> Result<Self, ChatError> {
        let Files { folder, templates, tokens } = files::read(tokenizer)?;
        let take = |name: &str| templates.iter().find(|(known, _)| known == name).cloned();
        let default = match wanted {
            Some(name) => match take(name) {
                Some(found) => Some(found),
                None => Some((name.to_owned(), file(name, &folder, &templates)?)),
            },
            None => take("default"),
        };
        let tools = if wanted.is_none() { take("tool_use") } else { None };
        let Some(default) = default else {
            let names = templates.into_iter().map(|(name, _)| name).collect();
            return Err(ChatError::NoChatTemplate { origin: origin.clone(), folder, names });
        };
        let named = |(name, source): (String, String)| Named::new(name, &source, &tokens);
        Ok(Self { default: named(default)?, tools: tools.map(named).transpose()?, tokens })
    }

    /// The text of a conversation, with its completion if that is asked for.
    ///
    /// # Errors
    /// When the template refuses the conversation, or the completion cannot be told from the rest.
    pub(crate) fn text(&self, chat: &Conversation, completion: bool, origin: &RowOrigin) -> Result<Text, ChatError> {
        let named = self.tools.as_ref().filter(|_| chat.variables.contains_key("tools")).unwrap_or(&self.default);
        let render = |messages: &[Value], open: bool| {
            named.render(messages, open, &chat.variables, &self.tokens).map_err(|message| ChatError::Render {
                origin: origin.clone(),
                template: named.name.clone(),
                message,
            })
        };
        let messages = named.fitting(&chat.messages, origin)?;
        let whole = render(&messages, chat.open)?;
        let completion = match completion {
            false => None,
            true if named.template.tells && chat.prompt.is_none() => Some(whole.said),
            true => {
                let unknown = |reason| ChatError::NoTurn { origin: origin.clone(), reason };
                let is_assistant = |message: &Value| message["role"] == "assistant";
                let last = || messages.iter().rposition(is_assistant).ok_or_else(|| unknown(NO_ANSWER));
                let (at, end) = match chat.prompt {
                    Some(before) => (before, messages.len()),
                    None => last().map(|at| (at, at + 1))?,
                };
                let before = render(&messages[..at], true)?.text;
                let through =
                    if end == messages.len() { whole.text.clone() } else { render(&messages[..end], false)?.text };
                if !through.starts_with(&before) || !whole.text.starts_with(&through) {
                    return Err(unknown(REWRITTEN));
                }
                Some(std::iter::once(before.len()..through.len()).collect())
            }
        };
        Ok(Text { completion: completion.map(Completion::Within), special: false, ..Text::plain(whole.text) })
    }
}

const NO_ANSWER: &str = "no message is the assistant's";
const REWRITTEN: &str = "the chat template writes what is before the last answer otherwise when no answer follows, and \
                         has no {% generation %} tags";

/// The template in a file that the user named.
fn file(name: &str, folder: &Path, templates: &[(String, String)]) -> Result<String, ChatError> {
    let path = PathBuf::from(name);
    std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ChatError::UnknownChatTemplate {
            name: name.to_owned(),
            folder: folder.to_owned(),
            names: templates.iter().map(|(name, _)| name.clone()).collect(),
        },
        _ => ChatError::ChatFile { path, message: error.to_string() },
    })
}

impl Named {
    fn new(name: String, source: &str, tokens: &Map<String, Value>) -> Result<Self, ChatError> {
        let broken =
            |error: minijinja::Error| ChatError::ChatTemplate { name: name.clone(), message: error.to_string() };
        let template = Template::new(source).map_err(broken)?;
        let mut named = Self { name, template, text: true, parts: true };
        const SAID: &str = "eva";
        let written = |content: Value| {
            let rendered = named.render(&[json!({"role": "user", "content": content})], false, &Map::new(), tokens);
            rendered.is_ok_and(|rendered| rendered.text.contains(SAID) && !rendered.text.contains("'type'"))
        };
        let (text, parts) = (written(SAID.into()), written(json!([{"type": "text", "text": SAID}])));
        // A template that takes neither alone takes what it is given.
        if text || parts {
            (named.text, named.parts) = (text, parts);
        }
        Ok(named)
    }

    fn render(
        &self,
        messages: &[Value],
        open: bool,
        variables: &Map<String, Value>,
        tokens: &Map<String, Value>,
    ) -> Result<Rendered, String> {
        let mut all = tokens.clone();
        all.insert("tools".to_owned(), Value::Null);
        all.insert("documents".to_owned(), Value::Null);
        all.extend(variables.clone());
        all.insert("messages".to_owned(), messages.into());
        all.insert("add_generation_prompt".to_owned(), open.into());
        self.template.render(&all).map_err(|error| error.to_string())
    }

    /// The messages with their content as the template takes it.
    fn fitting(&self, messages: &[Value], origin: &RowOrigin) -> Result<Vec<Value>, ChatError> {
        let mut messages = messages.to_vec();
        for message in &mut messages {
            let Some(content) = message.get_mut("content") else { continue };
            match content {
                Value::String(text) if !self.text => *content = json!([{"type": "text", "text": text}]),
                Value::Array(parts) if !self.parts => {
                    let text =
                        |part: &Value| part["text"].as_str().filter(|_| part["type"] == "text").map(str::to_owned);
                    let texts: Option<Vec<String>> = parts.iter().map(text).collect();
                    let texts = texts
                        .ok_or_else(|| ChatError::NotText { origin: origin.clone(), template: self.name.clone() })?;
                    *content = texts.join("\n").into();
                }
                _ => {}
            }
        }
        Ok(messages)
    }
}

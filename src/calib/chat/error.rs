//! What can be wrong with conversations and chat templates.

use std::path::PathBuf;

use super::super::row::RowOrigin;
use crate::hint::Hint;

/// Why a conversation could not be made text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A row is a conversation, and there is no chat template, or none that is the default.
    #[error("{origin}: the row is a conversation, and {} beside the tokenizer in `{}`", no_default(names), folder.display())]
    NoChatTemplate {
        /// The row concerned.
        origin: RowOrigin,
        /// The folder of the tokenizer, where it was looked for.
        folder: PathBuf,
        /// The names of the templates that are there.
        names: Vec<String>,
    },
    /// A chat template that was asked for does not exist.
    #[error(
        "there is no chat template `{name}`: neither a file, nor one of that name{} beside the tokenizer in `{}`",
        listed(names),
        folder.display()
    )]
    UnknownChatTemplate {
        /// The name.
        name: String,
        /// The folder of the tokenizer.
        folder: PathBuf,
        /// The names of the templates that are there.
        names: Vec<String>,
    },
    /// A file with chat templates or special tokens cannot be read.
    #[error("cannot read `{}`: {message}", path.display())]
    ChatFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A chat template cannot be compiled.
    #[error("cannot understand the chat template `{name}`: {message}")]
    ChatTemplate {
        /// Its name.
        name: String,
        /// The message of the template engine.
        message: String,
    },
    /// The chat template refuses a conversation.
    #[error("{origin}: the chat template `{template}` refuses the conversation: {message}")]
    Render {
        /// The row concerned.
        origin: RowOrigin,
        /// Name of the template.
        template: String,
        /// The message of the template or its engine.
        message: String,
    },
    /// A message has parts that are no text, and the chat template takes text alone.
    #[error("{origin}: a message has parts other than text, which the chat template `{template}` does not write")]
    NotText {
        /// The row concerned.
        origin: RowOrigin,
        /// Name of the template.
        template: String,
    },
    /// Only completions were asked for, and a conversation does not tell which part that is.
    #[error("{origin}: cannot tell the assistant's answer from the rest: {reason}")]
    NoTurn {
        /// The row concerned.
        origin: RowOrigin,
        /// Why.
        reason: &'static str,
    },
}

impl Hint for ChatError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoChatTemplate { names, .. } if !names.is_empty() => "name one of them with `--chat-template`",
            Self::NoChatTemplate { .. } => {
                "put the model's chat_template.jinja or tokenizer_config.json beside tokenizer.json (`save_pretrained` of \
                 its Hugging Face tokenizer writes them), or name a template file with `--chat-template`"
            }
            Self::UnknownChatTemplate { .. } => "give a .jinja file, or leave out `--chat-template`",
            Self::ChatFile { .. } => "write it anew with `save_pretrained` of the model's Hugging Face tokenizer",
            Self::ChatTemplate { .. } => "`--chat-template` can name a file with another template",
            Self::Render { .. } => "correct the row, or name a file with another template with `--chat-template`",
            Self::NotText { .. } => "leave out rows with images and sounds, or replace their parts by text",
            Self::NoTurn { .. } => {
                "leave out `--completion-only`, or name a template file with {% generation %} tags with `--chat-template`"
            }
        };
        Some(hint.to_owned())
    }
}

/// What is wrong with the chat templates of these names.
fn no_default(names: &[String]) -> String {
    if names.is_empty() {
        "there is no chat_template.jinja, and no `chat_template` in tokenizer_config.json,".to_owned()
    } else {
        format!("none of the chat templates{} is the default", listed(names))
    }
}

/// Names in brackets, if there are any.
fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

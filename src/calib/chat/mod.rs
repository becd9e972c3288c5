//! Conversations: rows of messages, and the chat template of the tokenizer that makes text of them.

mod conversation;
mod error;
mod files;
mod python;
mod template;
mod turns;

pub(crate) use conversation::{Conversation, conversation};
pub use error::ChatError;
pub(crate) use turns::Chat;

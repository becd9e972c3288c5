//! What a row holds for the model: token ids, or text that may have a completion.

use std::ops::Range;

use super::chat::Conversation;

/// The content of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Ids(Ids),
    Text(Text),
    Chat(Conversation),
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
    pub(crate) positions: Option<Vec<u32>>,
}

/// A row to tokenise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// The second text of a pair, which the tokenizer encodes together with the first.
    pub(crate) second: Option<String>,
    /// What of `text` is completion, when the row separates prompt and completion.
    pub(crate) completion: Option<Completion>,
    /// Whether the tokenizer adds its special tokens; the text of a chat template has them already.
    pub(crate) special: bool,
}

/// Where the completion is in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Tokens that begin at this byte or later.
    From(usize),
    /// Tokens that reach into one of these ranges of bytes.
    Within(Vec<Range<usize>>),
}

impl Text {
    /// A text without a completion.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), second: None, completion: None, special: true }
    }
}

/// What the encoder and the decoder read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// Texts to tokenise, for the encoder and the decoder.
    Texts(Text, Text),
    /// Token ids of the encoder, with its mask, those of the decoder, already shifted, and what it should predict.
    Ids(Ids, Ids, Vec<i64>),
}

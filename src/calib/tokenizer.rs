//! Text to token ids as Hugging Face's `tokenizer(text, truncation=True)` does it.

use std::path::{Path, PathBuf};

use tokenizers::{Encoding, PostProcessor, TruncationParams};

use super::error::Error;
use super::row::RowOrigin;
use crate::hub::conventions::PAD_TOKENS;

/// A tokenizer with our truncation and no padding, whatever its file asks for.
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pad: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, given as the file or its folder.
    pub(crate) fn open(path: &Path, max_length: usize) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        if !path.exists() {
            return Err(Error::TokenizerMissing { path });
        }
        let broken = |error: tokenizers::Error| Error::Tokenizer { path: path.clone(), message: error.to_string() };
        let mut inner = tokenizers::Tokenizer::from_file(&path).map_err(broken)?;
        let stored = inner.get_padding().map(|padding| padding.pad_id);
        let named = PAD_TOKENS.iter().filter_map(|token| inner.token_to_id(token));
        let pad = stored.into_iter().chain(named).collect();
        let special = inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        if max_length <= special {
            return Err(Error::MaxLength { max_length, special });
        }
        inner.with_padding(None);
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        inner.with_truncation(Some(truncation)).map_err(broken)?;
        Ok(Self { inner, path, pad })
    }

    /// The file it was read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An id for padding that the model's embedding has.
    pub(crate) fn pad_id(&self, vocab_size: Option<usize>) -> u32 {
        let known = |id: &u32| vocab_size.is_none_or(|size| (*id as usize) < size);
        self.pad.iter().copied().find(known).unwrap_or(0)
    }

    /// Encodes texts with special tokens; offsets are bytes of the text.
    pub(crate) fn encode(&self, rows: &[(&RowOrigin, &str)]) -> Result<Vec<Encoding>, Error> {
        let texts: Vec<&str> = rows.iter().map(|(_, text)| *text).collect();
        if let Ok(encodings) = self.inner.encode_batch(texts, true) {
            return Ok(encodings);
        }
        // The batch does not tell which row it failed on.
        let one = |&(origin, text): &(&RowOrigin, &str)| {
            self.inner
                .encode(text, true)
                .map_err(|error| Error::Tokenize { origin: origin.clone(), message: error.to_string() })
        };
        rows.iter().map(one).collect()
    }
}

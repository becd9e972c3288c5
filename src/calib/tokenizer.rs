//! Text to token ids as Hugging Face's `tokenizer(text, truncation=True)` does it.

use std::panic::{AssertUnwindSafe, catch_unwind};
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
        let broken = |message| Error::Tokenizer { path: path.clone(), message };
        let mut inner = caught(|| tokenizers::Tokenizer::from_file(&path)).map_err(broken)?;
        let stored = inner.get_padding().map(|padding| padding.pad_id);
        let named = PAD_TOKENS.iter().filter_map(|token| inner.token_to_id(token));
        let pad = stored.into_iter().chain(named).collect();
        let special = inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        if max_length <= special {
            return Err(Error::MaxLength { max_length, special });
        }
        inner.with_padding(None);
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        inner.with_truncation(Some(truncation)).map_err(|error| broken(error.to_string()))?;
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
        if let Ok(encodings) = caught(|| self.inner.encode_batch(texts, true)) {
            return Ok(encodings);
        }
        // The error of a batch does not name the row.
        let one = |&(origin, text): &(&RowOrigin, &str)| {
            let failed = |message| Error::Tokenize { origin: origin.clone(), path: self.path.clone(), message };
            caught(|| self.inner.encode(text, true)).map_err(failed)
        };
        rows.iter().map(one).collect()
    }
}

/// The result of the tokenizers library, or its message. Some tokenizer files make it panic.
fn caught<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("the tokenizers library failed").to_owned())
        }
    }
}

//! Text to token ids as Hugging Face's `tokenizer(text, truncation=True)` does it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokenizers::{
    Encoding, Model, OffsetType, PostProcessor, PreTokenizer, Token, TruncationParams, truncate_encodings,
};

use super::content::Text;
use super::cut::{cut, joins_words};
use super::error::Error;
use super::row::RowOrigin;
use crate::caught::caught;
use crate::hub::conventions::PAD_TOKENS;
use crate::regular;

/// Bytes of text that are enough for a token in nearly all texts.
const BYTES_A_TOKEN: usize = 8;
/// Longest text in bytes that is tokenised whole. The tokenizers library takes about 200 bytes for each.
const WHOLE: usize = 1 << 20;

/// A tokenizer with our truncation and no padding, whatever its file asks for.
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pad: Vec<u32>,
    max_length: usize,
    /// Special tokens that are put before a text.
    leading: Vec<u32>,
    /// Whether some token of the vocabulary holds a part of two words.
    joins_words: OnceLock<bool>,
}

/// The tokens of a text; every list has the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokenized {
    pub(crate) ids: Vec<u32>,
    pub(crate) types: Vec<u32>,
    /// Bytes of the text that a token covers.
    pub(crate) offsets: Vec<(usize, usize)>,
    /// Special tokens that the tokenizer added.
    pub(crate) special: Vec<bool>,
    /// Whether tokens were cut off.
    pub(crate) truncated: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, given as the file or its folder.
    pub(crate) fn open(path: &Path, max_length: usize) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        if !path.exists() {
            return Err(Error::TokenizerMissing { path });
        }
        let broken = |message| Error::Tokenizer { path: path.clone(), message };
        regular::check(&path).map_err(|error| broken(error.to_string()))?;
        let mut inner = caught(|| tokenizers::Tokenizer::from_file(&path)).map_err(broken)?;
        let stored = inner.get_padding().map(|padding| padding.pad_id);
        let named = PAD_TOKENS.iter().filter_map(|token| inner.token_to_id(token));
        let pad = stored.into_iter().chain(named).collect();
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| broken(error.to_string()))?;
        let leading = caught(|| leading(&inner)).map_err(broken)?;
        Ok(Self { inner, path, pad, max_length, leading, joins_words: OnceLock::new() })
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

    /// Encodes a text or a pair of texts, cut to the maximal length. Of a pair, the longer text is cut first.
    ///
    /// A text that begins with the tokens that the tokenizer puts before every text, such as `<s>`, gets no others.
    pub(crate) fn encode(&self, text: &Text, origin: &RowOrigin) -> Result<Tokenized, Error> {
        let failed = |message| Error::Tokenize { origin: origin.clone(), path: self.path.clone(), message };
        let sequence = |text: &str, type_id, most| match self.start(text, type_id, most) {
            Ok(Some(encoding)) => Ok(encoding),
            Ok(None) if text.len() > WHOLE => {
                let (origin, path) = (origin.clone(), self.path.clone());
                Err(Error::LongText { origin, bytes: text.len(), path })
            }
            Ok(None) => caught(|| self.tokens(text, type_id)).map_err(failed),
            Err(message) => Err(failed(message)),
        };
        // As in transformers, an empty second text is none.
        let (first, second) = match text.second.as_ref().filter(|second| !second.is_empty()) {
            None => (sequence(&text.text, 0, self.max_length)?, None),
            // Which of two is cut first depends on the number of all their tokens.
            Some(second) => {
                let most = if text.text.len().min(second.len()) > self.long() { usize::MAX } else { self.max_length };
                (sequence(&text.text, 0, most)?, Some(sequence(second, 1, most)?))
            }
        };
        let twice = text.special && !self.leading.is_empty() && first.get_ids().starts_with(&self.leading);
        let skipped = if twice { self.leading.len() } else { 0 };
        let added = if text.special { self.special(second.is_some()).saturating_sub(skipped) } else { 0 };
        if self.max_length <= added {
            return Err(Error::MaxLength { max_length: self.max_length, special: added });
        }
        caught(|| self.finished(first, second, text.special, self.max_length - added, skipped)).map_err(failed)
    }

    /// Special tokens that are added to a text or a pair.
    fn special(&self, pair: bool) -> usize {
        self.inner.get_post_processor().map_or(0, |post| post.added_tokens(pair))
    }

    /// Cuts sequences to `max_length` tokens in all, adds special tokens, and drops the first `skipped` of them.
    fn finished(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        special: bool,
        max_length: usize,
        skipped: usize,
    ) -> tokenizers::Result<Tokenized> {
        let length = first.len() + second.as_ref().map_or(0, Encoding::len);
        let params = TruncationParams { max_length, ..TruncationParams::default() };
        let (mut first, mut second) = truncate_encodings(first, second, &params)?;
        first.take_overflowing();
        second.iter_mut().for_each(|second| drop(second.take_overflowing()));
        let encoding = self.inner.post_process(first, second, special)?;
        Ok(Tokenized {
            ids: encoding.get_ids()[skipped..].to_vec(),
            types: encoding.get_type_ids()[skipped..].to_vec(),
            offsets: encoding.get_offsets()[skipped..].to_vec(),
            special: encoding.get_special_tokens_mask()[skipped..].iter().map(|special| *special == 1).collect(),
            truncated: length > max_length,
        })
    }

    /// Texts of more bytes are cut before they are tokenised.
    fn long(&self) -> usize {
        self.max_length.saturating_mul(2 * BYTES_A_TOKEN)
    }

    /// The tokens of the start of a long text, more than `most`, of which the first `most` are those of the whole text.
    /// `None` for short texts, and where no start is known to have them.
    fn start(&self, text: &str, type_id: u32, most: usize) -> Result<Option<Encoding>, String> {
        if text.len() <= self.long() || most == usize::MAX || self.joins_words() {
            return Ok(None);
        }
        let mut wanted = most.saturating_mul(BYTES_A_TOKEN);
        while let Some(cut) = cut(text, wanted) {
            let encoding = caught(|| self.tokens(&text[..cut.end], type_id))?;
            let mut kept = encoding.get_offsets().iter().take(most);
            if encoding.len() > most && kept.all(|(_, end)| *end <= cut.settled) {
                return Ok(Some(encoding));
            }
            wanted = wanted.saturating_mul(4);
        }
        Ok(None)
    }

    fn joins_words(&self) -> bool {
        *self.joins_words.get_or_init(|| joins_words(self.inner.get_vocab(true).keys().map(String::as_str)))
    }

    /// The tokens of a text before special tokens are added.
    fn tokens(&self, text: &str, type_id: u32) -> tokenizers::Result<Encoding> {
        let added = self.inner.get_added_vocabulary();
        let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get()))?;
        pieces.into_encoding(None, type_id, OffsetType::Byte)
    }
}

/// The special tokens that a tokenizer puts before every text.
fn leading(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Vec<u32>> {
    let one = Encoding::from_tokens(vec![Token::new(0, String::new(), (0, 0))], 0);
    let encoding = tokenizer.post_process(one, None, true)?;
    let special = encoding.get_special_tokens_mask().iter().take_while(|special| **special == 1);
    Ok(encoding.get_ids().iter().copied().take(special.count()).collect())
}

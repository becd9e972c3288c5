//! What to load and how.

use std::path::PathBuf;

use super::bad_rows::OnBadRow;
use super::batch::{FixedDims, TokenInputs};
use super::error::Error;
use super::example::Limits;
use super::input::{Lengths, TensorInput};
use super::padding::Padding;
use super::parse::TextSource;
use super::plan::{BatchSize, Order};
use crate::media::SettingsFile;

/// What to load and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// `tokenizer.json` or its folder; needed and read only when a row carries text.
    pub tokenizer: Option<PathBuf>,
    /// The chat template of rows that are conversations, by its name or its file; by default, the tokenizer's.
    pub chat_template: Option<String>,
    /// The settings of the model's processor, read only when a row names a picture or a sound.
    pub media: SettingsFile,
    /// Where the text of a row comes from.
    pub text: TextSource,
    /// Only tokens of the completion enter the statistics, as with labels of -100 on the prompt.
    pub completion_only: bool,
    /// Longest row in tokens, special tokens included; longer rows are cut on the right.
    pub max_length: usize,
    /// What a batch holds; a batch dimension that the model fixes wins over it.
    pub batch_size: BatchSize,
    /// Most batches to plan; rows beyond them are not tokenised, and not read unless shuffled.
    pub max_batches: Option<usize>,
    /// The order in which rows become batches.
    pub order: Order,
    /// Decides everything random; equal seeds give equal batches on every platform.
    pub seed: u64,
    /// What is done about rows at fault.
    pub on_bad_row: OnBadRow,
    /// Rows of the model's embedding; token ids beyond are an error. `None` checks nothing.
    pub vocab_size: Option<usize>,
    /// Dimensions that the model fixes.
    pub shape: FixedDims,
    /// To which length sequences are padded.
    pub padding: Padding,
    /// For a model with an encoder and a decoder: the token that the decoder starts with.
    pub decoder_start: Option<u32>,
    /// What gives rows their lengths.
    pub lengths: Lengths,
    /// The inputs beside the token ids that the model reads.
    pub reads: TokenInputs,
    /// Other inputs of the model, each a field of every row.
    pub tensors: Vec<TensorInput>,
    /// Inputs that are made of the tokens, unless a row holds them by name; the row needs no tokens then.
    pub embedded: Vec<TensorInput>,
}

impl Default for LoadOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            tokenizer: None,
            chat_template: None,
            media: SettingsFile::default(),
            text: TextSource::Auto,
            completion_only: false,
            max_length: 512,
            batch_size: BatchSize::Rows(4),
            max_batches: None,
            order: Order::Grouped,
            seed: 0,
            on_bad_row: OnBadRow::Fail,
            vocab_size: None,
            shape: FixedDims::default(),
            padding: Padding::default(),
            decoder_start: None,
            lengths: Lengths::default(),
            reads: TokenInputs { mask: true, types: true, positions: true },
            tensors: Vec::new(),
            embedded: Vec::new(),
        }
    }
}

impl LoadOptions {
    /// What a batch holds, by what the model fixes and by the options.
    pub(crate) fn held(&self) -> BatchSize {
        self.shape.batch.map_or(self.batch_size, BatchSize::Rows)
    }

    /// What cuts and masks the rows.
    ///
    /// # Errors
    /// When an option that counts something is zero, or rows cannot be padded as asked.
    pub(crate) fn limits(&self) -> Result<Limits, Error> {
        let (BatchSize::Rows(held) | BatchSize::Tokens(held)) = self.held();
        let most = self.max_length.min(self.shape.length.unwrap_or(usize::MAX));
        let counts = [
            ("batch_size", held),
            ("max_length", most),
            ("max_batches", self.max_batches.unwrap_or(1)),
            ("padding", self.padding.asked().unwrap_or(1)),
        ];
        if let Some((option, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(Error::Zero { option });
        }
        let max_length = self.padding.limit(most, self.shape.length)?;
        Ok(Limits { max_length, completion_only: self.completion_only, masks: self.reads.mask })
    }
}

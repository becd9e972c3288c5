//! From a source of rows to tokenised rows and planned batches.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::batch::{FixedDims, TokenInputs};
use super::calibration::{Calibration, RowCounts};
use super::content::{Content, Pair};
use super::error::Error;
use super::example::{self, Example, Limits, Named};
use super::pair;
use super::parse::{TextSource, parse};
use super::plan::{BatchSize, Order, plan};
use super::row::{Row, RowOrigin};
use super::source::{RowSource, Rows};
use super::template::Template;
use super::tensors::{self, TensorInput};
use super::tokenizer::Tokenizer;

/// Rows that are tokenised together, in parallel.
const CHUNK: usize = 1024;
/// Most unused fields that are remembered.
const MOST_UNUSED: usize = 64;

/// What to load and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// `tokenizer.json` or its folder; needed and read only when a row carries text.
    pub tokenizer: Option<PathBuf>,
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
    /// Rows of the model's embedding; token ids beyond are an error. `None` checks nothing.
    pub vocab_size: Option<usize>,
    /// Dimensions that the model fixes.
    pub shape: FixedDims,
    /// For a model with an encoder and a decoder: the token that the decoder starts with.
    pub decoder_start: Option<u32>,
    /// Whether rows hold text or tokens.
    pub tokens: bool,
    /// The inputs beside the token ids that the model reads.
    pub reads: TokenInputs,
    /// Other inputs of the model, each a field of every row.
    pub tensors: Vec<TensorInput>,
}

impl Default for LoadOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            tokenizer: None,
            text: TextSource::Auto,
            completion_only: false,
            max_length: 512,
            batch_size: BatchSize::Rows(4),
            max_batches: None,
            order: Order::Grouped,
            seed: 0,
            vocab_size: None,
            shape: FixedDims::default(),
            decoder_start: None,
            tokens: true,
            reads: TokenInputs { mask: true, types: true, positions: true },
            tensors: Vec::new(),
        }
    }
}

/// Reads and tokenises the rows that the plan needs, and plans the batches.
///
/// # Errors
/// Any [`Error`]: of the options, of the source, of the first row at fault, of the tokenizer.
pub fn load(source: &mut dyn RowSource, options: &LoadOptions) -> Result<Calibration, Error> {
    let (batch_size, limits) = checked(options)?;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let rows = match options.order {
        Order::Grouped | Order::Kept => source.rows()?,
        Order::Shuffled => source.permuted(&mut |rows| {
            let mut order: Vec<usize> = (0..rows).collect();
            order.shuffle(&mut rng);
            order
        })?,
    };
    let template = options.text.template()?;
    let mut reader = Reader { options, limits, template, tokenizer: None, unused: BTreeSet::new() };
    let (examples, counts) = reader.read(rows, wanted(batch_size, options.max_batches))?;
    if examples.is_empty() {
        let RowCounts { rows, empty, masked, .. } = counts;
        return Err(Error::NothingLeft { rows, empty, masked });
    }
    let lengths: Vec<_> = examples.iter().map(|example| example.ids.len()).collect();
    let mut batches = plan(&lengths, batch_size, options.order, &mut rng);
    batches.truncate(options.max_batches.unwrap_or(usize::MAX));
    if !options.tensors.is_empty() {
        check_shapes(&examples, &batches)?;
    }
    Ok(Calibration {
        batches,
        typed: examples.iter().any(|example| example.types.is_some()),
        pad_id: reader.tokenizer.map_or(0, |tokenizer| tokenizer.pad_id(options.vocab_size)),
        examples,
        counts,
        unused: reader.unused,
        shape: options.shape,
    })
}

/// How much to read: enough for all batches.
fn wanted(batch_size: BatchSize, max_batches: Option<usize>) -> BatchSize {
    let all = |of_a_batch: usize| max_batches.map_or(usize::MAX, |most| most.saturating_mul(of_a_batch));
    match batch_size {
        BatchSize::Rows(rows) => BatchSize::Rows(all(rows)),
        BatchSize::Tokens(tokens) => BatchSize::Tokens(all(tokens)),
    }
}

/// The tensors of a batch must be of one shape.
fn check_shapes(examples: &[Example], batches: &[Vec<usize>]) -> Result<(), Error> {
    for batch in batches {
        let rows: Vec<&Example> = batch.iter().map(|&row| &examples[row]).collect();
        tensors::stacked(&rows, rows.len()).ok_or_else(|| Error::Ragged { origin: rows[0].origin.clone() })?;
    }
    Ok(())
}

/// The batch size in force and what cuts and masks the rows.
fn checked(options: &LoadOptions) -> Result<(BatchSize, Limits), Error> {
    let batch_size = options.shape.batch.map_or(options.batch_size, BatchSize::Rows);
    let (BatchSize::Rows(held) | BatchSize::Tokens(held)) = batch_size;
    let length = options.shape.length.unwrap_or(usize::MAX);
    let max_length = options.max_length.min(length);
    let counts = [("batch_size", held), ("max_length", max_length), ("max_batches", options.max_batches.unwrap_or(1))];
    if let Some((option, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
        return Err(Error::Zero { option });
    }
    Ok((batch_size, Limits { max_length, completion_only: options.completion_only, masks: options.reads.mask }))
}

/// A row whose content is read, but not tokenised yet.
struct Parsed {
    origin: RowOrigin,
    content: Content,
    tensors: Vec<Named>,
}

impl Parsed {
    /// The texts to tokenise, in their order.
    fn texts(&self) -> Vec<(&RowOrigin, &str)> {
        let texts: Vec<&str> = match &self.content {
            Content::Ids(_) | Content::NoTokens | Content::Pair(Pair::Ids(..)) => Vec::new(),
            Content::Text(text) => vec![&text.text],
            Content::Pair(Pair::Texts(source, target)) => vec![source, target],
        };
        texts.into_iter().map(|text| (&self.origin, text)).collect()
    }
}

/// Rows to examples, with a tokenizer from the first text on.
struct Reader<'a> {
    options: &'a LoadOptions,
    limits: Limits,
    template: Option<Template>,
    tokenizer: Option<Tokenizer>,
    /// Fields that were of no use in some row.
    unused: BTreeSet<String>,
}

impl Reader<'_> {
    /// Reads rows until there are `wanted` examples with kept tokens, or examples with `wanted` tokens.
    fn read(&mut self, mut rows: Rows<'_>, wanted: BatchSize) -> Result<(Vec<Example>, RowCounts), Error> {
        let mut examples: Vec<Example> = Vec::new();
        let mut counts = RowCounts::default();
        let mut tokens = 0;
        loop {
            let size = match wanted {
                BatchSize::Rows(most) => CHUNK.min(most - examples.len()),
                BatchSize::Tokens(most) if tokens < most => CHUNK,
                BatchSize::Tokens(_) => 0,
            };
            let chunk = rows.by_ref().take(size).map(|row| self.parse(&row?));
            let chunk = chunk.collect::<Result<Vec<_>, Error>>()?;
            if chunk.is_empty() {
                return Ok((examples, counts));
            }
            counts.rows += chunk.len();
            for example in self.examples(chunk)? {
                if !example.attended.contains(&true) {
                    counts.empty += 1;
                } else if !example.keep.contains(&true) {
                    counts.masked += 1;
                } else {
                    counts.truncated += usize::from(example.truncated);
                    tokens += example.ids.len();
                    examples.push(example);
                }
            }
        }
    }

    fn parse(&mut self, row: &Row) -> Result<Parsed, Error> {
        let tensors = tensors::read(row, &self.options.tensors)?;
        let content = if self.options.tokens {
            parse(row, self.template.as_ref(), self.options.decoder_start)?
        } else {
            Content::NoTokens
        };
        self.note_unused(row);
        Ok(Parsed { origin: row.origin.clone(), content, tensors })
    }

    /// Notes fields of the row that change nothing. Where the user says what to read, the others are meant to be left.
    fn note_unused(&mut self, row: &Row) {
        if self.template.is_some() {
            return;
        }
        let TokenInputs { types, positions, .. } = self.options.reads;
        let read = [("token_type_ids", types), ("position_ids", positions)];
        let in_vain = read.into_iter().filter(|(name, used)| !used && row.fields.present(name).is_some());
        for name in in_vain.map(|(name, _)| name).chain(row.fields.unread()) {
            if self.unused.len() < MOST_UNUSED && !self.unused.contains(name) {
                self.unused.insert(name.to_owned());
            }
        }
    }

    /// The examples of some rows, in their order.
    fn examples(&mut self, rows: Vec<Parsed>) -> Result<Vec<Example>, Error> {
        let texts: Vec<_> = rows.iter().flat_map(Parsed::texts).collect();
        let encodings = match texts.first() {
            Some((origin, _)) => self.tokenizer(origin)?.encode(&texts)?,
            None => Vec::new(),
        };
        let mut encodings = encodings.into_iter();
        let limits = self.limits;
        let mut examples = Vec::with_capacity(rows.len());
        for Parsed { origin, content, tensors } in rows {
            let own_ids = matches!(content, Content::Ids(_));
            let example = match content {
                Content::Ids(ids) => Some(example::from_ids(ids, limits, origin)?),
                Content::Text(text) => {
                    let encoding = encodings.next();
                    let example = |e| example::from_encoding(&e, text.completion, limits, origin);
                    encoding.map(example).transpose()?
                }
                Content::NoTokens => Some(tensors::example(origin)),
                Content::Pair(pair) => {
                    let start = self.options.decoder_start.unwrap_or(0);
                    pair::example(pair, &mut encodings, start, limits, &origin)?
                }
            };
            // There is an encoding for each text.
            let Some(example) = example else { break };
            if self.options.tokens {
                self.check_vocabulary(&example, self.tokenizer.as_ref().filter(|_| !own_ids))?;
            }
            examples.push(Example { tensors, ..example });
        }
        Ok(examples)
    }

    /// The tokenizer, read when the first text, at `origin`, needs it.
    fn tokenizer(&mut self, origin: &RowOrigin) -> Result<&Tokenizer, Error> {
        if let Some(ref tokenizer) = self.tokenizer {
            return Ok(tokenizer);
        }
        let Some(path) = &self.options.tokenizer else {
            return Err(Error::NoTokenizer { origin: origin.clone() });
        };
        Ok(self.tokenizer.insert(Tokenizer::open(path, self.limits.max_length)?))
    }

    fn check_vocabulary(&self, example: &Example, tokenizer: Option<&Tokenizer>) -> Result<(), Error> {
        let all = example.ids.iter().chain(example.source.iter().flat_map(|(ids, _)| ids));
        let (Some(vocab_size), Some(&id)) = (self.options.vocab_size, all.max()) else {
            return Ok(());
        };
        if (id as usize) < vocab_size {
            return Ok(());
        }
        let tokenizer = tokenizer.map(|tokenizer| tokenizer.path().to_owned());
        Err(Error::Vocabulary { origin: example.origin.clone(), id, vocab_size, tokenizer })
    }
}

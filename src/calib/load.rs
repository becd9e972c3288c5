//! From files to a planned, tokenised data set.

use std::path::PathBuf;

use super::batch::{Batch, FixedDims, pad};
use super::error::{Error, Origin};
use super::example::{Example, Limits, from_encoding, from_ids};
use super::jsonl::{Line, in_order, shuffled};
use super::pair::{self, Pair};
use super::parse::{Ids, Row, Text, TextSource, parse};
use super::plan::{BatchSize, Order, SplitMix64, plan};
use super::tensors::{self, TensorInput};
use super::tokenizer::Tokenizer;

/// Rows that are tokenised together, in parallel.
const CHUNK: usize = 1024;

/// What to load and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// `.jsonl` files, read one after the other.
    pub files: Vec<PathBuf>,
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
    /// Other inputs of the model, each a field of every row.
    pub tensors: Vec<TensorInput>,
}

impl Default for LoadOptions {
    /// The defaults of the command line, without files.
    fn default() -> Self {
        Self {
            files: Vec::new(),
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
            tensors: Vec::new(),
        }
    }
}

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows read, the dropped ones included.
    pub rows: usize,
    /// Rows dropped because they have no token.
    pub empty: usize,
    /// Rows dropped because no token of theirs enters the statistics.
    pub masked: usize,
    /// Rows in the plan that were cut to the maximal length.
    pub truncated: usize,
}

/// Tokenised calibration rows and the batches planned from them.
///
/// Every batch has at least one row, and every row at least one kept token.
#[derive(Clone, Debug)]
pub struct Calibration {
    examples: Vec<Example>,
    batches: Vec<Vec<usize>>,
    counts: Counts,
    shape: FixedDims,
    pad_id: u32,
    typed: bool,
}

/// Reads and tokenises the rows that the plan needs, and plans the batches.
///
/// Reads the files named in `options` and nothing else.
pub fn load(options: &LoadOptions) -> Result<Calibration, Error> {
    let (batch_size, limits) = checked(options)?;
    let all = |of_a_batch: usize| options.max_batches.map_or(usize::MAX, |most| most.saturating_mul(of_a_batch));
    let wanted = match batch_size {
        BatchSize::Rows(rows) => BatchSize::Rows(all(rows)),
        BatchSize::Tokens(tokens) => BatchSize::Tokens(all(tokens)),
    };
    let mut rng = SplitMix64::new(options.seed);
    let lines: Box<dyn Iterator<Item = Result<Line, Error>>> = match options.order {
        Order::Shuffled => Box::new(shuffled(&options.files, &mut rng)?),
        Order::Grouped | Order::Kept => Box::new(in_order(&options.files)),
    };
    let mut reader = Reader { options, limits, tokenizer: None };
    let (examples, counts) = reader.read(lines, wanted)?;
    if examples.is_empty() {
        let Counts { rows, empty, masked, .. } = counts;
        return Err(Error::NothingLeft { rows, empty, masked });
    }
    let lengths: Vec<_> = examples.iter().map(|example| example.ids.len()).collect();
    let mut batches = plan(&lengths, batch_size, options.order, &mut rng);
    batches.truncate(options.max_batches.unwrap_or(usize::MAX));
    for batch in batches.iter().filter(|_| !options.tensors.is_empty()) {
        let rows: Vec<&Example> = batch.iter().map(|&row| &examples[row]).collect();
        tensors::stacked(&rows, rows.len()).ok_or_else(|| Error::Ragged { origin: rows[0].origin.clone() })?;
    }
    Ok(Calibration {
        batches,
        typed: examples.iter().any(|example| example.types.is_some()),
        pad_id: reader.tokenizer.map_or(0, |tokenizer| tokenizer.pad_id(options.vocab_size)),
        examples,
        counts,
        shape: options.shape,
    })
}

impl Calibration {
    /// Number of batches, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Pads batch `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Calibration::len`].
    pub fn batch(&self, index: usize) -> Batch {
        let examples: Vec<_> = self.batches[index].iter().map(|&row| &self.examples[row]).collect();
        pad(&examples, self.shape, self.pad_id, self.typed)
    }

    /// All batches in order, each padded when it is reached.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Batch> + '_ {
        (0..self.len()).map(|index| self.batch(index))
    }

    /// Tokens of the largest batch, padding included.
    pub fn largest(&self) -> usize {
        let longest = |rows: &Vec<usize>| rows.iter().map(|&row| self.examples[row].ids.len()).max().unwrap_or(0);
        self.batches.iter().map(|rows| rows.len() * longest(rows)).max().unwrap_or(0).max(1)
    }

    /// Where the rows of batch `index` come from, sequence by sequence, for messages.
    ///
    /// # Panics
    /// When `index` is not below [`Calibration::len`].
    pub fn origins(&self, index: usize) -> impl Iterator<Item = &Origin> + '_ {
        self.batches[index].iter().map(|&row| &self.examples[row].origin)
    }

    /// What became of the rows read.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Tokens of all batches that are no padding.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(|example| count(&example.attended)).sum()
    }

    /// Tokens of all batches that enter the statistics.
    pub fn kept(&self) -> usize {
        self.examples.iter().map(|example| count(&example.keep)).sum()
    }
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
    if options.files.is_empty() {
        return Err(Error::NoFiles);
    }
    Ok((batch_size, Limits { max_length, completion_only: options.completion_only }))
}

/// Lines to examples, with a tokenizer from the first text on.
struct Reader<'a> {
    options: &'a LoadOptions,
    limits: Limits,
    tokenizer: Option<Tokenizer>,
}

impl Reader<'_> {
    /// Reads lines until so many examples with kept tokens are found, or examples with so many tokens.
    fn read(
        &mut self,
        mut lines: impl Iterator<Item = Result<Line, Error>>,
        wanted: BatchSize,
    ) -> Result<(Vec<Example>, Counts), Error> {
        let template = self.options.text.template()?;
        let mut examples = Vec::new();
        let mut counts = Counts::default();
        let mut tokens = 0;
        loop {
            let size = match wanted {
                BatchSize::Rows(rows) => CHUNK.min(rows - examples.len()),
                BatchSize::Tokens(most) => {
                    if tokens < most {
                        CHUNK
                    } else {
                        0
                    }
                }
            };
            let rows = lines.by_ref().take(size).map(|line| {
                let line = line?;
                let tensors = tensors::read(&line, &self.options.tensors)?;
                let row = match self.options.tokens {
                    true => parse(&line, template.as_ref(), self.options.decoder_start)?,
                    false => Row::NoTokens,
                };
                Ok((row, tensors, line.origin))
            });
            let rows = rows.collect::<Result<Vec<_>, Error>>()?;
            if rows.is_empty() {
                break;
            }
            counts.rows += rows.len();
            for example in self.examples(rows)? {
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
        Ok((examples, counts))
    }

    /// The examples of some rows, in their order.
    fn examples(&mut self, rows: Vec<(Row, Vec<tensors::Named>, Origin)>) -> Result<Vec<Example>, Error> {
        let texts: Vec<_> = rows.iter().flat_map(|(row, _, origin)| texts(row, origin)).collect();
        let mut encodings = match texts.first() {
            Some((origin, _)) => self.tokenizer(origin)?.encode(&texts)?,
            None => Vec::new(),
        }
        .into_iter();
        let limits = self.limits;
        let mut examples = Vec::with_capacity(rows.len());
        for (row, tensors, origin) in rows {
            let example = match row {
                Row::Ids(ids) => self.ids_example(ids, origin)?,
                Row::Text(Text { completion, .. }) => {
                    let Some(encoding) = encodings.next() else {
                        break;
                    };
                    let example = from_encoding(&encoding, completion, limits, origin)?;
                    self.check_vocabulary(&example, self.tokenizer.as_ref())?;
                    example
                }
                Row::NoTokens => tensors::example(origin),
                Row::Pair(pair) => {
                    let start = self.options.decoder_start.unwrap_or(0);
                    let Some(example) = pair::example(pair, &mut encodings, start, limits, &origin)? else {
                        break;
                    };
                    self.check_vocabulary(&example, self.tokenizer.as_ref())?;
                    example
                }
            };
            examples.push(Example { tensors, ..example });
        }
        Ok(examples)
    }

    fn ids_example(&self, ids: Ids, origin: Origin) -> Result<Example, Error> {
        let example = from_ids(ids, self.limits, origin)?;
        self.check_vocabulary(&example, None)?;
        Ok(example)
    }

    /// The tokenizer, read when the first text, at `origin`, needs it.
    fn tokenizer(&mut self, origin: &Origin) -> Result<&Tokenizer, Error> {
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

/// The texts of a row, in the order in which they are tokenised.
fn texts<'a>(row: &'a Row, origin: &'a Origin) -> Vec<(&'a Origin, &'a str)> {
    match row {
        Row::Ids(_) | Row::NoTokens | Row::Pair(Pair::Ids(..)) => Vec::new(),
        Row::Text(text) => vec![(origin, &text.text)],
        Row::Pair(Pair::Texts(source, target)) => vec![(origin, source), (origin, target)],
    }
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

//! Batches are planned window by window, so that memory and the time to the first batch do not depend on the number of
//! rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::bad_rows::BadRows;
use super::batch::Shape;
use super::calibration::{Calibration, RowCounts};
use super::error::Error;
use super::example::Example;
use super::options::LoadOptions;
use super::plan::{BatchSize, Order, plan};
use super::reader::Reader;
use super::source::{RowSource, Rows};
use super::tensors::NamedTensor;

/// Batches of a window: as many as share their rows sorted by length, see [`Order::Grouped`].
const WINDOW: usize = 64;
/// Bytes of tensors that end a window early, at a whole batch: those of pictures and sounds would fill the memory.
const FULL: usize = 64 << 20;
/// Most rows that are tokenised together, in parallel.
const CHUNK: usize = 64;

/// Reads and tokenises all rows that the plan needs, and plans all batches.
///
/// # Errors
/// Any [`Error`]: of the options, of the source, of the first row at fault, of the tokenizer.
pub fn load(source: &mut dyn RowSource, options: &LoadOptions) -> Result<Calibration, Error> {
    let mut windows = Windows::open(source, options)?;
    let mut all = windows.next_window()?;
    while !all.last {
        all.append(windows.next_window()?);
    }
    Ok(all)
}

/// The windows of a source of rows.
pub(crate) struct Windows<'a> {
    options: &'a LoadOptions,
    reader: Reader<'a>,
    rows: Rows<'a>,
    rng: ChaCha8Rng,
    counts: RowCounts,
    bad: BadRows,
    /// Rows that are read and in no batch yet.
    unplanned: VecDeque<Example>,
    /// Batches planned.
    planned: usize,
}

impl<'a> Windows<'a> {
    /// # Errors
    /// When an option cannot be, or the source cannot be read.
    pub(crate) fn open(source: &'a mut dyn RowSource, options: &'a LoadOptions) -> Result<Self, Error> {
        let reader = Reader::new(options)?;
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let rows = match options.order {
            Order::Grouped | Order::Kept => source.rows()?,
            Order::Shuffled => source.permuted(&mut |rows| {
                let mut order: Vec<usize> = (0..rows).collect();
                order.shuffle(&mut rng);
                order
            })?,
        };
        let (counts, bad) = (RowCounts::default(), BadRows::default());
        Ok(Self { options, reader, rows, rng, counts, bad, unplanned: VecDeque::new(), planned: 0 })
    }

    /// The batches of the next window, which are one at least. None follow those that are the last.
    ///
    /// # Errors
    /// Of the first row at fault, of the tokenizer, and when no row is left.
    pub(crate) fn next_window(&mut self) -> Result<Calibration, Error> {
        let LoadOptions { order, max_batches, padding, shape: fixed, .. } = *self.options;
        let size = self.options.held();
        let left = max_batches.map_or(usize::MAX, |most| most - self.planned);
        let mut examples = self.take(size.times(left.min(WINDOW)))?;
        if examples.is_empty() {
            let RowCounts { rows, empty, masked, .. } = self.counts;
            return Err(Error::NothingLeft { rows, empty, masked, bad: self.bad.count });
        }
        let lengths: Vec<_> = examples.iter().map(|example| padding.of_tokens(example)).collect();
        let kinds = kinds(&examples);
        let mut batches = plan(&lengths, &kinds, size, order, &mut self.rng);
        let last = batches.len() >= left || !self.has_more()?;
        batches.truncate(left);
        // The rows of the next window may fit into the last batch.
        if order == Order::Kept && !last && batches.len() > 1 {
            let open = batches.pop().map_or(0, |batch| batch.len());
            let open = examples.split_off(examples.len() - open);
            open.into_iter().rev().for_each(|example| self.unplanned.push_front(example));
        }
        self.planned += batches.len();
        let shape = Shape {
            fixed,
            padding,
            pad_id: self.reader.pad_id(),
            typed: examples.iter().any(|example| example.types.is_some()),
            stripped: examples.iter().any(Example::is_stripped),
            varied: kinds.iter().any(|kind| *kind > 0),
        };
        Ok(Calibration {
            batches,
            examples,
            counts: self.counts,
            bad: self.bad.clone(),
            unused: self.reader.unused().clone(),
            shape,
            last,
            spilled: None,
        })
    }

    /// The next rows, as many as have `wanted` rows or tokens together.
    fn take(&mut self, wanted: BatchSize) -> Result<Vec<Example>, Error> {
        let (mut taken, mut held) = (Vec::new(), 0);
        let (BatchSize::Rows(most) | BatchSize::Tokens(most)) = wanted;
        let batch = if let BatchSize::Rows(rows) = self.options.held() { rows } else { 1 };
        let mut bytes = 0;
        while held < most && (bytes < FULL || taken.len() % batch != 0) {
            if self.unplanned.is_empty() {
                let rows = if matches!(wanted, BatchSize::Rows(_)) { most - held } else { usize::MAX };
                self.read(rows)?;
            }
            let Some(example) = self.unplanned.pop_front() else { break };
            held += if matches!(wanted, BatchSize::Rows(_)) { 1 } else { example.ids.len() };
            bytes += example.tensors.iter().map(|named| named.tensor.bytes()).sum::<usize>();
            taken.push(example);
        }
        Ok(taken)
    }

    /// Whether there are more rows with kept tokens.
    fn has_more(&mut self) -> Result<bool, Error> {
        if self.unplanned.is_empty() {
            self.read(1)?;
        }
        Ok(!self.unplanned.is_empty())
    }

    /// Reads at most `most` of the next rows, and more as long as none of them has kept tokens.
    fn read(&mut self, most: usize) -> Result<(), Error> {
        while self.unplanned.is_empty() {
            let (before, on) = (self.counts.rows, self.options.on_bad_row);
            let mut chunk = Vec::new();
            for row in self.rows.by_ref().take(most.min(CHUNK)) {
                self.counts.rows += 1;
                match row {
                    Ok(row) => chunk.push(row),
                    Err(error) => self.bad.pass_over(error, on)?,
                }
            }
            if self.counts.rows == before {
                break;
            }
            for example in self.reader.examples(chunk)? {
                match example {
                    Ok(example) if self.counts.count(&example) => self.unplanned.push_back(example),
                    Ok(_) => {}
                    Err(error) => self.bad.pass_over(error, on)?,
                }
            }
        }
        Ok(())
    }
}

/// For each example, the number of the shapes of its tensors, but for the axes of tokens: those of a batch agree.
fn kinds(examples: &[Example]) -> Vec<usize> {
    let shape = |named: &NamedTensor| {
        let sizes = named.tensor.shape().iter().enumerate();
        sizes.map(|(axis, size)| (!named.token_axes.contains(&axis)).then_some(*size)).collect::<Vec<_>>()
    };
    let shapes = |example: &Example| example.tensors.iter().map(shape).collect::<Vec<_>>();
    let all: BTreeSet<_> = examples.iter().map(shapes).collect();
    let numbers: BTreeMap<_, _> = all.into_iter().zip(0..).collect();
    examples.iter().map(|example| numbers[&shapes(example)]).collect()
}

//! Tokenised rows and the batches planned from them: a window of them, or all.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::bad_rows::BadRows;
use super::batch::{Batch, Shape, pad};
use super::example::Example;
use super::padding::Padding;
use super::row::RowOrigin;
use super::spilled::Spilled;
use super::tensors::NamedTensor;

/// How many rows were read, dropped and cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowCounts {
    /// Rows read, the dropped ones included.
    pub rows: usize,
    /// Rows dropped because they have no token.
    pub empty: usize,
    /// Rows dropped because none of their tokens enters the statistics.
    pub masked: usize,
    /// Rows in the plan that were cut to the maximal length.
    pub truncated: usize,
}

impl RowCounts {
    /// Adds the rows of another part of the data.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.empty += other.empty;
        self.masked += other.masked;
        self.truncated += other.truncated;
    }

    /// Counts what becomes of a row that was read; whether it has kept tokens.
    pub(super) fn count(&mut self, example: &Example) -> bool {
        if !example.attended.contains(&true) {
            self.empty += 1;
        } else if !example.keep.contains(&true) {
            self.masked += 1;
        } else {
            self.truncated += usize::from(example.truncated);
            return true;
        }
        false
    }
}

/// Tokenised calibration rows and the batches planned from them.
///
/// Every batch has at least one row, and every row at least one kept token.
#[derive(Clone, Debug)]
pub struct Calibration {
    pub(super) examples: Vec<Example>,
    pub(super) batches: Vec<Vec<usize>>,
    pub(super) counts: RowCounts,
    pub(super) bad: BadRows,
    pub(super) unused: BTreeSet<String>,
    pub(super) shape: Shape,
    /// Whether no batches follow these.
    pub(super) last: bool,
    /// Where the tensors of the rows are, if they are in a file.
    pub(super) spilled: Option<Spilled>,
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
        pad(&examples, self.shape)
    }

    /// All batches in order, each padded when it is reached.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Batch> + '_ {
        (0..self.len()).map(|index| self.batch(index))
    }

    /// Keeps the padding that rows came with, if some came with any: some models take only some lengths. Returns whether
    /// that changes anything.
    pub(crate) fn pad_as_given(&mut self) -> bool {
        let changes = self.shape.padding == Padding::Longest && self.shape.stripped;
        if changes {
            self.shape.padding = Padding::Given;
        }
        changes
    }

    /// Tokens of each batch, padding included, at least 1.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let length = |row: &usize| self.shape.padding.of_tokens(&self.examples[*row]);
        let size = |rows: &Vec<usize>| (rows.len() * rows.iter().map(length).max().unwrap_or(0)).max(1);
        self.batches.iter().map(size).collect()
    }

    /// Tokens of the largest batch, padding included.
    pub fn largest(&self) -> usize {
        self.largest_dim().iter().product::<usize>().max(1)
    }

    /// Sequences of the largest batch, and tokens of each, padding included.
    pub fn largest_dim(&self) -> [usize; 2] {
        let length = |row: &usize| self.shape.padding.of_tokens(&self.examples[*row]);
        let dim = |rows: &Vec<usize>| [rows.len(), rows.iter().map(length).max().unwrap_or(0)];
        self.batches.iter().map(dim).max_by_key(|[sequences, tokens]| sequences * tokens).unwrap_or_default()
    }

    /// Where the rows of batch `index` come from, sequence by sequence, for messages.
    ///
    /// # Panics
    /// When `index` is not below [`Calibration::len`].
    pub fn origins(&self, index: usize) -> impl Iterator<Item = &RowOrigin> + '_ {
        self.batches[index].iter().map(|&row| &self.examples[row].origin)
    }

    /// How many rows were read, dropped and cut, until these batches were planned.
    pub fn counts(&self) -> RowCounts {
        self.counts
    }

    /// Rows that were passed over until then.
    pub fn bad(&self) -> &BadRows {
        &self.bad
    }

    /// Fields that some row has and that change nothing, unless the user said which to read.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.unused.iter().map(String::as_str)
    }

    /// Moves the tensors of the rows, if these have any, to a file, from where [`loaded`](Self::loaded) reads them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn spill(&mut self, path: PathBuf) -> io::Result<()> {
        if self.examples.iter().any(|example| !example.tensors.is_empty()) {
            self.spilled = Some(Spilled::write(path, self.tensors())?);
        }
        Ok(())
    }

    /// The same with the tensors of its rows in memory.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn loaded(&self) -> io::Result<Cow<'_, Self>> {
        let Some(spilled) = &self.spilled else { return Ok(Cow::Borrowed(self)) };
        let mut loaded = Self { spilled: None, ..self.clone() };
        spilled.read(loaded.tensors())?;
        Ok(Cow::Owned(loaded))
    }

    fn tensors(&mut self) -> impl Iterator<Item = &mut NamedTensor> {
        self.examples.iter_mut().flat_map(|example| &mut example.tensors)
    }

    /// Adds the batches that follow.
    pub(super) fn append(&mut self, next: Calibration) {
        let before = self.examples.len();
        let shifted = |batch: Vec<usize>| batch.into_iter().map(|row| row + before).collect();
        self.batches.extend(next.batches.into_iter().map(shifted));
        self.examples.extend(next.examples);
        let Shape { typed, stripped, varied, .. } = self.shape;
        self.shape = Shape {
            typed: typed || next.shape.typed,
            stripped: stripped || next.shape.stripped,
            varied: varied || next.shape.varied,
            ..next.shape
        };
        (self.counts, self.last) = (next.counts, next.last);
        (self.unused, self.bad) = (next.unused, next.bad);
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

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

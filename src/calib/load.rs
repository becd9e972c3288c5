//! From a source of rows to tokenised rows and planned batches.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::calibration::{Calibration, RowCounts};
use super::error::Error;
use super::example::{Example, Limits};
use super::options::LoadOptions;
use super::plan::{BatchSize, Order, plan};
use super::reader::Reader;
use super::source::{RowSource, Rows};
use super::stack;

/// Rows that are read and tokenised together.
const CHUNK: usize = 1024;

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
    let mut reader = Reader::new(options, limits)?;
    let (examples, counts) = read(&mut reader, rows, wanted(batch_size, options.max_batches))?;
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
        pad_id: reader.pad_id(),
        examples,
        counts,
        unused: reader.unused(),
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

/// The tensors of a batch must agree along the axes that are not padded.
fn check_shapes(examples: &[Example], batches: &[Vec<usize>]) -> Result<(), Error> {
    for batch in batches {
        let rows: Vec<&Example> = batch.iter().map(|&row| &examples[row]).collect();
        let length = rows.iter().map(|example| example.ids.len()).max().unwrap_or(0);
        stack::sizes(&rows, length)?;
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

/// Reads rows until there are `wanted` examples with kept tokens, or examples with `wanted` tokens.
fn read(reader: &mut Reader<'_>, mut rows: Rows<'_>, wanted: BatchSize) -> Result<(Vec<Example>, RowCounts), Error> {
    let mut examples: Vec<Example> = Vec::new();
    let mut counts = RowCounts::default();
    let mut tokens = 0;
    loop {
        let size = match wanted {
            BatchSize::Rows(most) => CHUNK.min(most - examples.len()),
            BatchSize::Tokens(most) if tokens < most => CHUNK,
            BatchSize::Tokens(_) => 0,
        };
        let chunk = rows.by_ref().take(size).collect::<Result<Vec<_>, Error>>()?;
        if chunk.is_empty() {
            return Ok((examples, counts));
        }
        counts.rows += chunk.len();
        for example in reader.examples(chunk)? {
            let example = example?;
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

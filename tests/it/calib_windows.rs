//! Batches that are planned window by window, while rows are read.

use eva_onnx::calib::{
    Arrival, Arrivals, Batch, BatchSize, Error, Fields, IterSource, LoadOptions, Order, RowSource, load,
};
use proptest::prelude::*;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Batches of a window.
const WINDOW: usize = 64;

fn row(ids: &[usize]) -> Fields {
    [("input_ids", serde_json::json!(ids))].into()
}

/// Rows of these lengths, whose ids tell the row.
fn rows(lengths: &[usize]) -> impl Iterator<Item = Fields> + Send + use<> {
    let lengths = lengths.to_vec();
    (0..lengths.len()).map(move |row| self::row(&vec![row; lengths[row]]))
}

fn options(size: BatchSize, order: Order) -> LoadOptions {
    LoadOptions { batch_size: size, order, ..LoadOptions::default() }
}

fn start(rows: impl Iterator<Item = Fields> + Send + 'static, options: &LoadOptions) -> Result<Arrivals, Error> {
    let source: Box<dyn RowSource + Send> = Box::new(IterSource::new("memory", rows));
    Ok(Arrivals::start(source, options.clone(), &mut || true)?.unwrap())
}

/// The next batch, when it is there.
fn next(arrivals: &mut Arrivals) -> Option<Result<Batch, Error>> {
    arrivals.find_map(|arrival| match arrival {
        Ok(Arrival::Batch(batch)) => Some(Ok(*batch)),
        Ok(Arrival::Waiting) => None,
        Err(error) => Some(Err(error)),
    })
}

/// The rows of a batch.
fn numbers(batch: &Batch) -> Vec<i64> {
    let ids = batch.tokens.input("input_ids").unwrap().to_integers().unwrap();
    ids.chunks(batch.dim().1).map(|ids| ids[0]).collect()
}

#[test]
fn rows_are_read_no_further_than_two_windows_ahead() {
    let read = Arc::new(AtomicUsize::new(0));
    let counter = read.clone();
    let endless = iter::repeat_with(move || row(&[counter.fetch_add(1, Ordering::SeqCst) + 1]));
    let mut arrivals = start(endless, &options(BatchSize::Rows(2), Order::Grouped)).unwrap();
    assert_eq!(arrivals.planned(), None);
    for _ in 0..WINDOW {
        assert_eq!(next(&mut arrivals).unwrap().unwrap().dim().0, 2);
    }
    // A window is planned when one row more is read.
    assert!(read.load(Ordering::SeqCst) <= 2 * (2 * WINDOW + 1), "{read:?}");
    assert!(next(&mut arrivals).unwrap().is_ok());
}

#[test]
fn the_number_of_batches_is_known_with_the_last_window() {
    let mut arrivals = start(rows(&[1; 3 * WINDOW]), &options(BatchSize::Rows(2), Order::Grouped)).unwrap();
    let mut known = Vec::new();
    while next(&mut arrivals).is_some() {
        known.push(arrivals.planned());
    }
    let expected = iter::repeat_n(None, WINDOW).chain(iter::repeat_n(Some(WINDOW + WINDOW / 2), WINDOW / 2));
    assert_eq!(known, expected.collect::<Vec<_>>());
    assert_eq!(arrivals.counts().rows, 3 * WINDOW);
}

#[test]
fn rows_at_fault_end_the_batches_after_those_before() {
    let wrong = iter::once(Fields::from([("text", 7.to_string().as_str())]));
    let mut arrivals = start(rows(&[1; 200]).chain(wrong), &options(BatchSize::Rows(1), Order::Kept)).unwrap();
    let batches = iter::from_fn(|| next(&mut arrivals)).collect::<Vec<_>>();
    let (last, before) = batches.split_last().unwrap();
    assert!(before.len() > WINDOW && before.iter().all(Result::is_ok), "{}", before.len());
    assert!(last.as_ref().unwrap_err().to_string().starts_with("`memory` row 201: "), "{last:?}");
}

#[test]
fn nobody_waits_for_rows_that_never_come() {
    let never = iter::from_fn(|| -> Option<Fields> {
        loop {
            std::thread::park();
        }
    });
    let source: Box<dyn RowSource + Send> = Box::new(IterSource::new("memory", never));
    let mut asked = 0;
    let mut go_on = || {
        asked += 1;
        asked < 2
    };
    assert!(Arrivals::start(source, LoadOptions::default(), &mut go_on).unwrap().is_none());
    assert_eq!(asked, 2);
}

#[test]
#[should_panic(expected = "out of rows")]
fn a_panic_of_the_source_continues_where_batches_are_taken() {
    let source = rows(&[1; 300]).chain(iter::once_with(|| panic!("out of rows")));
    let mut arrivals = start(source, &options(BatchSize::Rows(1), Order::Kept)).unwrap();
    while next(&mut arrivals).is_some() {}
}

/// Batches of at most so many tokens in the order of the rows, cut in one go.
fn cut(lengths: &[usize], tokens: usize) -> Vec<Vec<i64>> {
    let mut batches: Vec<Vec<i64>> = Vec::new();
    for (row, length) in lengths.iter().enumerate() {
        let longest = |batch: &[i64]| batch.iter().map(|&row| lengths[row as usize]).max().unwrap().max(*length);
        match batches.last_mut().filter(|batch| (batch.len() + 1) * longest(batch) <= tokens) {
            Some(batch) => batch.push(row as i64),
            None => batches.push(vec![row as i64]),
        }
    }
    batches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn windows_do_not_show_in_batches_in_file_order(
        lengths in prop::collection::vec(1usize..9, 1..700),
        tokens in 1usize..20,
    ) {
        let all = load(&mut IterSource::new("memory", rows(&lengths)), &options(BatchSize::Tokens(tokens), Order::Kept));
        let found: Vec<_> = all.unwrap().batches().map(|batch| numbers(&batch)).collect();
        prop_assert_eq!(found, cut(&lengths, tokens));
    }

    #[test]
    fn batches_that_arrive_are_those_that_are_loaded(
        lengths in prop::collection::vec(1usize..9, 1..300),
        size in prop::sample::select(vec![BatchSize::Rows(1), BatchSize::Rows(3), BatchSize::Tokens(7)]),
        order in prop::sample::select(vec![Order::Grouped, Order::Shuffled, Order::Kept]),
        max_batches in prop::sample::select(vec![None, Some(1), Some(70)]),
    ) {
        let options = LoadOptions { max_batches, ..options(size, order) };
        let all = load(&mut IterSource::new("memory", rows(&lengths)), &options).unwrap();
        let mut arrivals = start(rows(&lengths), &options).unwrap();
        let arrived: Vec<Batch> = iter::from_fn(|| next(&mut arrivals)).map(Result::unwrap).collect();
        prop_assert_eq!(arrived.len(), all.len());
        prop_assert!(max_batches.is_none_or(|most| all.len() <= most));
        prop_assert!(arrived.into_iter().eq(all.batches()));
        prop_assert_eq!(arrivals.counts(), all.counts());
    }

    #[test]
    fn rows_of_a_batch_are_of_one_window(lengths in prop::collection::vec(1usize..9, 1..300)) {
        let all = load(&mut IterSource::new("memory", rows(&lengths)), &options(BatchSize::Rows(2), Order::Grouped));
        for (index, batch) in all.unwrap().batches().enumerate() {
            let numbers = numbers(&batch);
            prop_assert!(numbers.iter().all(|row| *row as usize / (2 * WINDOW) == index / WINDOW), "{index} {numbers:?}");
        }
    }
}

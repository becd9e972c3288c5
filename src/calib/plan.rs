//! Which rows form which batch; equal seeds give equal batches.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The order in which rows become batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Rows in file order, but within windows of 64 batches rows of similar length share a batch, and
    /// the batches of a window come in random order so that lengths do not drift.
    #[default]
    Grouped,
    /// As [`Order::Grouped`] after all rows of all files were shuffled.
    Shuffled,
    /// Rows and batches exactly in file order.
    Kept,
}

/// How much a batch holds; one row always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSize {
    /// A number of rows.
    Rows(usize),
    /// A number of tokens, padding included.
    Tokens(usize),
}

impl BatchSize {
    /// As much as `batches` batches hold.
    pub(crate) fn times(self, batches: usize) -> Self {
        match self {
            Self::Rows(rows) => Self::Rows(rows.saturating_mul(batches)),
            Self::Tokens(tokens) => Self::Tokens(tokens.saturating_mul(batches)),
        }
    }

    /// Splits rows into batches in their order.
    fn cut(self, rows: &[usize], lengths: &[usize], kinds: &[usize]) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut longest = 0;
        for &row in rows {
            longest = lengths[row].max(longest);
            let fits = |batch: &Vec<usize>| kinds[batch[0]] == kinds[row] && self.holds(batch.len() + 1, longest);
            match batches.last_mut().filter(|batch| fits(batch)) {
                Some(batch) => batch.push(row),
                None => {
                    longest = lengths[row];
                    batches.push(vec![row]);
                }
            }
        }
        batches
    }

    fn holds(self, rows: usize, longest: usize) -> bool {
        match self {
            Self::Rows(most) => rows <= most,
            Self::Tokens(most) => rows.saturating_mul(longest) <= most,
        }
    }
}

/// Cuts the rows of a window, of the given lengths and kinds, into batches of row indices.
///
/// Every row is in exactly one batch, the rows of a batch are of one kind, and at most one batch of a kind holds fewer
/// rows than fit, unless rows are [kept in order](Order::Kept). Depends on nothing but the arguments and the state of
/// `rng`.
pub(crate) fn plan(
    lengths: &[usize],
    kinds: &[usize],
    size: BatchSize,
    order: Order,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut rows: Vec<usize> = (0..lengths.len()).collect();
    if order == Order::Kept {
        return size.cut(&rows, lengths, kinds);
    }
    rows.sort_by_key(|&row| (kinds[row], lengths[row]));
    let mut batches = size.cut(&rows, lengths, kinds);
    batches.shuffle(rng);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    /// The plan for rows of one kind.
    fn plan(lengths: &[usize], size: BatchSize, order: Order, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        super::plan(lengths, &vec![0; lengths.len()], size, order, rng)
    }

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// Equal seeds must give equal batches on every platform and with later versions of `rand`.
    #[test]
    fn shuffle_is_pinned() {
        let mut items: Vec<_> = (0..8).collect();
        items.shuffle(&mut rng(0));
        assert_eq!(items, [2, 0, 6, 1, 3, 5, 7, 4]);
    }

    #[track_caller]
    fn check(lengths: &[usize], rows: usize, order: Order, expected: &[&[usize]]) {
        assert_eq!(plan(lengths, BatchSize::Rows(rows), order, &mut rng(0)), expected);
    }

    #[test]
    fn tokens_fill_batches_with_their_padding() {
        let plan = |tokens| plan(&[3, 5, 2, 9, 1], BatchSize::Tokens(tokens), Order::Kept, &mut rng(0));
        assert_eq!(plan(10), [vec![0, 1], vec![2], vec![3], vec![4]]);
        assert_eq!(plan(15), [vec![0, 1, 2], vec![3], vec![4]]);
        assert_eq!(plan(1).len(), 5);
        assert_eq!(plan(usize::MAX), [vec![0, 1, 2, 3, 4]]);
    }

    #[test]
    fn rows_of_different_kinds_are_apart() {
        let plan = |order| super::plan(&[1; 6], &[1, 0, 1, 1, 0, 1], BatchSize::Rows(3), order, &mut rng(0));
        assert_eq!(plan(Order::Kept), [vec![0], vec![1], vec![2, 3], vec![4], vec![5]]);
        let mut grouped = plan(Order::Grouped);
        grouped.sort();
        assert_eq!(grouped, [vec![0, 2, 3], vec![1, 4], vec![5]]);
    }

    #[test]
    fn kept_order_is_file_order() {
        check(&[9, 1, 5, 2, 7], 2, Order::Kept, &[&[0, 1], &[2, 3], &[4]]);
        check(&[], 2, Order::Kept, &[]);
    }

    #[test]
    fn one_batch_is_sorted_stably() {
        check(&[9, 1, 5, 1], 4, Order::Grouped, &[&[1, 3, 2, 0]]);
    }

    proptest! {
        #[test]
        fn batches_partition_the_rows(
            lengths in prop::collection::vec(0usize..50, 0..400),
            batch_size in 1usize..6,
            order in prop::sample::select(vec![Order::Grouped, Order::Shuffled, Order::Kept]),
            seed: u64,
        ) {
            let batches = plan(&lengths, BatchSize::Rows(batch_size), order, &mut rng(seed));
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size));
            prop_assert!(batches.iter().all(|b| (1..=batch_size).contains(&b.len())));
            let mut rows: Vec<_> = batches.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn batches_by_tokens_partition_the_rows_and_hold_no_more(
            lengths in prop::collection::vec(1usize..50, 0..400),
            tokens in 1usize..300,
            order in prop::sample::select(vec![Order::Grouped, Order::Kept]),
            seed: u64,
        ) {
            let batches = plan(&lengths, BatchSize::Tokens(tokens), order, &mut rng(seed));
            for batch in &batches {
                let longest = batch.iter().map(|&row| lengths[row]).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || batch.len() * longest <= tokens);
            }
            let mut rows: Vec<_> = batches.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn equal_seeds_give_equal_plans_of_similar_lengths(
            lengths in prop::collection::vec(0usize..50, 300..600),
            seed: u64,
        ) {
            let batches = plan(&lengths, BatchSize::Rows(4), Order::Grouped, &mut rng(seed));
            prop_assert_eq!(&batches, &plan(&lengths, BatchSize::Rows(4), Order::Grouped, &mut rng(seed)));
            prop_assert!(batches.iter().all(|batch| batch.is_sorted_by_key(|&row| (lengths[row], row))));
        }
    }
}

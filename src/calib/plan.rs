//! Which rows form which batch; equal seeds give equal batches.

/// Batches whose rows are sorted by length together, see [`Order::Grouped`].
const WINDOW: usize = 64;

/// The order in which rows become batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// A number of rows.
    Rows(usize),
    /// A number of tokens, padding included.
    Tokens(usize),
}

impl BatchSize {
    /// Splits rows into batches in their order.
    fn cut(self, rows: &[usize], lengths: &[usize], batches: &mut Vec<Vec<usize>>) {
        let mut longest = 0;
        let mut open = false;
        for &row in rows {
            longest = lengths[row].max(longest);
            match batches.last_mut().filter(|batch| open && self.holds(batch.len() + 1, longest)) {
                Some(batch) => batch.push(row),
                None => {
                    (longest, open) = (lengths[row], true);
                    batches.push(vec![row]);
                }
            }
        }
    }

    fn holds(self, rows: usize, longest: usize) -> bool {
        match self {
            Self::Rows(most) => rows <= most,
            Self::Tokens(most) => rows.saturating_mul(longest) <= most,
        }
    }

    /// Rows of about [`WINDOW`] batches.
    fn window(self, lengths: &[usize]) -> usize {
        let rows = match self {
            Self::Rows(most) => most,
            Self::Tokens(most) => most.saturating_mul(lengths.len()) / lengths.iter().sum::<usize>().max(1),
        };
        rows.max(1).saturating_mul(WINDOW)
    }
}

/// Cuts rows of the given lengths into batches of row indices.
///
/// Every row is in exactly one batch, and at most one batch a window holds fewer rows than fit. Depends on nothing but
/// the arguments and the state of `rng`.
pub(crate) fn plan(lengths: &[usize], size: BatchSize, order: Order, rng: &mut SplitMix64) -> Vec<Vec<usize>> {
    let rows: Vec<usize> = (0..lengths.len()).collect();
    let mut batches = Vec::new();
    if order == Order::Kept {
        size.cut(&rows, lengths, &mut batches);
        return batches;
    }
    for window in rows.chunks(size.window(lengths)) {
        let mut window = window.to_vec();
        window.sort_by_key(|&row| lengths[row]);
        let first = batches.len();
        size.cut(&window, lengths, &mut batches);
        rng.shuffle(&mut batches[first..]);
    }
    batches
}

/// SplitMix64: a small generator whose numbers are the same on every platform and for ever.
///
/// G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
/// The generators of the `rand` crate that are reachable here may change between its versions, and
/// equal seeds must go on meaning equal adapters.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A uniform number below `bound`, which must not be 0 (Lemire's multiplication with rejection).
    fn below(&mut self, bound: u64) -> u64 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn generator_matches_the_published_numbers() {
        let mut rng = SplitMix64::new(1234567);
        let numbers: Vec<_> = (0..3).map(|_| rng.next()).collect();
        let published = [6457827717110365317, 3203168211198807973, 9817491932198370423];
        assert_eq!(numbers, published);
    }

    #[test]
    fn shuffle_is_pinned() {
        let mut items: Vec<_> = (0..8).collect();
        SplitMix64::new(0).shuffle(&mut items);
        assert_eq!(items, [1, 2, 6, 5, 4, 0, 3, 7]);
    }

    #[test]
    fn shuffle_reaches_every_order_about_equally_often() {
        let mut rng = SplitMix64::new(3);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *seen.entry(items).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|&count| (850..1150).contains(&count)), "{seen:?}");
    }

    #[track_caller]
    fn check(lengths: &[usize], rows: usize, order: Order, expected: &[&[usize]]) {
        assert_eq!(plan(lengths, BatchSize::Rows(rows), order, &mut SplitMix64::new(0)), expected);
    }

    #[test]
    fn tokens_fill_batches_with_their_padding() {
        let plan = |tokens| plan(&[3, 5, 2, 9, 1], BatchSize::Tokens(tokens), Order::Kept, &mut SplitMix64::new(0));
        assert_eq!(plan(10), [vec![0, 1], vec![2], vec![3], vec![4]]);
        assert_eq!(plan(15), [vec![0, 1, 2], vec![3], vec![4]]);
        assert_eq!(plan(1).len(), 5);
        assert_eq!(plan(usize::MAX), [vec![0, 1, 2, 3, 4]]);
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
            let batches = plan(&lengths, BatchSize::Rows(batch_size), order, &mut SplitMix64::new(seed));
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
            let batches = plan(&lengths, BatchSize::Tokens(tokens), order, &mut SplitMix64::new(seed));
            for batch in &batches {
                let longest = batch.iter().map(|&row| lengths[row]).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || batch.len() * longest <= tokens);
            }
            let mut rows: Vec<_> = batches.iter().flatten().copied().collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn equal_seeds_give_equal_plans_and_windows_hold(
            lengths in prop::collection::vec(0usize..50, 300..600),
            seed: u64,
        ) {
            let batches = plan(&lengths, BatchSize::Rows(4), Order::Grouped, &mut SplitMix64::new(seed));
            prop_assert_eq!(&batches, &plan(&lengths, BatchSize::Rows(4), Order::Grouped, &mut SplitMix64::new(seed)));
            for (index, batch) in batches.iter().enumerate() {
                prop_assert!(batch.iter().all(|row| row / (4 * WINDOW) == index / WINDOW));
                prop_assert!(batch.is_sorted_by_key(|&row| (lengths[row], row)));
            }
        }
    }
}

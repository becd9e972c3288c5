//! The streaming PCA against an exact one, and the incremental SVD against the reference implementations.

use crate::support;
use crate::support::stream;

use eva_onnx::pca::{IncrementalSvd, Precision, SketchSize, Spectrum, StreamingPca, Summary};
use ndarray::{Array2, Axis, s};
use proptest::prelude::*;
use stream::{Basis, sketch, stream, stream_behind, stream_on};
use support::tolerance::{EPS, F16_LOSS, decomposed, iterated, rounded_away, stored, summed, within};
use support::{Exact, exact, orthonormality_error};

/// The sum of all eigenvalues.
fn total(truth: &Exact) -> f64 {
    truth.eigenvalues.iter().sum()
}

/// How much longer rows are than their deviations from the mean, squared: what is rounded is as long as the rows.
fn length(truth: &Exact, rows: usize) -> f64 {
    truth.mean.dot(&truth.mean) * rows as f64 / total(truth) + 1.0
}

#[test]
fn streaming_finds_the_exact_directions() {
    let rows = support::rows(600, 96, 0.06, 1);
    let truth = exact(rows.view());
    let (pca, a) = stream(&rows, &[200, 150, 50, 200], 16);
    // The first batch is seen three times, and each later one once.
    let lost = |k| iterated(&truth.eigenvalues, k, 47, 2);
    within(1.0 - truth.captured(a.view()), lost(16), "variance");
    truth.cosines(a.view())[..8].iter().for_each(|cosine| within(1.0 - cosine, lost(8), "cosine"));
    let (ratio, total) = (pca.spectrum().explained_variance_ratio(), total(&truth));
    for (found, value) in ratio.iter().zip(&truth.eigenvalues).take(8) {
        within(found - value / total, lost(8) + summed(96), "share of the variance");
    }
    within(pca.spectrum().total_variance / total - 1.0, summed(96) * length(&truth, 600), "total variance");
}

#[test]
fn a_sketch_as_wide_as_the_features_is_exact() {
    let rows = support::rows(300, 24, 0.1, 2);
    let truth = exact(rows.view());
    let (_, a) = stream(&rows, &[100, 120, 80], 12);
    within(1.0 - truth.captured(a.view()), stored(24), "variance");
}

/// Rows that the host is one batch behind with.
#[test]
fn directions_of_the_batch_before_last_are_as_good() {
    let rows = support::rows(2000, 96, 0.06, 1);
    let truth = exact(rows.view());
    let (pca, a) = stream_behind(&rows, 100, 16, Precision::F32);
    within(1.0 - truth.captured(a.view()), iterated(&truth.eigenvalues, 16, 47, 2), "variance");
    within(pca.spectrum().total_variance / total(&truth) - 1.0, summed(96) * length(&truth, 2000), "total variance");
    // Twenty batches: the last one rotates a direction by about 1/20 sqrt(2/100) over the relative gap of neighbouring
    // eigenvalues, 0.11, to each of some four neighbours; 1 - cos is half the square of that, and twice is allowed.
    let rotation = 0.05 * 0.02f64.sqrt() / 0.11;
    pca.spectrum().similarity.iter().take(6).for_each(|s| within(1.0 - s, 4.0 * rotation.powi(2) / 2.0, "similarity"));
    assert_eq!(pca.spectrum().rows, 2000);
}

/// Rows of which every 50th is hundreds of times as long as the others, as some layers of language models have them.
#[test]
fn one_direction_does_not_hide_the_others_from_16_bits() {
    let mut rows = support::rows(2000, 96, 0.06, 1) * 0.1;
    for (i, mut row) in rows.rows_mut().into_iter().enumerate().step_by(50) {
        row.iter_mut().enumerate().for_each(|(j, v)| *v += (250 + i % 7) as f64 * (j as f64).sin());
    }
    rows.mapv_inplace(|v| f64::from(half::f16::from_f64(v)));
    let truth = exact(rows.view());
    let (first, best) = (truth.eigenvalues[0], truth.eigenvalues[..16].iter().sum::<f64>());
    let (pca, a) = stream_behind(&rows, 400, 16, Precision::F16);
    assert!(pca.spectrum().spread(16) > 500.0, "{}", pca.spectrum().spread(16));
    let others = (truth.captured(a.view()) * best - first) / (best - first);
    within(1.0 - others, F16_LOSS, "variance of the others");
}

/// Nearly equal rows far from the origin in few directions, as an attention that looks everywhere makes them.
#[test]
fn rounding_does_not_stop_a_sketch_that_is_wider_than_the_data() {
    let mut rows = support::rows(1500, 96, 0.5, 3) * 1e-2;
    rows.mapv_inplace(|v| f64::from(half::f16::from_f64(v + 1.0)));
    let truth = exact(rows.view());
    let (_, a) = stream_behind(&rows, 100, 32, Precision::F32);
    within(orthonormality_error(a.view()), decomposed(96), "orthonormality");
    within(1.0 - truth.captured(a.view()), rounded_away(), "variance");
}

/// Batches of different means, all but the first collected two at a time.
#[test]
fn collected_batches_are_exact_at_full_width() {
    let mut rows = support::rows(400, 24, 0.1, 11);
    rows.slice_mut(s![150.., ..]).mapv_inplace(|v| v + 0.5);
    let truth = exact(rows.view());
    let size = SketchSize::new(24, 12);
    let mut pca = StreamingPca::new(size, Precision::F32);
    let mut basis = Basis::initial(size);
    for (i, batch) in rows.axis_chunks_iter(Axis(0), 80).enumerate() {
        let (stats, next) = sketch(batch, &pca, &basis);
        if i % 2 == 1 {
            pca.accumulate(stats)
        } else {
            pca.absorb(stats).unwrap()
        }
        basis = next;
        assert_eq!(pca.seen(), 80 * (i as u64 + 1));
        assert_eq!(pca.has_pending(), i % 2 == 1);
    }
    let a = pca.components(&basis.settled());
    within(1.0 - truth.captured(a.view()), stored(24), "variance");
    within(pca.spectrum().total_variance / total(&truth) - 1.0, summed(24) * length(&truth, 400), "total variance");
    // Each of 80 rows adds one rounding.
    (pca.mean() - &truth.mean).iter().for_each(|v| within(*v, 80.0 * EPS, "mean"));
}

#[test]
fn what_was_collected_last_counts_once_it_is_settled() {
    let rows = support::rows(300, 24, 0.1, 12);
    let truth = exact(rows.view());
    let size = SketchSize::new(24, 12);
    let mut pca = StreamingPca::new(size, Precision::F32);
    let mut basis = Basis::initial(size);
    for batch in rows.axis_chunks_iter(Axis(0), 100) {
        let (stats, next) = sketch(batch, &pca, &basis);
        pca.accumulate(stats);
        basis = next;
    }
    assert_eq!((pca.spectrum().rows, pca.seen()), (0, 300));
    pca.flush().unwrap();
    assert_eq!((pca.spectrum().rows, pca.seen()), (300, 300));
    let a = pca.components(&basis.settled());
    within(1.0 - truth.captured(a.view()), stored(24), "variance");
}

#[test]
fn batches_shorter_than_the_sketch_work() {
    let rows = support::rows(60, 64, 0.2, 3);
    let truth = exact(rows.view());
    let (_, a) = stream(&rows, &[1, 3, 2, 10, 44], 8);
    // Only the last batch has more rows than components.
    within(1.0 - truth.captured(a.view()), iterated(&truth.eigenvalues, 8, 23, 1), "variance");
}

#[test]
fn constant_features_and_repeated_rows_work() {
    let mut rows = support::rows(120, 40, 0.3, 4);
    rows.column_mut(5).fill(2.5);
    let first = rows.row(0).to_owned();
    rows.slice_mut(s![20..60, ..]).assign(&first);
    let truth = exact(rows.view());
    let (_, a) = stream(&rows, &[40, 40, 40], 6);
    within(1.0 - truth.captured(a.view()), stored(40), "variance");
    let (_, a) = stream(&rows, &[40, 40, 40], 20);
    a.slice(s![..6, 5]).iter().for_each(|v| within(*v, stored(40), "a constant feature has no variance: its entry"));
}

#[test]
fn rank_deficient_rows_give_orthonormal_components() {
    let low = support::rows(200, 3, 0.0, 5).dot(&support::rows(3, 50, 0.0, 6));
    let (pca, a) = stream(&low, &[100, 100], 8);
    within(orthonormality_error(a.view()), decomposed(50), "orthonormality");
    let ratio = pca.spectrum().explained_variance_ratio();
    within(ratio[3], rounded_away(), "variance of the fourth direction");
    within(1.0 - ratio[..3].iter().sum::<f64>(), rounded_away(), "variance of three directions");
}

#[test]
fn rows_that_are_all_equal_have_no_variance() {
    let rows = Array2::from_elem((50, 20), 1.5);
    let (pca, a) = stream(&rows, &[25, 25], 4);
    pca.spectrum().explained_variance_ratio().iter().for_each(|r| within(*r, summed(20), "variance"));
    within(orthonormality_error(a.view()), decomposed(20), "orthonormality");
}

#[test]
fn statistics_that_are_not_finite_change_nothing() {
    let rows = support::rows(40, 16, 0.1, 8);
    let size = SketchSize::new(16, 4);
    let mut pca = StreamingPca::new(size, Precision::F32);
    let basis = Basis::initial(size);
    let (mut stats, _) = sketch(rows.view(), &pca, &basis);
    stats.zz[[0, 0]] = f64::NAN;
    assert!(pca.absorb(stats).is_err());
    assert_eq!(pca.spectrum().rows, 0);
}

#[test]
fn incremental_svd_of_one_batch_is_the_exact_pca() {
    let rows = support::rows(80, 20, 0.1, 9);
    let truth = exact(rows.view());
    let mut svd = IncrementalSvd::new(20, 5);
    svd.absorb(rows.view()).unwrap();
    for (found, value) in svd.spectrum().singular_values.iter().zip(&truth.eigenvalues) {
        within(found * found / value - 1.0, decomposed(100), "singular value");
    }
    truth.cosines(svd.components().view()).iter().for_each(|c| within(1.0 - c, decomposed(100), "cosine"));
}

#[track_caller]
fn check_signs(a: &Array2<f64>) {
    for row in a.rows() {
        let pivot = row.iter().fold(0.0_f64, |b, &v| if v.abs() > b.abs() { v } else { b });
        assert!(pivot > 0.0, "the entry of largest magnitude is {pivot}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// With a sketch as wide as the features nothing is lost between batches, however the rows are split.
    #[test]
    fn any_split_into_batches_is_exact_at_full_width(
        sizes in prop::collection::vec(1usize..60, 2..7),
        d in 4usize..30,
        seed in 0u64..1000,
    ) {
        let rows = support::rows(sizes.iter().sum(), d, 0.1, seed);
        let k = d.div_ceil(2);
        let (pca, a) = stream(&rows, &sizes, k);
        let truth = exact(rows.view());
        check_signs(&a);
        within(orthonormality_error(a.view()), decomposed(d), "orthonormality");
        let length = length(&truth, rows.nrows());
        within(1.0 - truth.captured(a.view()), rounded_away() * length, "variance");
        within(pca.spectrum().total_variance / total(&truth) - 1.0, summed(d) * length, "total variance");
    }

    /// Keeping every component makes the incremental SVD exact, however the rows are split.
    #[test]
    fn incremental_svd_is_exact_when_it_keeps_all(
        sizes in prop::collection::vec(1usize..60, 2..7),
        d in 2usize..30,
        seed in 0u64..1000,
    ) {
        let rows = support::rows(sizes.iter().sum(), d, 0.1, seed);
        let mut svd = IncrementalSvd::new(d, d);
        let mut from = 0;
        for size in &sizes {
            svd.absorb(rows.slice(s![from..from + size, ..])).unwrap();
            from += size;
        }
        let truth = exact(rows.view());
        check_signs(svd.components());
        let (largest, rounding) = (truth.eigenvalues[0], decomposed(rows.nrows() + d));
        for (found, value) in svd.spectrum().singular_values.iter().zip(&truth.eigenvalues) {
            within((found * found - value) / largest, rounding, "eigenvalue");
        }
        within(svd.spectrum().total_variance / total(&truth) - 1.0, rounding, "total variance");
        let size = truth.mean.dot(&truth.mean).sqrt();
        svd.mean().iter().zip(&truth.mean).for_each(|(a, b)| within((a - b) / size, rounding, "mean"));
    }

    /// Nothing is lost between shards whose means differ, some of which may have no rows.
    #[test]
    fn merged_summaries_are_exact_at_full_width(
        sizes in prop::collection::vec(0usize..60, 1..6),
        d in 4usize..30,
        seed in 0u64..1000,
    ) {
        prop_assume!(sizes.iter().sum::<usize>() > 0);
        let mut rows = support::rows(sizes.iter().sum(), d, 0.1, seed);
        let (mut svds, mut sketches) = (Vec::new(), Vec::new());
        let mut from = 0;
        for (i, &n) in sizes.iter().enumerate() {
            let mut shard = rows.slice_mut(s![from..from + n, ..]);
            shard += 2.0 * i as f64;
            from += n;
            let mut svd = IncrementalSvd::new(d, d);
            svd.absorb(shard.view()).unwrap();
            svds.push(svd.summary());
            let batches: Vec<usize> = [n / 3, n - n / 3].into_iter().filter(|n| *n > 0).collect();
            let (pca, basis) = stream_on(shard.view(), &batches, d.div_ceil(2));
            sketches.push(pca.summary(&basis.settled()));
        }
        let truth = exact(rows.view());
        let (total, rounding) = (total(&truth), decomposed(rows.nrows() + d));

        let merged = Summary::merge(&svds);
        let (spectrum, a) = merged.decompose(d).unwrap();
        check_signs(&a);
        within(orthonormality_error(a.view()), decomposed(d), "orthonormality");
        prop_assert_eq!(spectrum.rows, rows.nrows() as u64);
        within(spectrum.total_variance - total, rounding * total, "total variance");
        for (j, value) in truth.eigenvalues.iter().enumerate() {
            let found = spectrum.singular_values.get(j).map_or(0.0, |value| value * value);
            within(found - value, rounding * truth.eigenvalues[0], &format!("eigenvalue {j}"));
        }
        let size = truth.mean.dot(&truth.mean).sqrt();
        merged.mean.iter().zip(&truth.mean).for_each(|(a, b)| within((a - b) / size, rounding, "mean"));
        // One row has no variance.
        if total > 0.0 {
            within(1.0 - truth.captured(a.view()), rounding, "variance");
            let (spectrum, a) = Summary::merge(&sketches).decompose(d.div_ceil(2)).unwrap();
            let length = length(&truth, rows.nrows());
            within(1.0 - truth.captured(a.view()), rounded_away() * length, "variance of the sketches");
            within(spectrum.total_variance / total - 1.0, summed(d) * length, "total variance of the sketches");
        }
    }
}

#[test]
fn the_spread_is_that_of_the_components_asked_for() {
    let spectrum = Spectrum { singular_values: vec![8.0, 2.0, 1.0, 0.0], ..Spectrum::default() };
    assert_eq!([1, 2, 3, 9].map(|rank| spectrum.spread(rank)), [1.0, 4.0, 8.0, f64::INFINITY]);
    assert_eq!((spectrum.spread(0), Spectrum::default().spread(4)), (1.0, 1.0));
}

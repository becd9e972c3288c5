//! The streaming PCA against an exact one, and the incremental SVD against the reference implementations.

use crate::support;
use crate::support::stream;

use eva_onnx::pca::{Factors, IncrementalSvd, SketchSize, Spectrum, StreamingPca, Summary};
use ndarray::{Array2, Axis, s};
use proptest::prelude::*;
use stream::{sketch, stream, stream_behind, stream_on};
use support::{exact, orthonormality_error};

/// Share of the variance that 32-bit rounding may put on a direction that has none: the whitening of the basis
/// amplifies it by at most the inverse of its cut-off, 1e-4.
const NULL_SHARE: f64 = f32::EPSILON as f64 / 1e-4;

#[test]
fn streaming_finds_the_exact_directions() {
    let rows = support::rows(600, 96, 0.06, 1);
    let truth = exact(rows.view());
    let (pca, a) = stream(&rows, &[200, 150, 50, 200], 16);
    assert!(truth.captured(a.view()) > 0.9999, "{}", truth.captured(a.view()));
    assert!(truth.cosines(a.view())[..8].iter().all(|c| *c > 0.999), "{:?}", truth.cosines(a.view()));
    let ratio = pca.spectrum().explained_variance_ratio();
    let total: f64 = truth.eigenvalues.iter().sum();
    for (found, true_value) in ratio.iter().zip(&truth.eigenvalues).take(8) {
        assert!((found - true_value / total).abs() < 1e-3, "{found} {}", true_value / total);
    }
    assert!((pca.spectrum().total_variance / total - 1.0).abs() < 1e-5);
}

#[test]
fn a_sketch_as_wide_as_the_features_is_exact() {
    let rows = support::rows(300, 24, 0.1, 2);
    let truth = exact(rows.view());
    let (_, a) = stream(&rows, &[100, 120, 80], 12);
    assert!(1.0 - truth.captured(a.view()) < 24.0 * f64::from(f32::EPSILON), "{}", truth.captured(a.view()));
}

/// Rows that the host is one batch behind with.
#[test]
fn directions_of_the_batch_before_last_are_as_good() {
    let rows = support::rows(2000, 96, 0.06, 1);
    let truth = exact(rows.view());
    let (pca, a) = stream_behind(&rows, 100, 16, Factors::F32);
    assert!(truth.captured(a.view()) > 0.9999, "{}", truth.captured(a.view()));
    let total: f64 = truth.eigenvalues.iter().sum();
    assert!((pca.spectrum().total_variance / total - 1.0).abs() < 1e-5);
    assert!(pca.spectrum().similarity.iter().take(6).all(|s| *s > 0.99), "{:?}", pca.spectrum().similarity);
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
    let (pca, a) = stream_behind(&rows, 400, 16, Factors::Half);
    assert!(pca.spectrum().spread(16) > 500.0, "{}", pca.spectrum().spread(16));
    let others = (truth.captured(a.view()) * best - first) / (best - first);
    assert!(others > 0.999, "{others}");
}

/// Nearly equal rows far from the origin in few directions, as an attention that looks everywhere makes them.
#[test]
fn rounding_does_not_stop_a_sketch_that_is_wider_than_the_data() {
    let mut rows = support::rows(1500, 96, 0.5, 3) * 1e-2;
    rows.mapv_inplace(|v| f64::from(half::f16::from_f64(v + 1.0)));
    let truth = exact(rows.view());
    let (_, a) = stream_behind(&rows, 100, 32, Factors::F32);
    assert!(orthonormality_error(a.view()) < 1e-10);
    assert!(truth.captured(a.view()) > 0.9999, "{}", truth.captured(a.view()));
}

/// Batches of different means, all but the first collected two at a time.
#[test]
fn collected_batches_are_exact_at_full_width() {
    let mut rows = support::rows(400, 24, 0.1, 11);
    rows.slice_mut(s![150.., ..]).mapv_inplace(|v| v + 0.5);
    let truth = exact(rows.view());
    let size = SketchSize::new(24, 12);
    let mut pca = StreamingPca::new(size, Factors::F32);
    let mut basis = StreamingPca::initial_basis(size, 7);
    for (i, batch) in rows.axis_chunks_iter(Axis(0), 80).enumerate() {
        let (stats, next) = sketch(batch, &pca, &basis);
        if i % 2 == 1 {
            pca.collect(stats)
        } else {
            pca.absorb(stats).unwrap()
        }
        basis = next;
        assert_eq!(pca.seen(), 80 * (i as u64 + 1));
        assert_eq!(pca.is_behind(), i % 2 == 1);
    }
    let a = pca.components(basis.q.view(), basis.z.view());
    assert!(1.0 - truth.captured(a.view()) < 24.0 * f64::from(f32::EPSILON), "{}", truth.captured(a.view()));
    let total: f64 = truth.eigenvalues.iter().sum();
    assert!((pca.spectrum().total_variance / total - 1.0).abs() < 400.0 * f64::from(f32::EPSILON));
    let mean = rows.mean_axis(Axis(0)).unwrap();
    assert!((pca.mean() - &mean).iter().all(|v| v.abs() < 80.0 * f64::from(f32::EPSILON)));
}

#[test]
fn what_was_collected_last_counts_once_it_is_settled() {
    let rows = support::rows(300, 24, 0.1, 12);
    let truth = exact(rows.view());
    let size = SketchSize::new(24, 12);
    let mut pca = StreamingPca::new(size, Factors::F32);
    let mut basis = StreamingPca::initial_basis(size, 7);
    for batch in rows.axis_chunks_iter(Axis(0), 100) {
        let (stats, next) = sketch(batch, &pca, &basis);
        pca.collect(stats);
        basis = next;
    }
    assert_eq!((pca.spectrum().rows, pca.seen()), (0, 300));
    pca.settle().unwrap();
    assert_eq!((pca.spectrum().rows, pca.seen()), (300, 300));
    let a = pca.components(basis.q.view(), basis.z.view());
    assert!(1.0 - truth.captured(a.view()) < 24.0 * f64::from(f32::EPSILON), "{}", truth.captured(a.view()));
}

#[test]
fn batches_shorter_than_the_sketch_work() {
    let rows = support::rows(60, 64, 0.2, 3);
    let truth = exact(rows.view());
    let (_, a) = stream(&rows, &[1, 3, 2, 10, 44], 8);
    assert!(truth.captured(a.view()) > 0.999, "{}", truth.captured(a.view()));
}

#[test]
fn constant_features_and_repeated_rows_work() {
    let mut rows = support::rows(120, 40, 0.3, 4);
    rows.column_mut(5).fill(2.5);
    let first = rows.row(0).to_owned();
    rows.slice_mut(s![20..60, ..]).assign(&first);
    let truth = exact(rows.view());
    let (_, a) = stream(&rows, &[40, 40, 40], 6);
    assert!(truth.captured(a.view()) > 0.9999);
    let (_, a) = stream(&rows, &[40, 40, 40], 20);
    let constant = a.slice(s![..6, 5]);
    assert!(constant.iter().all(|v| v.abs() < 1e-5), "a constant feature carries no variance: {constant}");
}

#[test]
fn rank_deficient_rows_give_orthonormal_components() {
    let low = support::rows(200, 3, 0.0, 5).dot(&support::rows(3, 50, 0.0, 6));
    let (pca, a) = stream(&low, &[100, 100], 8);
    assert!(orthonormality_error(a.view()) < 1e-10);
    let ratio = pca.spectrum().explained_variance_ratio();
    assert!(ratio[3] < NULL_SHARE && ratio[..3].iter().sum::<f64>() > 1.0 - NULL_SHARE, "{ratio:?}");
}

#[test]
fn rows_that_are_all_equal_have_no_variance() {
    let rows = Array2::from_elem((50, 20), 1.5);
    let (pca, a) = stream(&rows, &[25, 25], 4);
    assert!(pca.spectrum().explained_variance_ratio().iter().all(|r| *r < 1e-6));
    assert!(orthonormality_error(a.view()) < 1e-10);
}

#[test]
fn statistics_that_are_not_finite_change_nothing() {
    let rows = support::rows(40, 16, 0.1, 8);
    let size = SketchSize::new(16, 4);
    let mut pca = StreamingPca::new(size, Factors::F32);
    let basis = StreamingPca::initial_basis(size, 0);
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
        assert!((found * found / value - 1.0).abs() < 1e-9);
    }
    assert!(truth.cosines(svd.components().view()).iter().all(|c| 1.0 - c < 1e-9));
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
        prop_assert!(orthonormality_error(a.view()) < d as f64 * 1e-14);
        let scale = truth.mean.dot(&truth.mean) * rows.nrows() as f64 / truth.eigenvalues[0].max(1e-300) + 1.0;
        prop_assert!((1.0 - truth.captured(a.view())).abs() < NULL_SHARE * scale);
        let total: f64 = truth.eigenvalues.iter().sum();
        prop_assert!((pca.spectrum().total_variance / total - 1.0).abs() < 1e-5 * scale);
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
        let largest = truth.eigenvalues[0];
        for (found, value) in svd.spectrum().singular_values.iter().zip(&truth.eigenvalues) {
            prop_assert!((found * found - value).abs() < 1e-10 * largest);
        }
        prop_assert!((svd.spectrum().total_variance - truth.eigenvalues.iter().sum::<f64>()).abs() < 1e-10 * largest);
        prop_assert!(svd.mean().iter().zip(&truth.mean).all(|(a, b)| (a - b).abs() < 1e-9));
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
            sketches.push(pca.summary(basis.q.view(), basis.z.view()));
        }
        let truth = exact(rows.view());
        let total: f64 = truth.eigenvalues.iter().sum();

        let merged = Summary::merge(&svds);
        let (spectrum, a) = merged.decompose(d).unwrap();
        check_signs(&a);
        prop_assert!(orthonormality_error(a.view()) < d as f64 * 1e-14);
        prop_assert_eq!(spectrum.rows, rows.nrows() as u64);
        prop_assert!((spectrum.total_variance - total).abs() <= 1e-10 * total);
        for (j, value) in truth.eigenvalues.iter().enumerate() {
            let found = spectrum.singular_values.get(j).map_or(0.0, |value| value * value);
            prop_assert!((found - value).abs() <= 1e-10 * truth.eigenvalues[0], "{j}: {found} {value}");
        }
        prop_assert!((1.0 - truth.captured(a.view())).abs() < 1e-10 || total == 0.0);
        prop_assert!(merged.mean.iter().zip(&truth.mean).all(|(a, b)| (a - b).abs() < 1e-9));

        let (spectrum, a) = Summary::merge(&sketches).decompose(d.div_ceil(2)).unwrap();
        let scale = truth.mean.dot(&truth.mean) * rows.nrows() as f64 / truth.eigenvalues[0].max(1e-300) + 1.0;
        prop_assert!((1.0 - truth.captured(a.view())).abs() < NULL_SHARE * scale || total == 0.0);
        prop_assert!((spectrum.total_variance / total - 1.0).abs() < 1e-5 * scale || total == 0.0);
    }
}

#[test]
fn the_spread_is_that_of_the_components_asked_for() {
    let spectrum = Spectrum { singular_values: vec![8.0, 2.0, 1.0, 0.0], ..Spectrum::default() };
    assert_eq!([1, 2, 3, 9].map(|rank| spectrum.spread(rank)), [1.0, 4.0, 8.0, f64::INFINITY]);
    assert_eq!((spectrum.spread(0), Spectrum::default().spread(4)), (1.0, 1.0));
}

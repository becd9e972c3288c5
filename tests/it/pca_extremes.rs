//! The sketch on rows that 32-bit arithmetic finds hard, against an exact PCA of the same rows in 64 bits. The table of
//! docs/method.md has the bounds.

use crate::support::eva::root;
use crate::support::stream::stream;
use crate::support::tolerance::{SKETCH_LOSS, decomposed, within};
use crate::support::{Exact, exact, orthonormality_error, rows};
use ndarray::{Array1, Array2, Axis, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use std::fmt::Write;

/// Features of all cases.
const D: usize = 64;

/// Rows, and what must be found in them.
struct Case {
    name: &'static str,
    rows: Array2<f64>,
    batch: usize,
    k: usize,
    /// Leading directions whose variance exceeds that of all others by far: what is beyond them is measured apart.
    beyond: usize,
    /// Leading directions that the components found must contain; 0 where all are alike.
    held: usize,
    /// Largest share of the best possible variance, beyond those directions, that is missed.
    missed: f64,
    /// Largest relative error of the total variance.
    total: f64,
}

/// Rows about the origin whose deviations fall from about 1, 1,024 of them in batches of 128.
fn case(name: &'static str, change: impl FnOnce(&mut Array2<f64>)) -> Case {
    let mut rows = rows(1024, D, 0.06, 1);
    let mean = rows.mean_axis(Axis(0)).unwrap();
    rows -= &mean;
    change(&mut rows);
    rows.mapv_inplace(|v| f64::from(v as f32));
    Case { name, rows, batch: 128, k: 8, beyond: 0, held: 4, missed: SKETCH_LOSS, total: 1e-5 }
}

/// One direction, spread over all features, of this many times the deviation.
fn stretched(times: f64) -> impl FnOnce(&mut Array2<f64>) {
    move |rows| {
        let direction = Array1::from_shape_fn(D, |j| ((j * j) as f64).sin());
        let direction = &direction / direction.dot(&direction).sqrt();
        for mut row in rows.rows_mut() {
            let along = row.dot(&direction);
            row.scaled_add(along * times, &direction);
        }
    }
}

fn first_tokens(times: f64) -> impl FnOnce(&mut Array2<f64>) {
    move |rows| {
        for mut row in rows.rows_mut().into_iter().step_by(16) {
            row[5] += times;
            row[9] -= 0.7 * times;
        }
    }
}

fn cases() -> Vec<Case> {
    let one = |case: Case| Case { beyond: 1, held: 5, ..case };
    vec![
        case("plain", |_| {}),
        one(case("one feature 1e3 times the others", |rows| rows.column_mut(3).mapv_inplace(|v| v * 1e3))),
        one(case("one feature 1e5 times the others", |rows| rows.column_mut(3).mapv_inplace(|v| v * 1e5))),
        one(case("one direction 1e4 times the others", stretched(1e4))),
        one(case("every 16th token 1e4 deviations away", first_tokens(1e4))),
        one(Case { missed: 0.02, ..case("every 16th token 1e6 deviations away", first_tokens(1e6)) }),
        case("mean of 1e3 deviations", |rows| *rows += 1e3),
        case("mean of 1e5 deviations", |rows| *rows += 1e5),
        Case { total: 1e-2, missed: 1e-2, held: 1, ..case("mean of 1e6 deviations", |rows| *rows += 1e6) },
        case("half of the features constant", |rows| rows.slice_mut(s![.., ..D / 2]).fill(2.5)),
        case("each row 64 times", |rows| {
            let first = rows.slice(s![..16, ..]).to_owned();
            rows.axis_chunks_iter_mut(Axis(0), 16).for_each(|mut rows| rows.assign(&first));
        }),
        Case { batch: 1, ..case("one token a batch", |_| {}) },
        Case { batch: 1024, ..case("all tokens in a batch", |_| {}) },
        Case { k: 60, held: 8, ..case("rank 60 of 64", |_| {}) },
        Case { k: 64, held: 64, ..case("rank 64 of 64", |_| {}) },
        Case {
            held: 0,
            missed: 0.1,
            ..case("all directions alike", |rows| {
                let mut rng = ChaCha8Rng::seed_from_u64(3);
                rows.mapv_inplace(|_| StandardNormal.sample(&mut rng));
            })
        },
        case("deviations of 1e-12", |rows| *rows *= 1e-12),
        case("deviations of 1e-16", |rows| *rows *= 1e-16),
        case("deviations of 1e9", |rows| *rows *= 1e9),
        case("deviations of 1e14", |rows| *rows *= 1e14),
    ]
}

/// Square of the sine of the largest angle between the leading `count` directions and the span of the components.
fn outside(truth: &Exact, a: &Array2<f64>, count: usize) -> f64 {
    let inside = truth.components.slice(s![..count, ..]).dot(&a.t());
    let gram = inside.dot(&inside.t());
    let eigen = nalgebra::DMatrix::from_fn(count, count, |i, j| gram[[i, j]]).symmetric_eigen();
    1.0 - eigen.eigenvalues.min()
}

#[test]
fn the_table_of_the_method_holds() {
    let mut table =
        "| rows | variance missed | sin^2 of the angle | total variance off by |\n|---|---|---|---|\n".to_owned();
    for Case { name, rows, batch, k, beyond, held, missed, total } in cases() {
        let truth = exact(rows.view());
        let batches = vec![batch; rows.nrows() / batch];
        let (pca, a) = stream(&rows, &batches, k);
        within(orthonormality_error(a.view()), decomposed(D), name);
        let best: f64 = truth.eigenvalues[..k].iter().sum();
        let first: f64 = truth.eigenvalues[..beyond].iter().sum();
        within(1.0 - (truth.captured(a.view()) * best - first) / (best - first), missed, &format!("{name}: variance"));
        let angle = (held > 0).then_some(10.0 * missed);
        if let Some(angle) = angle {
            within(outside(&truth, &a, held), angle, &format!("{name}: angle"));
        }
        let all: f64 = truth.eigenvalues.iter().sum();
        within(pca.spectrum().total_variance / all - 1.0, total, &format!("{name}: total variance"));
        let angle = angle.map_or("none is apart".to_owned(), |angle| format!("{angle:e}"));
        writeln!(table, "| {name} | {missed:e} | {angle} | {total:e} |").unwrap();
    }
    let path = root().join("docs/method.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- generated by tests/it/pca_extremes.rs -->\n", "<!-- end -->\n");
    let (head, rest) = text.split_once(start).unwrap();
    let (old, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{start}{table}{end}{tail}")).unwrap();
    } else {
        assert_eq!(old, table, "run `UPDATE_DOCS=1 cargo test --test it pca_extremes`");
    }
}

#[test]
fn directions_of_the_data_are_counted() {
    let directions = |rows: &Array2<f64>, k| stream(rows, &[64; 4], k).0.spectrum().directions();
    let of = |rank: usize| rows(256, rank, 0.0, 5).dot(&rows(rank, D, 0.0, 6).slice(s![..rank, ..]));
    for rank in [1, 2, 5] {
        // In a sketch of fewer directions than features, and in a complete one.
        assert_eq!([8, 40].map(|k| directions(&of(rank), k)), [rank; 2], "{rank}");
    }
    assert_eq!(directions(&rows(256, D, 0.06, 7), 8), 8);
    for constant in [0.0, 1.5, 1e6, 1e-9] {
        assert_eq!([8, 40].map(|k| directions(&Array2::from_elem((256, D), constant), k)), [0; 2], "{constant}");
    }
}

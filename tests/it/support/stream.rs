//! The subgraph and its loop on the host, as a model of what a session does.

use eva_onnx::pca::{self, Precision, PreviousProducts, Rotation, SketchSize, SketchStats, StreamingPca};
use ndarray::{Array2, ArrayView2, Axis, s};

/// The matrices that go from run to run, both [d, l].
pub struct Basis {
    pub q: Array2<f32>,
    pub z: Array2<f32>,
}

impl Basis {
    pub fn initial(size: SketchSize) -> Self {
        let q = StreamingPca::initial_basis(size, 7);
        Self { z: Array2::zeros(q.dim()), q }
    }

    pub fn settled(&self) -> pca::Basis<'_> {
        pca::Basis::Settled { q: self.q.view(), z: self.z.view() }
    }
}

/// What keeps products with the rows in the range of 16 bits.
const SCALE: f32 = 1.0 / 4096.0;

/// The subgraph of `sketch` in the same precision, step by step; `before` is the image of the batch before.
pub fn sketch_before(
    rows: ArrayView2<'_, f64>,
    pca: &StreamingPca,
    basis: &Basis,
    before: Option<&Array2<f32>>,
    precision: Precision,
) -> (SketchStats, Basis) {
    let product = |a: ArrayView2<'_, f32>, b: &Array2<f32>| a.dot(b);
    let rows = rows.mapv(|v| v as f32);
    let narrow = |a: &Array2<f64>| a.mapv(|v| v as f32);
    let Rotation { q, z } = pca.rotation();
    let q = product(basis.q.view(), &narrow(q)) + product(basis.z.view(), &narrow(z));
    let (seen, n) = (pca.seen() as f32, rows.nrows() as f32);
    let before_rows = pca.mean().mapv(|v| v as f32).insert_axis(Axis(0));
    // Products with the rows are of 16 bits, or not.
    let near = |a: Array2<f32>| {
        if precision == Precision::F16 { a.mapv(|v| half::f16::from_f32(v).to_f32()) } else { a }
    };
    let (q16, shift) = (near(q.clone()), near(product(before_rows.view(), &q)));
    let y = near(near(product(rows.view(), &q16)) - shift);
    let ones = Array2::ones((rows.nrows(), 1));
    let (sum, drift) = (near(product(rows.t(), &ones) * SCALE) / SCALE, product(y.t(), &ones));
    let mean = (before_rows.t().mapv(|v| v * seen) + &sum) / (seen + n);
    let keep = if pca.has_pending() && before.is_none() { 1.0 } else { 0.0 };
    let z = near(product(rows.t(), &y) * SCALE) / SCALE - product(mean.view(), &drift.t().to_owned()) + keep * &basis.z;
    let wide = |a: Array2<f32>| a.mapv(f64::from);
    let stats = SketchStats {
        rows: rows.nrows(),
        qq: wide(product(q.t(), &q)),
        yy: wide(product(y.t(), &y)),
        drift: wide(drift).remove_axis(Axis(1)),
        zz: wide(product(z.t(), &z)),
        qz: (precision == Precision::F16).then(|| wide(product(q.t(), &z))),
        mean: wide(sum / n).remove_axis(Axis(1)),
        squares: rows.rows().into_iter().map(|row| f64::from(row.dot(&row))).sum(),
        previous: before
            .map(|before| PreviousProducts { q: wide(product(q.t(), before)), z: wide(product(before.t(), &z)) }),
    };
    (stats, Basis { q, z })
}

pub fn sketch(rows: ArrayView2<'_, f64>, pca: &StreamingPca, basis: &Basis) -> (SketchStats, Basis) {
    sketch_before(rows, pca, basis, None, Precision::F32)
}

/// Streams the rows in batches of which the host is always one behind, and returns the analysis with its components.
pub fn stream_behind(rows: &Array2<f64>, batch: usize, k: usize, precision: Precision) -> (StreamingPca, Array2<f64>) {
    let size = SketchSize::new(rows.ncols(), k);
    let mut pca = StreamingPca::new(size, precision);
    let mut basis = Basis::initial(size);
    let mut before: Option<Array2<f32>> = None;
    let mut last = Array2::zeros((0, 0));
    for (i, rows) in rows.axis_chunks_iter(Axis(0), batch).enumerate() {
        for _ in 0..if i == 0 { 2 } else { 0 } {
            let (stats, next) = sketch_before(rows, &pca, &basis, None, precision);
            pca.warm_up(stats).unwrap();
            basis = next;
        }
        let image = before.clone().unwrap_or_else(|| basis.z.clone());
        let behind = (i > 0).then_some(&image);
        let (stats, next) = sketch_before(rows, &pca, &basis, behind, precision);
        if behind.is_none() {
            pca.absorb(stats).unwrap();
            basis = next;
            continue;
        }
        pca.apply_deferred().unwrap();
        let z = before.replace(next.z).unwrap_or(basis.z);
        basis = Basis { q: next.q, z };
        pca.defer(stats);
        let Rotation { q, z } = pca.rotation();
        last = ndarray::concatenate![Axis(0), q.view(), z.view()].mapv(|v| v as f32);
    }
    pca.apply_deferred().unwrap();
    let before = before.unwrap();
    let late = pca::Basis::Late { q: basis.q.view(), z: basis.z.view(), last: before.view(), sent: last };
    let components = pca.components(&late);
    (pca, components)
}

/// Streams the rows in batches and returns the analysis with its components.
pub fn stream(rows: &Array2<f64>, sizes: &[usize], k: usize) -> (StreamingPca, Array2<f64>) {
    let (pca, basis) = stream_on(rows.view(), sizes, k);
    let components = pca.components(&basis.settled());
    (pca, components)
}

/// Streams the rows in batches and returns the analysis with its basis.
pub fn stream_on(rows: ArrayView2<'_, f64>, sizes: &[usize], k: usize) -> (StreamingPca, Basis) {
    let d = rows.ncols();
    let size = SketchSize::new(d, k);
    let mut pca = StreamingPca::new(size, Precision::F32);
    let mut basis = Basis::initial(size);
    let mut from = 0;
    for (i, size) in sizes.iter().enumerate() {
        let batch = rows.slice(s![from..from + size, ..]);
        for _ in 0..if i == 0 { 2 } else { 0 } {
            let (stats, next) = sketch(batch, &pca, &basis);
            pca.warm_up(stats).unwrap();
            basis = next;
        }
        let (stats, next) = sketch(batch, &pca, &basis);
        pca.absorb(stats).unwrap();
        basis = next;
        from += size;
    }
    (pca, basis)
}

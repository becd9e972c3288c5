//! The subgraph and its loop on the host, as a model of what a session does.

use eva_onnx::pca::{self, Deflation, Precision, PreviousProducts, Rotation, SketchSize, SketchStats, StreamingPca};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

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
    (precision, late): (Precision, bool),
) -> (SketchStats, Basis) {
    let product = |a: ArrayView2<'_, f32>, b: &Array2<f32>| a.dot(b);
    let rows = rows.mapv(|v| v as f32);
    let narrow = |a: &Array2<f64>| a.mapv(|v| v as f32);
    let Rotation { q, z } = pca.rotation();
    let mut q = product(basis.q.view(), &narrow(q)) + product(basis.z.view(), &narrow(z));
    let (seen, n) = (pca.seen() as f32, rows.nrows() as f32);
    let before_rows = pca.mean().mapv(|v| v as f32).insert_axis(Axis(0));
    // Products with the rows are of 16 bits and the mean is taken from `Y`, or neither.
    let half = precision == Precision::F16;
    let near = |a: Array2<f32>| if half { a.mapv(|v| half::f16::from_f32(v).to_f32()) } else { a };
    let rows = if half { rows } else { rows - &before_rows };
    let origin = if half { before_rows.clone() } else { Array2::zeros(before_rows.dim()) };
    let (q16, shift) = (near(q.clone()), near(product(origin.view(), &q)));
    let mut y = near(near(product(rows.view(), &q16)) - shift);
    let deflates = !late && pca.is_dominated() && !pca.has_pending();
    let mut from_q = Array1::zeros(q.ncols());
    if deflates {
        let y_1 = y.column(0).to_owned();
        from_q = y_1.dot(&y) / (y_1.dot(&y_1) + f32::MIN_POSITIVE);
        from_q[0] = 0.0;
        y = y - outer(&y_1, &from_q);
        q = &q - outer(&q.column(0).to_owned(), &from_q);
    }
    let ones = Array2::ones((rows.nrows(), 1));
    let (sum, drift) = (near(product(rows.t(), &ones) * SCALE) / SCALE, product(y.t(), &ones));
    let mean = (origin.t().mapv(|v| v * seen) + &sum) / (seen + n);
    let keep = if pca.has_pending() && before.is_none() { 1.0 } else { 0.0 };
    let mut z =
        near(product(rows.t(), &y) * SCALE) / SCALE - product(mean.view(), &drift.t().to_owned()) + keep * &basis.z;
    let mut from_z = Array1::zeros(q.ncols());
    if deflates {
        let q_1 = q.column(0).to_owned();
        from_z = q_1.dot(&z) / q_1.dot(&q_1);
        z = z - outer(&q_1, &from_z);
    }
    let squares: f64 = rows.rows().into_iter().map(|row| f64::from(row.dot(&row))).sum();
    let moved = (&sum / n - origin.t()).mapv(f64::from).remove_axis(Axis(1));
    let of_mean = |mean: &Array1<f64>| f64::from(n) * mean.dot(mean);
    let all = (&sum / n).mapv(f64::from).remove_axis(Axis(1));
    let wide = |a: Array2<f32>| a.mapv(f64::from);
    let stats = SketchStats {
        rows: rows.nrows(),
        qq: wide(product(q.t(), &q)),
        yy: wide(product(y.t(), &y)),
        drift: wide(drift).remove_axis(Axis(1)),
        zz: wide(product(z.t(), &z)),
        qz: (precision == Precision::F16).then(|| wide(product(q.t(), &z))),
        squares: squares - of_mean(&all) + of_mean(&moved),
        moved,
        deflation: (!late).then(|| Deflation { from_q: from_q.mapv(f64::from), from_z: from_z.mapv(f64::from) }),
        previous: before
            .map(|before| PreviousProducts { q: wide(product(q.t(), before)), z: wide(product(before.t(), &z)) }),
    };
    (stats, Basis { q, z })
}

fn outer(a: &Array1<f32>, b: &Array1<f32>) -> Array2<f32> {
    a.view().insert_axis(Axis(1)).dot(&b.view().insert_axis(Axis(0)))
}

pub fn sketch(rows: ArrayView2<'_, f64>, pca: &StreamingPca, basis: &Basis) -> (SketchStats, Basis) {
    sketch_before(rows, pca, basis, None, (Precision::F32, false))
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
            let (stats, next) = sketch_before(rows, &pca, &basis, None, (precision, true));
            pca.warm_up(stats).unwrap();
            basis = next;
        }
        let image = before.clone().unwrap_or_else(|| basis.z.clone());
        let behind = (i > 0).then_some(&image);
        let (stats, next) = sketch_before(rows, &pca, &basis, behind, (precision, true));
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
        for pass in 0..if i == 0 { 3 } else { 0 } {
            if pass < 2 || pca.was_displaced() {
                let (stats, next) = sketch(batch, &pca, &basis);
                pca.warm_up(stats).unwrap();
                basis = next;
            }
        }
        let (stats, next) = sketch(batch, &pca, &basis);
        pca.absorb(stats).unwrap();
        basis = next;
        from += size;
    }
    (pca, basis)
}

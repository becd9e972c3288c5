//! Statistics and rotations in the form in which the graph exchanges them with the host.

use crate::pca::{Deflation, PreviousProducts, SketchSize, SketchStats, StreamingPca};
use crate::sketch;
use ndarray::{Array1, Array2};

/// Kept rows of a group in one run.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Seen {
    pub(super) rows: usize,
    /// Sum of the squares of their entries.
    pub(super) squares: f64,
    /// Whether the mean of the rows before was taken from them first.
    pub(super) centred: bool,
    /// Whether an overwhelming direction is kept apart.
    pub(super) deflated: bool,
}

/// Turns a rotation of zeros with `c` columns into the identity for `Q`, with the unit vector that the graph takes from
/// it for the column of ones, see [`Ports::rotation`](crate::sketch::Ports::rotation).
pub(super) fn encode_identity(c: usize, to: &mut [f32]) {
    (0..c).for_each(|i| to[i * c + i] = 1.0);
}

/// Writes a rotation `[2l, l]` as the graph takes it. The column of ones keeps what it has.
pub(super) fn encode_rotation(pca: &StreamingPca, to: &mut [f32]) {
    let c = sketch::columns(pca.size());
    let rotation = pca.rotation();
    for (half, to) in [&rotation.q, &rotation.z].into_iter().zip(to.chunks_exact_mut(c * c)) {
        for (row, to) in half.rows().into_iter().zip(to.chunks_exact_mut(c)) {
            row.iter().zip(to).for_each(|(&value, to)| *to = value as f32);
        }
    }
}

/// Reads the statistics of one group, in the order of [`Ports::statistics`](crate::sketch::Ports::statistics), of rows
/// that follow those that `pca` has counted.
pub(super) fn decode_statistics(seen: Seen, values: &[f32], pca: &StreamingPca) -> SketchStats {
    let (size, rows) = (pca.size(), seen.rows as f64);
    let (l, c) = (size.width, sketch::columns(size));
    let (values, taken) = values.split_at(values.len() - if seen.deflated { 2 * c } else { 0 });
    let sum = decode_sum(values, size);
    let products = &values[..values.len() - sum.len()];
    let (triangles, squares) = products.split_at(3 * sketch::triangle(size));
    let mut triangles = triangles.chunks_exact(sketch::triangle(size));
    let mut next = || triangles.next().unwrap_or_default();
    let (qq, yy, zz) = (next(), next(), next());
    let mut squares = squares.chunks_exact(c * c).map(|values| decode_square(values, l, c));
    let previous = (squares.len() > 1).then(|| squares.next().zip(squares.next())).flatten();
    let mean: Array1<f64> = sum.iter().map(|&sum| f64::from(sum) / rows).collect();
    let (moved, squares_about_mean) = if seen.centred {
        (mean, seen.squares)
    } else {
        let moved = &mean - pca.mean();
        let within = (seen.squares - rows * mean.dot(&mean)).max(0.0);
        let squares = within + rows * moved.dot(&moved);
        (moved, squares)
    };
    SketchStats {
        rows: seen.rows,
        qq: decode_symmetric(qq, l),
        yy: decode_symmetric(yy, l),
        drift: yy[l * c / 2..].iter().take(l).map(|&v| f64::from(v)).collect(),
        zz: decode_symmetric(zz, l),
        moved,
        squares: squares_about_mean,
        qz: squares.next(),
        deflation: seen.deflated.then(|| {
            let of = |taken: &[f32]| taken[..l].iter().map(|&value| f64::from(value)).collect();
            Deflation { from_q: of(taken), from_z: of(&taken[c..]) }
        }),
        previous: previous.map(|(q, z)| PreviousProducts { q, z }),
    }
}

/// The sum of the rows, which comes last in the statistics of a group.
pub(super) fn decode_sum(values: &[f32], size: SketchSize) -> &[f32] {
    &values[values.len() - size.features..]
}

/// A symmetric matrix [l, l] from the lower triangle, row by row, of one that may be larger.
fn decode_symmetric(triangle: &[f32], l: usize) -> Array2<f64> {
    let mut square = Array2::zeros((l, l));
    for i in 0..l {
        for (j, &value) in triangle[i * (i + 1) / 2..].iter().take(i + 1).enumerate() {
            square[[i, j]] = f64::from(value);
            square[[j, i]] = f64::from(value);
        }
    }
    square
}

/// The first l rows and columns of a matrix [c, c].
fn decode_square(values: &[f32], l: usize, c: usize) -> Array2<f64> {
    let values = values.chunks_exact(c).take(l).flat_map(|row| &row[..l]).map(|&value| f64::from(value)).collect();
    Array2::from_shape_vec((l, l), values).unwrap_or_else(|_| unreachable!("l rows of l"))
}

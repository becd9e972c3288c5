//! Small matrices as the graph lays them out.

use crate::pca::{Before, SketchSize, SketchStats, StreamingPca};
use crate::sketch;
use ndarray::Array2;

/// Rows of a group that counted in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) rows: usize,
    /// Sum of the squares of their entries.
    pub(super) squares: f64,
}

/// Makes a rotation of zeros the one that leaves the `c - 1` directions as they are, with the unit vector that the graph
/// takes from it for the column of ones, see [`Ports::rotation`](crate::sketch::Ports::rotation).
pub(super) fn write_unit(c: usize, to: &mut [f32]) {
    (0..c).for_each(|i| to[i * c + i] = 1.0);
}

/// Puts a rotation `[2l, l]` down as the graph takes it. What belongs to the column of ones stays as it is.
pub(super) fn write_rotation(pca: &StreamingPca, to: &mut [f32]) {
    let c = sketch::columns(pca.size());
    let rotation = pca.rotation();
    for (half, to) in [&rotation.q, &rotation.z].into_iter().zip(to.chunks_exact_mut(c * c)) {
        for (row, to) in half.rows().into_iter().zip(to.chunks_exact_mut(c)) {
            row.iter().zip(to).for_each(|(&value, to)| *to = value as f32);
        }
    }
}

/// Takes the statistics of one group apart, in the order of [`Ports::statistics`](crate::sketch::Ports::statistics).
pub(super) fn statistics(seen: Seen, values: &[f32], size: SketchSize) -> SketchStats {
    let (l, c) = (size.width, sketch::columns(size));
    let (products, sum) = values.split_at(values.len() - size.features);
    let (triangles, squares) = products.split_at(3 * sketch::triangle(size));
    let symmetric = |triangle: &[f32]| {
        let mut square = Array2::zeros((l, l));
        for i in 0..l {
            for (j, &value) in triangle[i * (i + 1) / 2..].iter().take(i + 1).enumerate() {
                square[[i, j]] = f64::from(value);
                square[[j, i]] = f64::from(value);
            }
        }
        square
    };
    let square = |values: &[f32]| {
        let values = values.chunks_exact(c).take(l).flat_map(|row| &row[..l]).map(|&value| f64::from(value)).collect();
        Array2::from_shape_vec((l, l), values).unwrap_or_else(|_| unreachable!("l rows of l"))
    };
    let mut triangles = triangles.chunks_exact(sketch::triangle(size));
    let mut next = || triangles.next().unwrap_or_default();
    let (qq, yy, zz) = (next(), next(), next());
    let mut squares = squares.chunks_exact(c * c).map(square);
    let before = (squares.len() > 1).then(|| squares.next().zip(squares.next())).flatten();
    SketchStats {
        rows: seen.rows,
        qq: symmetric(qq),
        yy: symmetric(yy),
        drift: yy[l * c / 2..].iter().take(l).map(|&v| f64::from(v)).collect(),
        zz: symmetric(zz),
        mean: sum.iter().map(|&sum| f64::from(sum) / seen.rows as f64).collect(),
        squares: seen.squares,
        qz: squares.next(),
        before: before.map(|(q, z)| Before { q, z }),
    }
}

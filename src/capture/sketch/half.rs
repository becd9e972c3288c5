//! The range of 16-bit products.

use super::codec::Seen;

/// Largest entry of `R^T Y` that is aimed at, by the lengths of the rows before and for columns of `Y` of unit
/// variance. The range ends at 65504: columns of directions that had little variance before, or that rounding mixes
/// with a dominant one, have entries hundreds of times as large.
const REACH: f64 = 8.0;
/// Below the square of any number of 16 bits but 0.
const NOTHING: f64 = 1e-20;
/// Largest ratio between the squared mean of rows and their variance at which 16 bits still tell the rows apart.
const MOST_ALIKE: f64 = 256.0;

/// Whether the products of a group stayed in the range of 16 bits, by the [`check`](crate::sketch::Ports::check) of a
/// run.
pub(super) fn fits_half(check: &[f32], seen: Seen) -> bool {
    let (diagonals, square) = check.split_at(check.len() - 1);
    let of_mean = f64::from(square[0]) / seen.rows as f64;
    // One row is its own mean.
    let alike = seen.rows > 1 && of_mean > MOST_ALIKE * (seen.squares - of_mean);
    diagonals.iter().all(|value| value.is_finite()) && !alike && seen.squares > NOTHING
}

/// The power of two that keeps the entries of `R^T Y` about [`REACH`] for so many rows of this length.
pub(super) fn scale(rows: usize, length: f64) -> f32 {
    let exponent = (REACH / (rows.max(1) as f64 * length)).log2().floor();
    // The range of 16-bit exponents.
    exponent.clamp(-24.0, 15.0).exp2() as f32
}

//! Whether numbers stay in the range of 16 bits.

use super::codec::Seen;

/// What the entries of `R^T Y` may be in 16 bits, which go up to 65504, as far as the rows before tell and as long as
/// columns of `Y` have unit variance. Columns of directions that had little before, or in which rounding leaves a part of
/// an overwhelming one, have hundreds of times as much.
pub(super) const REACH: f64 = 8.0;
/// What the squares of any number of 16 bits but 0 exceed.
const NOTHING: f64 = 1e-20;
/// How many times the variance of rows their squared mean may be for 16 bits to tell them apart.
const MOST_ALIKE: f64 = 256.0;

/// Whether 16 bits were enough for the products of a group, as [`Ports::check`] tells.
pub(super) fn fits_half(check: &[f32], seen: Seen) -> bool {
    let (diagonals, square) = check.split_at(check.len() - 1);
    let of_mean = f64::from(square[0]) / seen.rows as f64;
    // One row has no variance, and nothing to be told from.
    let alike = seen.rows > 1 && of_mean > MOST_ALIKE * (seen.squares - of_mean);
    diagonals.iter().all(|value| value.is_finite()) && !alike && seen.squares > NOTHING
}

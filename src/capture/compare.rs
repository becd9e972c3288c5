//! What a model is asked before any row enters the statistics: whether rows are the same in two batches.

use super::error::Error;
use super::probe::{self, Pair};
use super::rows::Layout;
use crate::calib::Batch;

/// Largest change of a sum of rows, as a share of it, that is taken for none.
///
/// It is 2^10 roundings of 32 bits: a row of the same tokens in another batch is summed in another order in each of the
/// few hundred operators before it, whose errors add up like the square root of their number, and a sum of rows of
/// different directions is shorter than its rows together. A change of this share costs its square, 1e-8, of the
/// variance that components capture.
const SAME: f64 = 1024.0 * f32::EPSILON as f64;
/// Largest change of a sum of rows, and of a row on average, as a share of that of the other rows, that is taken for
/// none.
///
/// Rows of 16 bits change by 2^-10 for each operator, and those of a model whose products are quantized to the range of
/// a whole batch by 2^-7: over 1/20 in sums of hundreds of operators is more than that. Rows of a wrong order change
/// like the other rows, by about 1. A change of this share costs its square, 1/400, of the variance at most.
pub(super) const LITTLE: f64 = 0.05;

/// A capture as the probes see it.
pub(super) trait Probed {
    /// Runs a batch and returns the number of rows of every tensor of every group.
    fn counts(&mut self, batch: &Batch) -> Result<Vec<Vec<usize>>, Error>;

    /// Runs a batch and returns the sum of the kept rows of every group.
    fn sums(&mut self, batch: &Batch, layouts: &[Vec<Layout>]) -> Result<Vec<Vec<f64>>, Error>;
}

/// Whether the sum of the kept rows of each group is the same in both batches; `None` where that is not a number.
pub(super) fn unchanged(
    probed: &mut dyn Probed,
    Pair { one, other }: &Pair,
    layouts: &[Vec<Layout>],
) -> Result<Option<Vec<bool>>, Error> {
    let mut compare = |one: &Batch, other: &Batch| {
        let (sums, others) = (probed.sums(one, layouts)?, probed.sums(other, layouts)?);
        let compared =
            |(sum, other): (&Vec<f64>, &Vec<f64>)| Compared { tokens: one.kept(), ..Compared::of(sum, other) };
        Ok::<_, Error>(sums.iter().zip(&others).map(compared).collect::<Vec<_>>())
    };
    let kept = compare(one, other)?;
    if !kept.iter().all(|compared| compared.change.is_finite() && compared.length.is_finite()) {
        return Ok(None);
    }
    if kept.iter().all(|kept| kept.change <= SAME * kept.length) {
        return Ok(Some(vec![true; kept.len()]));
    }
    let (one, other) = (probe::of_others(one), probe::of_others(other));
    let others = if one.kept() > 0 { compare(&one, &other)? } else { vec![Compared::default(); kept.len()] };
    let same = |(kept, others): (&Compared, &Compared)| {
        let as_many = (kept.tokens as f64 / others.tokens.max(1) as f64).min(1.0);
        kept.change <= SAME * kept.length || kept.change <= LITTLE * as_many * others.change
    };
    Ok(Some(kept.iter().zip(&others).map(same).collect()))
}

/// Two sums of rows.
#[derive(Clone, Copy, Default)]
pub(super) struct Compared {
    /// Length of their difference.
    pub(super) change: f64,
    /// Length of one of them.
    pub(super) length: f64,
    /// Tokens whose rows they are.
    tokens: usize,
}

impl Compared {
    pub(super) fn of(one: &[f64], other: &[f64]) -> Self {
        let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let change = length(&mut one.iter().zip(other).map(|(one, other)| one - other));
        Self { change, length: length(&mut one.iter().copied()), tokens: 0 }
    }
}

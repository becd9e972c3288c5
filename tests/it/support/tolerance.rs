//! Every tolerance, derived from the rounding of the arithmetic and the sizes of what is computed.
//!
//! Where nothing is lost but rounding, a bound follows from `EPSILON` and a size. What a sketch narrower than the data
//! may lose follows from the spectrum, or is what the project promises: [`SKETCH_LOSS`].

use eva_onnx::pca::Precision;

/// Relative distance of neighbouring 32-bit floats; rounding is off by half of it at most.
pub const EPS: f64 = f32::EPSILON as f64;

/// Values that went through a few layers in 32 bits, each of sums of at most 256 products.
pub const F32_DRIFT: f64 = 256.0 * EPS;

/// Values around 1 that were rounded twice to 16 bits.
pub const F16_DRIFT: f64 = 2.0 / 1024.0;

/// Share of the variance that a product of 16-bit factors may take from a direction: one rounding of a factor.
pub const F16_LOSS: f64 = 1.0 / 1024.0;

/// Share of the best possible variance that a sketch of three times as many directions as components may miss on real
/// activations. This is what the project promises and no estimate: the loss depends on how the spectrum falls.
pub const SKETCH_LOSS: f64 = 1e-3;

/// Logarithms of at most 10 in 32 bits, divided by 4, of powers in 32 bits, and both roundings of what is compared.
pub const MEL: f64 = 4.0 * EPS;

/// Values of at most 5, divided by a deviation in 32 bits: mean and variance are sums of halves of a few thousand samples,
/// each with 12 roundings.
pub const UNIT_VARIANCE: f64 = 5.0 * 12.0 * EPS;

/// Checks `|error| <= bound`.
#[track_caller]
pub fn within(error: f64, bound: f64, what: &str) {
    assert!(error.abs() <= bound, "{what}: off by {error:e}, more than {bound:e}");
}

/// Share of the variance that an orthonormal basis misses once its vectors are stored in 32 bits: each of its entries is
/// rounded, and each of `features` of them adds one `EPSILON` at most.
pub fn stored(features: usize) -> f64 {
    features as f64 * EPS
}

/// Relative error of a sum of `n` products of 32-bit floats, over the sum of their magnitudes.
///
/// Roundings are off by `u = EPSILON / 2` at most and nearly independent, so that the error exceeds `6 sqrt(n) u` with a
/// probability of at most `2 n exp(-18)`, 3e-8 n (Higham and Mary, 2019, with lambda = 6).
pub fn summed(n: usize) -> f64 {
    6.0 * (n as f64).sqrt() * EPS / 2.0
}

/// Relative error of products and decompositions of 64-bit matrices whose sizes add up to `n`: their backward error is a
/// small multiple of `n EPSILON`, and 64 allows for several steps in a row.
pub fn decomposed(n: usize) -> f64 {
    64.0 * n as f64 * f64::EPSILON
}

/// Share of the variance that 32-bit rounding may put on a direction that has none: the whitening of the basis enlarges
/// the rounding of its projections by the inverse root of the smallest pivot that it uses.
pub fn rounded_away() -> f64 {
    EPS / Precision::F32.min_pivot().sqrt()
}

/// Share of the best possible variance that subspace iteration may miss: `passes` over the rows rotate a random basis of
/// `width` directions, of which `k` are wanted, towards the leading ones.
///
/// The part of the other directions in the wanted ones shrinks by the quotient of the eigenvalues on both sides in every
/// pass, and the variance that it costs by the square of that (Halko, Martinsson and Tropp, 2011, section 9). The number
/// of eigenvalues stands for what a random start costs, which is smaller where the sketch is wider than what is wanted.
pub fn iterated(eigenvalues: &[f64], k: usize, width: usize, passes: i32) -> f64 {
    (eigenvalues[width] / eigenvalues[k - 1]).powi(2 * passes) * eigenvalues.len() as f64
}

//! From coefficients to samples: the inverse cosine transform of jidctint.c, in whole numbers.

use super::super::error::BadFile;
use super::block::Block;
use super::defect::broken;
use super::frame::{Component, SIDE};
use super::upsample::Plane;

/// Bits behind the point of factors, and of what is between the two passes.
const FACTOR: u32 = 13;
const BETWEEN: u32 = 2;

/// The samples of a component.
///
/// # Errors
/// When no scan had it, or it has no table of quantization.
pub(super) fn plane(component: &Component) -> Result<Plane, BadFile> {
    let table = component.quantization.ok_or_else(|| broken("a component has no data or no table of quantization"))?;
    let Component { width, height, stride, .. } = *component;
    let mut samples = vec![0; width * height];
    for (place, block) in component.blocks.iter().enumerate() {
        let (left, top) = (SIDE * (place % stride), SIDE * (place / stride));
        if left >= width || top >= height {
            continue;
        }
        let block = samples_of(block, &table);
        let wide = SIDE.min(width - left);
        for (row, of_block) in (top..height).zip(block.chunks_exact(SIDE)) {
            samples[row * width + left..][..wide].copy_from_slice(&of_block[..wide]);
        }
    }
    Ok(Plane { width, height, samples })
}

/// The samples of a block, row by row.
fn samples_of(block: &Block, table: &[u16; 64]) -> [u8; 64] {
    let mut values = [0i64; 64];
    for (value, (coefficient, factor)) in values.iter_mut().zip(block.iter().zip(table)) {
        *value = i64::from(*coefficient) * i64::from(*factor);
    }
    for column in 0..SIDE {
        let mut line: [i64; SIDE] = std::array::from_fn(|row| values[row * SIDE + column]);
        pass(&mut line, FACTOR - BETWEEN);
        line.iter().enumerate().for_each(|(row, value)| values[row * SIDE + column] = *value);
    }
    for line in values.as_chunks_mut::<SIDE>().0 {
        pass(line, FACTOR + BETWEEN + 3);
    }
    values.map(|value| (value + 128).clamp(0, 255) as u8)
}

/// One dimension of the transform; `bits` are those that the results lose.
fn pass(line: &mut [i64; SIDE], bits: u32) {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = *line;
    // Even coefficients.
    let z1 = (x2 + x6) * 4433;
    let (even2, even3) = (z1 - x6 * 15137, z1 + x2 * 6270);
    let (even0, even1) = ((x0 + x4) << FACTOR, (x0 - x4) << FACTOR);
    let [e0, e1, e2, e3] = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];
    // Odd ones.
    let z5 = (x7 + x3 + x5 + x1) * 9633;
    let (z1, z2) = ((x7 + x1) * -7373, (x5 + x3) * -20995);
    let (z3, z4) = ((x7 + x3) * -16069 + z5, (x5 + x1) * -3196 + z5);
    let o0 = x7 * 2446 + z1 + z3;
    let o1 = x5 * 16819 + z2 + z4;
    let o2 = x3 * 25172 + z2 + z3;
    let o3 = x1 * 12299 + z1 + z4;
    let sums = [e0 + o3, e1 + o2, e2 + o1, e3 + o0, e3 - o0, e2 - o1, e1 - o2, e0 - o3];
    *line = sums.map(|sum| (sum + (1 << (bits - 1))) >> bits);
}

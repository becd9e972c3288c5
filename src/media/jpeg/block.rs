//! The coefficients of one block. Source: T.81, F.2.2 and G.2.

use super::bits::Bits;
use super::huffman::Huffman;

/// Coefficients of a block, row by row.
pub(super) type Block = [i16; 64];

/// Where the coefficients of a scan are in a block.
pub(super) const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// What scans of a progressive picture have of blocks.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The first coefficient and the last one.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The lowest bit of coefficients that is there after the scan before, or 0, and after this one.
    pub(super) before: u32,
    pub(super) low: u32,
}

/// The first coefficient of a block, of which the difference to that of the block before is in the scan.
pub(super) fn first(bits: &mut Bits<'_>, table: &Huffman, before: &mut i32) -> Option<i32> {
    let size = table.next(bits).filter(|size| *size < 16)?;
    *before = before.wrapping_add(bits.signed(size.into())?);
    Some(*before)
}

/// All coefficients of a block but the first.
pub(super) fn others(bits: &mut Bits<'_>, table: &Huffman, block: &mut Block) -> Option<()> {
    let mut at = 1;
    while at < 64 {
        let code = table.next(bits)?;
        let (zeros, size) = (usize::from(code >> 4), u32::from(code & 15));
        match (zeros, size) {
            (15, 0) => at += 16,
            (_, 0) => break,
            _ => {
                at += zeros;
                *block.get_mut(*ZIGZAG.get(at)?)? = bits.signed(size)? as i16;
                at += 1;
            }
        }
    }
    Some(())
}

/// Coefficients of a progressive picture for the first time, without their lowest bits. `blocks` are those that have none
/// any more.
pub(super) fn begun(
    bits: &mut Bits<'_>,
    table: &Huffman,
    part: Part,
    block: &mut Block,
    blocks: &mut u32,
) -> Option<()> {
    if *blocks > 0 {
        *blocks -= 1;
        return Some(());
    }
    let mut at = part.first;
    while at <= part.last {
        let code = table.next(bits)?;
        let (zeros, size) = (u32::from(code >> 4), u32::from(code & 15));
        match (zeros, size) {
            (15, 0) => at += 16,
            (_, 0) => {
                *blocks = (1 << zeros) + bits.take(zeros)? as u32 - 1;
                break;
            }
            _ => {
                at += zeros as usize;
                *ZIGZAG.get(at).and_then(|at| block.get_mut(*at))? = (bits.signed(size)? << part.low) as i16;
                at += 1;
            }
        }
    }
    Some(())
}

/// One more bit of coefficients of a progressive picture.
pub(super) fn refined(
    bits: &mut Bits<'_>,
    table: &Huffman,
    part: Part,
    block: &mut Block,
    blocks: &mut u32,
) -> Option<()> {
    let bit = 1i16 << part.low;
    let mut at = part.first;
    while *blocks == 0 && at <= part.last {
        let code = table.next(bits)?;
        let (mut zeros, size) = (u32::from(code >> 4), code & 15);
        let mut new = 0;
        match (zeros, size) {
            (15, 0) => {}
            (_, 0) => {
                *blocks = (1 << zeros) + bits.take(zeros)? as u32;
                break;
            }
            (_, 1) => new = if bits.take(1)? == 1 { bit } else { -bit },
            _ => return None,
        }
        // So many zeros stay; the others among them get their bit.
        while at <= part.last {
            let value = &mut block[ZIGZAG[at]];
            if *value != 0 {
                refine(bits, value, bit)?;
            } else if zeros == 0 {
                *value = new;
                at += 1;
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
    }
    if *blocks > 0 {
        for at in at..=part.last {
            let value = &mut block[ZIGZAG[at]];
            if *value != 0 {
                refine(bits, value, bit)?;
            }
        }
        *blocks -= 1;
    }
    Some(())
}

/// Adds the next bit to a value that is not zero, away from zero.
fn refine(bits: &mut Bits<'_>, value: &mut i16, bit: i16) -> Option<()> {
    if bits.take(1)? == 1 && *value & bit == 0 {
        *value = value.wrapping_add(if *value < 0 { -bit } else { bit });
    }
    Some(())
}

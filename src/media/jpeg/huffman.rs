//! Huffman codes. Source: T.81, annexes C and F.2.2.3.

use super::bits::Bits;

/// Bits of codes that are looked up at once.
const FAST: u32 = 9;

/// A table of codes of at most 16 bits.
pub(super) struct Huffman {
    /// By the next [`FAST`] bits: the length of the code and its value; a length of 0 for longer ones.
    fast: Vec<(u8, u8)>,
    /// By length: the first code that is too large for it, in 16 bits, and what its codes lack of their places.
    ends: [u32; 17],
    offsets: [i32; 17],
    values: Vec<u8>,
}

impl Huffman {
    /// The table with so many codes of each length from 1, and their values; `None` if there are too many.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Option<Self> {
        let mut table =
            Self { fast: vec![(0, 0); 1 << FAST], ends: [0; 17], offsets: [0; 17], values: values.to_vec() };
        let (mut code, mut place) = (0u32, 0usize);
        for (length, count) in (1u32..).zip(counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..*count {
                if length <= FAST {
                    let from = (code << (FAST - length)) as usize;
                    table.fast.get_mut(from..from + (1 << (FAST - length)))?.fill((length as u8, values[place]));
                }
                (code, place) = (code + 1, place + 1);
            }
            if code > 1 << length {
                return None;
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The value of the next code; `None` if there is none.
    pub(super) fn next(&self, bits: &mut Bits<'_>) -> Option<u8> {
        let next = bits.peek();
        let (length, value) = self.fast[(next >> (16 - FAST)) as usize];
        if length > 0 {
            bits.skip(length.into())?;
            return Some(value);
        }
        let length = (FAST as usize + 1..17).find(|length| next < self.ends[*length])?;
        bits.skip(length as u32)?;
        let place = (next >> (16 - length)) as i32 + self.offsets[length];
        self.values.get(usize::try_from(place).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_every_length() {
        // One code of each length but the longest: 0, 10, 110 and so on.
        let mut counts = [1; 16];
        counts[15] = 0;
        let table = Huffman::new(&counts, &(1..16).collect::<Vec<_>>()).unwrap();
        // 0, 10, then fourteen ones and a zero, then 0.
        let data = [0b0101_1111, 0xff, 0x00, 0b1000_0000];
        let mut bits = Bits::new(&data);
        let found: Vec<_> = (0..4).map(|_| table.next(&mut bits)).collect();
        assert_eq!(found, [Some(1), Some(2), Some(15), Some(1)]);
        assert!(Huffman::new(&[3; 16], &[0; 48]).is_none());
    }
}

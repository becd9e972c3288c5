//! The bits of a scan.

/// Bits one after the other, up to the next marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Bits that are read and not used, the next one the highest.
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, held: 0, count: 0 }
    }

    /// The next 16 bits; zeros where there are none.
    pub(super) fn peek(&mut self) -> u32 {
        while self.count <= 48 {
            // A byte of ones is followed by one of zeros, unless it begins a marker.
            let (byte, bytes) = match self.data.get(self.at..) {
                Some([0xff, 0x00, ..]) => (0xff, 2),
                Some([byte, ..]) if *byte != 0xff => (*byte, 1),
                _ => break,
            };
            self.at += bytes;
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        (self.held >> 48) as u32
    }

    /// Takes away bits that were peeked at; `None` if there are not as many.
    pub(super) fn skip(&mut self, bits: u32) -> Option<()> {
        self.count = self.count.checked_sub(bits)?;
        self.held <<= bits;
        Some(())
    }

    /// A number of at most 16 bits; `None` if there are not as many.
    pub(super) fn take(&mut self, bits: u32) -> Option<i32> {
        if bits == 0 {
            return Some(0);
        }
        let value = self.peek() >> (16 - bits);
        self.skip(bits)?;
        Some(value as i32)
    }

    /// A signed number of so many bits: those that begin with 0 are negative. Source: T.81, F.2.2.1.
    pub(super) fn signed(&mut self, bits: u32) -> Option<i32> {
        let value = self.take(bits)?;
        Some(if bits > 0 && value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value })
    }

    /// Passes over the marker of a restart, which must follow; `None` otherwise.
    pub(super) fn restart(&mut self) -> Option<()> {
        // What is held are at most 7 bits that fill up a byte.
        (self.count < 8).then_some(())?;
        (self.held, self.count) = (0, 0);
        let rest = self.data.get(self.at..)?;
        let fill = rest.iter().take_while(|byte| **byte == 0xff).count();
        matches!(rest.get(fill), Some(0xd0..=0xd7) if fill > 0).then_some(())?;
        self.at += fill + 1;
        Some(())
    }

    /// Bytes up to the marker after the scan.
    pub(super) fn end(&self) -> usize {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_up_to_a_marker() {
        let mut bits = Bits::new(&[0b1010_0101, 0xff, 0x00, 0xff, 0xd3, 0b1000_0000, 0xff, 0xd9]);
        assert_eq!(bits.take(3), Some(5));
        assert_eq!(bits.signed(2), Some(-3));
        assert_eq!(bits.take(0), Some(0));
        assert_eq!(bits.take(11), Some(0b101_1111_1111));
        assert_eq!(bits.take(1), None);
        assert_eq!(bits.restart(), Some(()));
        assert_eq!(bits.signed(1), Some(1));
        assert_eq!(bits.restart(), None);
    }
}

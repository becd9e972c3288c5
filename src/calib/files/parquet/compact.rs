//! Thrift's compact protocol, as far as headers of pages need it.
//!
//! Source: thrift-compact-protocol.md of Apache Thrift.

/// Bytes of Thrift's compact protocol.
pub(super) struct Compact<'a>(pub(super) &'a [u8]);

/// Types of values, and most that lie within each other.
pub(super) const STRUCT: u8 = 12;
pub(super) const INTEGERS: [u8; 3] = [4, 5, 6];
pub(super) const DEEPEST: usize = 8;

impl Compact<'_> {
    /// The type of the next field of a struct, whose number follows `id`; `Some(None)` at its end.
    pub(super) fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *id = match byte >> 4 {
            0 => self.integer()?,
            more => id.checked_add(i64::from(more))?,
        };
        Some(Some(byte & 15))
    }

    pub(super) fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => self.take(8)?,
            8 => {
                let length = self.varint()?;
                self.take(usize::try_from(length).ok()?)?;
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                // True and false are a byte each in a list.
                let of = if matches!(byte & 15, 1 | 2) { 3 } else { byte & 15 };
                for _ in 0..count {
                    self.skip(of, depth)?;
                }
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    pub(super) fn count(&mut self) -> Option<u64> {
        u64::try_from(self.integer()?).ok()
    }

    pub(super) fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}

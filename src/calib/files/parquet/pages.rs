//! Whether the pages of a Parquet file can be as large as they say, before memory is taken for them.
//!
//! Source: `PageHeader` of parquet.thrift in apache/parquet-format, and the compact protocol of Apache Thrift.

use std::fs::File;
use std::io::Read;

use ::parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use ::parquet::file::reader::ChunkReader;

/// Most bytes of the header of a page.
const LONGEST_HEADER: u64 = 1 << 20;
/// Bytes of a header that are read at first.
const HEAD: u64 = 1 << 10;
/// Bytes that every page may have.
const ANY: u64 = 1 << 26;
/// Most bytes that a larger page may have for each of those that it is packed in: no compression of data does better.
const MOST_PACKED: u64 = 1 << 10;

/// What the header of a page says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    /// Bytes of the page as it is used.
    unpacked: u64,
    /// Its bytes in the file.
    packed: u64,
    /// Values, if it is a dictionary.
    dictionary: u64,
}

/// # Errors
/// When a page of these rows says that it is larger than it can be, or has no header.
pub(super) fn check(file: &File, group: &RowGroupMetaData) -> Result<(), String> {
    group.columns().iter().try_for_each(|column| {
        check_column(file, column).map_err(|wrong| format!("column `{}`: {wrong}", column.column_path().string()))
    })
}

fn check_column(file: &File, column: &ColumnChunkMetaData) -> Result<(), String> {
    let (mut at, length) = column.byte_range();
    let end = at.checked_add(length).ok_or("it ends behind the file")?;
    while at < end {
        let (page, header) = page_at(file, at, end)?;
        if page.unpacked > ANY.max(page.packed.saturating_mul(MOST_PACKED)) {
            return Err(format!("a page of {} bytes says that it unpacks to {}", page.packed, page.unpacked));
        }
        if page.dictionary > page.unpacked {
            return Err(format!("a dictionary of {} bytes says that it has {} values", page.unpacked, page.dictionary));
        }
        at = at.saturating_add(header).saturating_add(page.packed);
    }
    Ok(())
}

/// The page that begins at this place, and the bytes of its header.
fn page_at(file: &File, at: u64, end: u64) -> Result<(Page, u64), String> {
    let most = LONGEST_HEADER.min(end - at);
    let mut wanted = HEAD.min(most);
    loop {
        let mut bytes = Vec::new();
        let reader = file.get_read(at).map_err(|error| error.to_string())?;
        reader.take(wanted).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let mut compact = Compact(&bytes);
        if let Some(page) = compact.page() {
            return Ok((page, (bytes.len() - compact.0.len()) as u64));
        }
        if wanted == most || (bytes.len() as u64) < wanted {
            return Err("the header of a page is broken".to_owned());
        }
        wanted = most.min(16 * wanted);
    }
}

/// Bytes of Thrift's compact protocol.
struct Compact<'a>(&'a [u8]);

/// Types of values, and most that lie within each other.
const STRUCT: u8 = 12;
const INTEGERS: [u8; 3] = [4, 5, 6];
const DEEPEST: usize = 8;

impl Compact<'_> {
    fn page(&mut self) -> Option<Page> {
        let mut page = Page::default();
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, kind) if INTEGERS.contains(&kind) => page.unpacked = self.count()?,
                (3, kind) if INTEGERS.contains(&kind) => page.packed = self.count()?,
                (7, STRUCT) => page.dictionary = self.first_count()?,
                _ => self.skip(kind, DEEPEST)?,
            }
        }
        Some(page)
    }

    /// The number that is field 1 of a struct.
    fn first_count(&mut self) -> Option<u64> {
        let (mut id, mut count) = (0, 0);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1, kind) if INTEGERS.contains(&kind) => count = self.count()?,
                _ => self.skip(kind, DEEPEST)?,
            }
        }
        Some(count)
    }

    /// The type of the next field of a struct, whose number follows `id`; `Some(None)` at its end.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
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

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
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

    fn count(&mut self) -> Option<u64> {
        u64::try_from(self.integer()?).ok()
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn varint(&mut self) -> Option<u64> {
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

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 is 2, fields 2 and 3 are sizes, field 7 is a struct with 3 values and an encoding.
    const DICTIONARY: [u8; 14] = [0x15, 4, 0x15, 0x80, 0x01, 0x15, 40, 0x4c, 0x15, 6, 0x15, 0, 0, 0];

    #[test]
    fn headers_of_pages() {
        let mut compact = Compact(&DICTIONARY);
        assert_eq!(compact.page(), Some(Page { unpacked: 64, packed: 20, dictionary: 3 }));
        assert!(compact.0.is_empty());
        assert!((0..DICTIONARY.len()).all(|end| Compact(&DICTIONARY[..end]).page().is_none()));
    }

    #[test]
    fn values_of_every_type_are_skipped() {
        let others = [
            &[0x11, 0x12, 0x13, 9, 0x16, 2, 0x17, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x18, 2, b'a', b'b', 0x19, 0x21, 1, 2, 0x1a, 0xf5, 1, 4, 0x1c, 0x15, 2, 0, 0],
        ]
        .concat();
        let mut compact = Compact(&others);
        compact.skip(STRUCT, DEEPEST).unwrap();
        assert!(compact.0.is_empty());
        assert_eq!(Compact(&[0x1c; 64]).page(), None);
        assert_eq!(Compact(&[0x1b, 0]).page(), None);
        assert_eq!(Compact(&[0x25, 1, 0]).page(), None, "sizes are not negative");
    }
}

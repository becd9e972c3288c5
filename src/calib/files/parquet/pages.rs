//! Whether the pages of a Parquet file can be as large as they say, before memory is taken for them.
//!
//! Source: `PageHeader` of parquet.thrift in apache/parquet-format, and the compact protocol of Apache Thrift.

use std::fs::File;
use std::io::Read;

use super::compact::{Compact, DEEPEST, INTEGERS, STRUCT};
use super::delta;

use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::{ChunkReader, RowGroupReader};

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
    /// The encoding of its values, if these are data.
    encoding: u64,
}

/// # Errors
/// When a page of these rows says that it is larger than it can be, or has no header.
pub(super) fn check(file: &File, group: &dyn RowGroupReader) -> Result<(), String> {
    group.metadata().columns().iter().enumerate().try_for_each(|(at, column)| {
        let checked = check_column(file, column).and_then(|lists| if lists { delta::check(group, at) } else { Ok(()) });
        checked.map_err(|wrong| format!("column `{}`: {wrong}", column.column_path().string()))
    })
}

/// Whether the column has pages that begin with lists of lengths.
fn check_column(file: &File, column: &ColumnChunkMetaData) -> Result<bool, String> {
    let mut lists = false;
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
        lists |= delta::lists(page.encoding) > 0;
        at = at.saturating_add(header).saturating_add(page.packed);
    }
    Ok(lists)
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
        if let Some(page) = Page::read(&mut compact) {
            return Ok((page, (bytes.len() - compact.0.len()) as u64));
        }
        if wanted == most || (bytes.len() as u64) < wanted {
            return Err("the header of a page is broken".to_owned());
        }
        wanted = most.min(16 * wanted);
    }
}

impl Page {
    /// What a header says.
    fn read(bytes: &mut Compact<'_>) -> Option<Self> {
        let mut page = Self::default();
        let mut id = 0;
        while let Some(kind) = bytes.field(&mut id)? {
            match (id, kind) {
                (2, kind) if INTEGERS.contains(&kind) => page.unpacked = bytes.count()?,
                (3, kind) if INTEGERS.contains(&kind) => page.packed = bytes.count()?,
                // Headers of data, of a dictionary, and of data of version 2.
                (5, STRUCT) => page.encoding = number(bytes, 2)?,
                (7, STRUCT) => page.dictionary = number(bytes, 1)?,
                (8, STRUCT) => page.encoding = number(bytes, 4)?,
                _ => bytes.skip(kind, DEEPEST)?,
            }
        }
        Some(page)
    }
}

/// The number that is this field of a struct.
fn number(bytes: &mut Compact<'_>, wanted: i64) -> Option<u64> {
    let (mut id, mut number) = (0, 0);
    while let Some(kind) = bytes.field(&mut id)? {
        if id == wanted && INTEGERS.contains(&kind) {
            number = bytes.count()?;
        } else {
            bytes.skip(kind, DEEPEST)?;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 is 2, fields 2 and 3 are sizes, field 7 is a struct with 3 values and an encoding.
    const DICTIONARY: [u8; 14] = [0x15, 4, 0x15, 0x80, 0x01, 0x15, 40, 0x4c, 0x15, 6, 0x15, 0, 0, 0];

    #[test]
    fn headers_of_pages() {
        let mut compact = Compact(&DICTIONARY);
        assert_eq!(Page::read(&mut compact), Some(Page { unpacked: 64, packed: 20, dictionary: 3, encoding: 0 }));
        assert!(compact.0.is_empty());
        assert!((0..DICTIONARY.len()).all(|end| Page::read(&mut Compact(&DICTIONARY[..end])).is_none()));
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
        assert_eq!(Page::read(&mut Compact(&[0x1c; 64])), None);
        assert_eq!(Page::read(&mut Compact(&[0x1b, 0])), None);
        assert_eq!(Page::read(&mut Compact(&[0x25, 1, 0])), None, "sizes are not negative");
    }
}

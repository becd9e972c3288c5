//! Whether pages in delta encodings hold as many values as they say, before memory is taken for them.
//!
//! Source: Encodings.md in apache/parquet-format, "Delta Encoding", "Delta-length byte array" and "Delta Strings".

use ::parquet::basic::Encoding;
use ::parquet::column::page::Page;
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::RowGroupReader;

use super::compact::Compact;

/// Most lengths of a page: 64 MiB.
const MOST: u64 = 1 << 24;

/// The lengths that begin a page of this encoding: those of values, or of the parts of values that are those of the value
/// before, and then of the rest of them.
pub(super) fn lists(encoding: u64) -> usize {
    match encoding {
        6 => 1,
        7 => 2,
        _ => 0,
    }
}

/// # Errors
/// When a page of column `at` says that it has more values than it can have.
pub(super) fn check(group: &dyn RowGroupReader, at: usize) -> Result<(), String> {
    let mut pages = group.get_column_page_reader(at).map_err(|error| error.to_string())?;
    while let Some(page) = pages.get_next_page().map_err(|error| error.to_string())? {
        let lists = match page.encoding() {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => lists(6),
            Encoding::DELTA_BYTE_ARRAY => lists(7),
            _ => continue,
        };
        let values = after_levels(&page, group.metadata().column(at)).ok_or("the levels of a page are broken")?;
        let mut rest = Compact(values);
        for _ in 0..lists {
            let most = MOST.min(u64::from(page.num_values()));
            let count = skip(&mut rest).ok_or("the lengths of a page are broken")?;
            if count > most {
                return Err(format!("a page of {} values says that it has {count} lengths", page.num_values()));
            }
        }
    }
    Ok(())
}

/// What follows the levels of repetition and definition in a page.
fn after_levels<'p>(page: &'p Page, column: &ColumnChunkMetaData) -> Option<&'p [u8]> {
    let bytes: &[u8] = page.buffer();
    if let Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } = page {
        return bytes.get((*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize)?..);
    }
    let Page::DataPage { num_values, def_level_encoding, rep_level_encoding, .. } = page else { return Some(bytes) };
    let column = column.column_descr();
    let levels = [(column.max_rep_level(), rep_level_encoding), (column.max_def_level(), def_level_encoding)];
    levels.into_iter().filter(|(most, _)| *most > 0).try_fold(bytes, |bytes, (most, encoding)| {
        if *encoding == Encoding::RLE {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            return rest.get(u32::from_le_bytes(*length) as usize..);
        }
        let width = u64::from(i16::BITS - most.leading_zeros());
        bytes.get((width * u64::from(*num_values)).div_ceil(8) as usize..)
    })
}

/// Skips packed deltas, and returns how many numbers they say that they are.
fn skip(bytes: &mut Compact<'_>) -> Option<u64> {
    let (block, parts, count) = (bytes.varint()?, bytes.varint()?, bytes.varint()?);
    bytes.varint()?;
    let of_part = block.checked_div(parts)?;
    let mut left = count.saturating_sub(1);
    while left > 0 && count <= MOST {
        bytes.varint()?;
        let widths = bytes.0.get(..usize::try_from(parts).ok()?)?;
        bytes.take(widths.len())?;
        for width in widths {
            // Parts without values have no bytes, whatever their width is.
            if left > 0 {
                bytes.take(usize::try_from(of_part.checked_mul(u64::from(*width))?.div_ceil(8)).ok()?)?;
                left = left.saturating_sub(of_part.max(1));
            }
        }
        if widths.is_empty() {
            return None;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_are_skipped() {
        // Blocks of 128 in 4 parts; 6 numbers from 3 on, with deltas in 2 bits.
        let lengths = [128, 1, 4, 6, 6, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 99];
        let mut bytes = Compact(&lengths);
        assert_eq!((skip(&mut bytes), bytes.0), (Some(6), &[99][..]));
        assert!((0..lengths.len() - 1).all(|end| skip(&mut Compact(&lengths[..end])).is_none()));
        // A count that no page has is found before its numbers are looked for.
        assert_eq!(skip(&mut Compact(&[128, 1, 4, 255, 255, 255, 255, 15, 6])), Some(u64::from(u32::MAX)));
        assert_eq!(skip(&mut Compact(&[128, 1, 0, 6, 6])), None);
    }
}

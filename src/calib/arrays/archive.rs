//! The arrays in a ZIP archive, as NumPy's `savez` writes them: stored or deflated.
//!
//! Source: APPNOTE.TXT of PKWARE, sections 4.3 and 4.5.3.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use flate2::CrcWriter;
use flate2::read::DeflateDecoder;

use super::array::{Array, Bytes};

/// Bytes of the record at the end, of that of large archives and its place, and of a header in front of a file.
const END: u64 = 22;
const END_64: u64 = 56;
const LOCATOR: u64 = 20;
const LOCAL: u64 = 30;
/// Stands for a size that does not fit into 32 bits.
const WIDE: u64 = u32::MAX as u64;
/// Most bytes after the record at the end.
const COMMENT: u64 = 1 << 16;
/// Most bytes of the directory.
const DIRECTORY: u64 = 1 << 24;
/// Most bytes of an array that is unpacked to memory; larger ones go to a temporary file.
const IN_MEMORY: u64 = 1 << 24;
/// Most bytes of compressed arrays.
const MOST_UNPACKED: u64 = 1 << 36;

/// A file of the archive.
struct Entry {
    name: String,
    encrypted: bool,
    method: u64,
    crc: u64,
    packed: u64,
    length: u64,
    /// Where its header begins.
    at: u64,
}

/// The arrays of an archive of `length` bytes, by their names.
///
/// # Errors
/// When it is broken, or holds something else.
pub(super) fn arrays(file: File, length: u64) -> Result<Vec<Array>, String> {
    let file = Bytes::In(Arc::new(file), 0);
    let broken = |error: io::Error| format!("the archive is broken: {error}");
    let mut left = MOST_UNPACKED;
    let mut arrays = Vec::new();
    for entry in entries(&directory(&file, length).map_err(broken)?).ok_or("the directory of the archive is broken")? {
        let Some(name) = entry.name.strip_suffix(".npy") else {
            return Err(format!("it holds `{}`, which is no array", entry.name));
        };
        if entry.encrypted {
            return Err(format!("`{name}` is encrypted"));
        }
        let wrong = |wrong: String| format!("`{name}`: {wrong}");
        let start = entry.start(&file).map_err(|error| wrong(error.to_string()))?;
        let bytes = match entry.method {
            0 if start.checked_add(entry.length).is_some_and(|end| end <= length) => file.from(start),
            8 => {
                left = left.checked_sub(entry.length).ok_or("its arrays have more than 64 GiB")?;
                entry.unpacked(&file.from(start)).map_err(|error| wrong(error.to_string()))?
            }
            0 => return Err(wrong("it is cut off".to_owned())),
            method => return Err(wrong(format!("it is compressed with method {method}"))),
        };
        arrays.push(Array::of_numpy(name.to_owned(), bytes, entry.length).map_err(wrong)?);
    }
    Ok(arrays)
}

/// A little-endian integer of so many bytes.
fn integer(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(count)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The bytes of the directory.
fn directory(file: &Bytes, length: u64) -> io::Result<Vec<u8>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let from = length.saturating_sub(COMMENT + END);
    let tail = file.read(from, length - from)?;
    let end = tail.windows(4).rposition(|four| four == b"PK\x05\x06").ok_or_else(wrong)?;
    let of_end = |at: usize| integer(&tail, end + at, 4).ok_or_else(wrong);
    let (mut size, mut start) = (of_end(12)?, of_end(16)?);
    if (size == WIDE || start == WIDE) && from + end as u64 >= LOCATOR {
        let locator = file.read(from + end as u64 - LOCATOR, LOCATOR)?;
        let large = integer(&locator, 8, 8).filter(|_| locator.starts_with(b"PK\x06\x07")).ok_or_else(wrong)?;
        let large = file.read(large, END_64)?;
        size = integer(&large, 40, 8).filter(|_| large.starts_with(b"PK\x06\x06")).ok_or_else(wrong)?;
        start = integer(&large, 48, 8).ok_or_else(wrong)?;
    }
    if size > DIRECTORY { Err(wrong()) } else { file.read(start, size) }
}

/// The files in a directory.
fn entries(directory: &[u8]) -> Option<Vec<Entry>> {
    let (mut rest, mut entries) = (directory, Vec::new());
    while !rest.is_empty() {
        let of = |at: usize, count: usize| integer(rest, at, count);
        let [name, extra, comment] = [of(28, 2)?, of(30, 2)?, of(32, 2)?].map(|length| length as usize);
        let text = rest.get(46..46 + name).filter(|_| rest.starts_with(b"PK\x01\x02"))?;
        let mut entry = Entry {
            name: String::from_utf8_lossy(text).into_owned(),
            encrypted: of(8, 2)? & 1 == 1,
            method: of(10, 2)?,
            crc: of(16, 4)?,
            packed: of(20, 4)?,
            length: of(24, 4)?,
            at: of(42, 4)?,
        };
        entry.widen(rest.get(46 + name..46 + name + extra)?)?;
        entries.push(entry);
        rest = rest.get(46 + name + extra + comment..)?;
    }
    Some(entries)
}

impl Entry {
    /// Takes the sizes that do not fit into 32 bits from the extra fields.
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        while extra.len() >= 4 {
            let (id, size) = (integer(extra, 0, 2)?, integer(extra, 2, 2)? as usize);
            let field = extra.get(4..4 + size)?;
            if id == 1 {
                let wide = [&mut self.length, &mut self.packed, &mut self.at].into_iter();
                for (at, value) in wide.filter(|value| **value == WIDE).enumerate() {
                    *value = integer(field, 8 * at, 8)?;
                }
            }
            extra = &extra[4 + size..];
        }
        Some(())
    }

    /// Where its bytes begin.
    fn start(&self, file: &Bytes) -> io::Result<u64> {
        let header = file.read(self.at, LOCAL)?;
        let lengths =
            integer(&header, 26, 2).zip(integer(&header, 28, 2)).filter(|_| header.starts_with(b"PK\x03\x04"));
        lengths.map(|(name, extra)| self.at + LOCAL + name + extra).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// The bytes of the compressed file that begins here, which must be as many as the directory says.
    fn unpacked(&self, from: &Bytes) -> io::Result<Bytes> {
        let mut packed = DeflateDecoder::new(from.reader(self.packed)).take(self.length + 1);
        let (bytes, read, crc) = if self.length <= IN_MEMORY {
            let mut to = CrcWriter::new(Vec::new());
            let read = io::copy(&mut packed, &mut to)?;
            let crc = to.crc().sum();
            (Bytes::Here(to.into_inner().into()), read, crc)
        } else {
            let mut to = CrcWriter::new(tempfile::tempfile()?);
            let read = io::copy(&mut packed, &mut to)?;
            to.flush()?;
            let crc = to.crc().sum();
            (Bytes::In(Arc::new(to.into_inner()), 0), read, crc)
        };
        if read == self.length && u64::from(crc) == self.crc {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

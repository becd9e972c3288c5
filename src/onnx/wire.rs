//! One bounded pass over the bytes of an ONNX file, before any protobuf parsing.
//!
//! The pass copies the file without the contents of its large tensors, which become references into the file. It steps
//! over those contents without reading them, so time and memory depend on the size of the rest only. It also bounds
//! nesting and the memory that the messages take when they are decoded, and refuses groups: the protobuf runtime 3.4.0 skips nested groups recursively without bound
//! (RUSTSEC-2024-0437). That part can go with a runtime of 3.7.2 or later.

use super::Error;
use super::schema::Kind;
use std::cell::Cell;

/// Tensors with more bytes than this are moved out of the skeleton.
pub(crate) const LARGE: usize = 1024;

/// Messages may nest this deep; the protobuf runtime stops at 100.
const MAX_DEPTH: usize = 90;

/// Decoded messages may take this much memory, and as many times the bytes of the skeleton as [`GROWTH`] says; an empty
/// node has 2 bytes in the file and 150 times as many in memory.
const MEMORY: usize = 64 << 20;
const GROWTH: usize = 16;

/// Returns the model without the contents of its large tensors.
///
/// A large tensor is external in the result: its location is `own_name`, its offset and length are those of its
/// contents in `file`. Everything else, unknown fields included, is copied as it is.
pub(crate) fn skeleton(file: &[u8], own_name: &str) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let pass = Pass { file, own_name, decoded: Cell::new(0) };
    pass.message(Kind::Model, 0..file.len(), 0, &mut out)?;
    Ok(out)
}

struct Pass<'a> {
    file: &'a [u8],
    own_name: &'a str,
    /// Memory that the messages so far take when they are decoded.
    decoded: Cell<usize>,
}

/// One field: where its tag starts, its number, and its value without the length prefix.
struct Field {
    start: usize,
    number: u32,
    wire: u8,
    value: std::ops::Range<usize>,
}

impl Pass<'_> {
    fn message(&self, kind: Kind, range: std::ops::Range<usize>, depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(malformed(range.start, kind, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let decoded = self.decoded.get().saturating_add(kind.memory());
        self.decoded.set(decoded);
        if decoded > MEMORY.saturating_add(out.len().saturating_mul(GROWTH)) {
            let reason = format!("so many empty messages that they take over {} MB of memory", decoded >> 20);
            return Err(malformed(range.start, kind, reason));
        }
        if kind == Kind::Tensor
            && let Some(data) = self.large_data(range.clone())?
        {
            return self.moved_tensor(range, &data, out);
        }
        let mut at = range.start;
        let mut copied = range.start;
        while let Some(field) = self.field(kind, at, range.end)? {
            at = field.value.end;
            let Some(child) = kind.child(field.number).filter(|_| field.wire == LENGTH) else {
                continue;
            };
            let tag_end = varint_end(self.file, field.start);
            out.extend_from_slice(&self.file[copied..tag_end]);
            let start = out.len();
            self.message(child, field.value.clone(), depth + 1, out)?;
            let length = encoded((out.len() - start) as u64);
            out.splice(start..start, length);
            copied = field.value.end;
        }
        out.extend_from_slice(&self.file[copied..range.end]);
        Ok(())
    }

    /// The field of a tensor that holds its contents, if they are large and can be read in place.
    fn large_data(&self, range: std::ops::Range<usize>) -> Result<Option<Field>, Error> {
        let mut found = None;
        let mut several = false;
        let mut external = false;
        let mut data_type = 0;
        let mut at = range.start;
        while let Some(field) = self.field(Kind::Tensor, at, range.end)? {
            at = field.value.end;
            match (field.number, field.wire) {
                (DATA_TYPE, VARINT) => data_type = self.value(&field),
                (EXTERNAL_DATA, LENGTH) => external = true,
                (DATA_LOCATION, VARINT) => external |= self.value(&field) != 0,
                (RAW_DATA | FLOAT_DATA | DOUBLE_DATA, _) => {
                    several |= found.is_some();
                    found = Some(field);
                }
                _ => {}
            }
        }
        Ok(found.filter(|field| {
            let in_place = match field.number {
                FLOAT_DATA => [FLOAT, COMPLEX64].contains(&data_type),
                DOUBLE_DATA => [DOUBLE, COMPLEX128].contains(&data_type),
                _ => true,
            };
            in_place && field.wire == LENGTH && field.value.len() > LARGE && !several && !external
        }))
    }

    fn moved_tensor(&self, range: std::ops::Range<usize>, data: &Field, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.file[range.start..data.start]);
        out.extend_from_slice(&self.file[data.value.end..range.end]);
        let entries = [
            ("location", self.own_name.to_owned()),
            ("offset", data.value.start.to_string()),
            ("length", data.value.len().to_string()),
        ];
        for (key, value) in entries {
            let entry = [delimited(1, key.as_bytes()), delimited(2, value.as_bytes())].concat();
            out.extend(delimited(EXTERNAL_DATA, &entry));
        }
        out.extend([(DATA_LOCATION << 3) as u8, 1]);
        Ok(())
    }

    fn value(&self, field: &Field) -> u64 {
        varint(self.file, field.value.start, field.value.end).map_or(0, |(value, _)| value)
    }

    /// The field that starts at `at`, or `None` at the end of the message.
    fn field(&self, kind: Kind, at: usize, end: usize) -> Result<Option<Field>, Error> {
        if at == end {
            return Ok(None);
        }
        let bad = |offset, reason: &str| malformed(offset, kind, reason.to_owned());
        let (tag, value) =
            varint(self.file, at, end).ok_or_else(|| bad(at, "a field's tag is cut short or too long"))?;
        let number = u32::try_from(tag >> 3).unwrap_or(u32::MAX);
        if number == 0 || number > MAX_FIELD {
            return Err(bad(at, "not a field number"));
        }
        let wire = (tag & 7) as u8;
        let value = match wire {
            VARINT => {
                let (_, next) =
                    varint(self.file, value, end).ok_or_else(|| bad(value, "a number is cut short or too long"))?;
                value..next
            }
            FIXED64 => value..value.saturating_add(8),
            FIXED32 => value..value.saturating_add(4),
            LENGTH => {
                let (length, start) =
                    varint(self.file, value, end).ok_or_else(|| bad(value, "a length is cut short or too long"))?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                start..start.saturating_add(length)
            }
            3 | 4 => return Err(bad(at, "a protobuf group, which ONNX does not have")),
            _ => return Err(bad(at, "not a wire type")),
        };
        if value.end > end {
            let reason = format!("field {number} needs {} bytes, {} are left", value.len(), end - value.start.min(end));
            return Err(malformed(at, kind, reason));
        }
        Ok(Some(Field { start: at, number, wire, value }))
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;
const MAX_FIELD: u32 = (1 << 29) - 1;

// Field numbers and element types of TensorProto.
const DATA_TYPE: u32 = 2;
const FLOAT_DATA: u32 = 4;
const RAW_DATA: u32 = 9;
const DOUBLE_DATA: u32 = 10;
const EXTERNAL_DATA: u32 = 13;
const DATA_LOCATION: u32 = 14;
const FLOAT: u64 = 1;
const DOUBLE: u64 = 11;
const COMPLEX64: u64 = 14;
const COMPLEX128: u64 = 15;

fn malformed(offset: usize, kind: Kind, reason: String) -> Error {
    Error::Malformed { offset, reading: kind.name(), reason }
}

/// The number at `at` and the position after it; `None` if it does not end before `end` or is longer than ten bytes.
fn varint(bytes: &[u8], at: usize, end: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.get(at..end)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

fn varint_end(bytes: &[u8], at: usize) -> usize {
    varint(bytes, at, bytes.len()).map_or(at, |(_, next)| next)
}

fn encoded(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn delimited(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = encoded(u64::from(number) << 3 | u64::from(LENGTH));
    out.extend(encoded(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

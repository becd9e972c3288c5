//! Copies of data files without the weights that an edited model no longer reads.

use super::error::Error;
use crate::onnx::Model;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Large weights start at a page, so that they can be mapped.
const PAGE: u64 = 4096;
/// Weights below a page are aligned to this.
const SMALL: u64 = 64;

/// The parts of a data file that stay, and where they begin in its copy.
pub(super) struct Packed {
    /// First byte, length, and first byte in the copy, in order and without overlap.
    parts: Vec<(u64, u64, u64)>,
}

impl Packed {
    /// The data files, by their real paths, of which `edited` reads less than `original`, the model it was made from.
    pub(super) fn plan(original: &Model, edited: &Model) -> Result<BTreeMap<PathBuf, Packed>, Error> {
        let (before, mut after) = (ranges(original)?, ranges(edited)?);
        let shrunk = before.into_iter().filter_map(|(path, before)| {
            let after = after.remove(&path).unwrap_or_default();
            (after != before).then(|| (path, Packed::new(&after)))
        });
        Ok(shrunk.collect())
    }

    fn new(ranges: &Ranges) -> Self {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for &(start, length) in ranges {
            match parts.last_mut() {
                Some((first, held)) if start < *first + *held => *held = (*held).max(start + length - *first),
                _ => parts.push((start, length)),
            }
        }
        let mut at: u64 = 0;
        let placed = parts.into_iter().map(|(start, length)| {
            let to = at.next_multiple_of(if length < PAGE { SMALL } else { PAGE });
            at = to + length;
            (start, length, to)
        });
        Self { parts: placed.collect() }
    }

    /// Where the byte at `offset` is in the copy.
    pub(super) fn offset(&self, offset: u64) -> u64 {
        let part = self.parts.iter().rev().find(|(start, ..)| *start <= offset);
        part.map_or(0, |(start, _, to)| to + (offset - start))
    }

    /// Bytes of the copy.
    pub(super) fn len(&self) -> u64 {
        self.parts.last().map_or(0, |(_, length, to)| to + length)
    }

    /// Writes the copy of a file with these bytes.
    pub(super) fn write(&self, bytes: &[u8], file: File) -> io::Result<()> {
        let mut out = BufWriter::new(file);
        let mut at = 0;
        for &(start, length, to) in &self.parts {
            out.write_all(&vec![0; (to - at) as usize])?;
            let part = bytes.get(start as usize..(start + length) as usize);
            out.write_all(part.ok_or(io::ErrorKind::UnexpectedEof)?)?;
            at = to + length;
        }
        out.flush()?;
        out.get_ref().sync_all()
    }
}

/// First bytes and lengths.
type Ranges = BTreeSet<(u64, u64)>;

/// First byte and length of all that a model reads, by the real path of the file.
fn ranges(model: &Model) -> Result<BTreeMap<PathBuf, Ranges>, Error> {
    let mut files: BTreeMap<PathBuf, Ranges> = BTreeMap::new();
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    let visited = model.visit_places(&mut |place| {
        let path = paths.entry(place.location.to_owned()).or_insert_with(|| real(&model.dir().join(place.location)));
        files.entry(path.clone()).or_default().insert((place.offset, place.length));
    });
    visited.map_err(|source| Error::Graph { source })?;
    Ok(files)
}

/// The path with all links resolved, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Packed;
    use std::collections::BTreeSet;

    #[test]
    fn parts_are_aligned_and_overlaps_stay_together() {
        let ranges = BTreeSet::from([(100, 8), (200, 5000), (5000, 400), (9000, 4096), (20_000, 1)]);
        let packed = Packed::new(&ranges);
        assert_eq!(packed.parts, [(100, 8, 0), (200, 5200, 4096), (9000, 4096, 12_288), (20_000, 1, 16_384)]);
        assert_eq!([100, 107, 200, 5000, 9000, 20_000].map(|at| packed.offset(at)), [0, 7, 4096, 8896, 12_288, 16_384]);
        assert_eq!(packed.len(), 16_385);
        assert_eq!(Packed::new(&BTreeSet::new()).len(), 0);
    }
}

//! What tells whether two files hold the same model.

use super::{Error, Model};
use crate::fingerprint::Fingerprint;

/// Longest tensor that is read whole.
const WHOLE: usize = 1 << 16;
/// Bytes that are read of a longer one, at its start, in its middle and at its end.
const SAMPLE: usize = 1 << 12;

impl Model {
    /// SHA-256 of the graph, of small tensors, and of the lengths and samples of large ones, whatever their files are
    /// called, in hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Decode`] when the graph cannot be written.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let mut hash = Fingerprint::new();
        hash.bytes(&self.to_bytes_elsewhere(&mut |_| (String::new(), 0))?);
        self.visit_places(&mut |place| {
            let file = self.file_bytes(place.location).unwrap_or_default();
            let (start, length) = (place.offset as usize, place.length as usize);
            let bytes = file.get(start..start.saturating_add(length)).unwrap_or_default();
            hash.bytes(&(length as u64).to_le_bytes());
            if length <= WHOLE {
                return hash.bytes(bytes);
            }
            for at in [0, length / 2, length - SAMPLE] {
                hash.bytes(bytes.get(at..at + SAMPLE).unwrap_or_default());
            }
        })?;
        Ok(hash.text())
    }
}

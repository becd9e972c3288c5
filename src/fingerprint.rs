//! What tells whether two runs read the same files.

use crate::regular;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// SHA-256 of several things, one after the other.
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds bytes, and how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds all bytes of a file, and how many they are.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&mut self, path: &Path) -> io::Result<()> {
        let (mut file, mut piece, mut length) = (regular::open(path)?, vec![0; PIECE], 0);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => {
                    self.0.update(&piece[..read]);
                    length += read as u64;
                }
            }
        }
        self.0.update(length.to_le_bytes());
        Ok(())
    }

    /// The hash in hexadecimal digits.
    pub fn text(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self::new()
    }
}

/// That of the files which exist among these, in their order, and of which of them do.
///
/// # Errors
/// When one that exists cannot be read.
pub fn of_files<'p>(paths: impl IntoIterator<Item = &'p Path>) -> io::Result<String> {
    let mut hash = Fingerprint::new();
    for path in paths {
        let there = path.is_file();
        hash.bytes(&[u8::from(there)]);
        if there {
            hash.file(path)?;
        }
    }
    Ok(hash.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_count_by_content_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, text) in [("a", "one"), ("b", "two"), ("same", "one"), ("ab", "onetwo"), ("none", "")] {
            fs::write(path(name), text).unwrap();
        }
        let of = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
            of_files(paths.iter().map(|path| path.as_path())).unwrap()
        };
        assert_eq!(of(&["a", "b"]), of(&["same", "b"]));
        let others = [of(&["b", "a"]), of(&["ab"]), of(&["ab", "none"]), of(&["a"]), of(&["a", "missing", "b"])];
        assert!(others.iter().all(|other| *other != of(&["a", "b"])));
        assert_eq!(of(&["a"]).len(), 64);
    }
}

//! The committed exports, whose graphs are packed.

use crate::support::eva;
use std::path::PathBuf;

pub fn root() -> PathBuf {
    eva::root().join("graphs/exports")
}

/// A copy of a folder with the graphs unpacked.
pub fn unpacked(folder: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        match name.strip_suffix(".gz") {
            Some(name) => {
                let mut file = std::fs::File::create(dir.path().join(name)).unwrap();
                std::io::copy(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut file).unwrap();
            }
            None => std::fs::write(dir.path().join(name), bytes).unwrap(),
        }
    }
    dir
}

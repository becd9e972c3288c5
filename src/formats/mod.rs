//! File formats of adapters, one module a format: its reader, its writer, and the constants that both use.

mod error;
pub mod manifest;
pub mod onnx_adapter;
pub mod ort_checkpoint;
pub mod peft;
pub mod spliced;

pub use error::Error;

use crate::splice::Record;
use flatbuffers::VerifierOptions;
use std::path::Path;

/// The record in the `manifest.json` beside the file `path`, or in the folder above.
fn recorded(path: &Path) -> Result<Option<Record>, Error> {
    let folders = path.ancestors().skip(1).take(2);
    let Some((path, text)) = folders.map(|folder| folder.join(manifest::MANIFEST)).find_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        Some((path, text))
    }) else {
        return Ok(None);
    };
    let manifest: serde_json::Value = parse(&path, &text)?;
    parse(&path, &manifest["adapter"].to_string()).map(Some)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// What a flatbuffer may be: of any size.
fn limits() -> VerifierOptions {
    VerifierOptions { max_apparent_size: usize::MAX, ..Default::default() }
}

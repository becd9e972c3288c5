//! Checksums of what a training reads, which tell whether it is what it was.

use super::error::Error;
use crate::calib::{Batch, Calibration, Tokens};
use crate::onnx::Model;
use crate::tensor::{Tensor, with_array};
use flate2::Crc;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of a large file that are read in one place.
const BLOCK: u64 = 1 << 20;
/// Places of a large file that are read, evenly from its beginning to its end.
const BLOCKS: u64 = 64;

/// The checksum of a model: its file and those of its weights, of which large ones are read in parts.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn of_model(model: &Model) -> Result<String, Error> {
    let files = model.data_files().map(|name| model.dir().join(name));
    let mut files: Vec<_> = std::iter::once(model.path().to_owned()).chain(files).collect();
    files[1..].sort();
    let mut crc = Crc::new();
    for path in files {
        add_file(&mut crc, &path).map_err(|source| Error::Read { path, source })?;
    }
    Ok(text(&crc))
}

fn add_file(crc: &mut Crc, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    crc.update(&length.to_le_bytes());
    let mut block = Vec::new();
    if length <= BLOCK * BLOCKS {
        while file.by_ref().take(BLOCK).read_to_end(&mut block)? > 0 {
            crc.update(&block);
            block.clear();
        }
        return Ok(());
    }
    for index in 0..BLOCKS {
        file.seek(SeekFrom::Start((length - BLOCK) / (BLOCKS - 1) * index))?;
        file.by_ref().take(BLOCK).read_to_end(&mut block)?;
        crc.update(&block);
        block.clear();
    }
    Ok(())
}

/// The checksum of rows in their batches.
pub(crate) fn of_rows(rows: &Calibration) -> String {
    let mut crc = Crc::new();
    for batch in rows.batches() {
        let Batch { tokens, encoder, tensors, keep, stripped: _, varied: _ } = batch;
        add_tokens(&mut crc, &tokens);
        if let Some(encoder) = encoder {
            add_tokens(&mut crc, &encoder);
        }
        for named in tensors {
            add_tensor(&mut crc, &named.name, &named.tensor);
        }
        add_flags(&mut crc, keep.iter());
    }
    text(&crc)
}

fn add_tokens(crc: &mut Crc, tokens: &Tokens) {
    for (name, tensor) in &tokens.inputs {
        add_tensor(crc, name, tensor);
    }
    add_flags(crc, tokens.attended.iter());
}

fn add_tensor(crc: &mut Crc, name: &str, tensor: &Tensor) {
    crc.update(name.as_bytes());
    tensor.shape().iter().for_each(|size| crc.update(&size.to_le_bytes()));
    // Their shortest decimal forms differ where the values do.
    with_array!(tensor, array => array.iter().for_each(|value| crc.update(format!("{value:?} ").as_bytes())));
}

fn add_flags<'f>(crc: &mut Crc, flags: impl Iterator<Item = &'f bool>) {
    let flags: Vec<u8> = flags.map(|flag| u8::from(*flag)).collect();
    crc.update(&flags);
}

/// The checksum of a vector and the names and shapes of its parts.
pub(crate) fn of_vector(parts: &str, vector: &[f32]) -> String {
    let mut crc = Crc::new();
    crc.update(parts.as_bytes());
    vector.iter().for_each(|value| crc.update(&value.to_le_bytes()));
    text(&crc)
}

fn text(crc: &Crc) -> String {
    format!("{:08x} of {} bytes", crc.sum(), crc.amount())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_change_at_either_end_of_a_large_file_is_seen() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let length = BLOCK * BLOCKS + 5;
        file.as_file().set_len(length).unwrap();
        let sum = |file: &tempfile::NamedTempFile| {
            let mut crc = Crc::new();
            add_file(&mut crc, file.path()).unwrap();
            text(&crc)
        };
        let before = sum(&file);
        assert_eq!(before, sum(&file));
        for at in [0, length - 6] {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[1; 6]).unwrap();
            let after = sum(&file);
            assert_ne!(before, after, "at {at}");
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[0; 6]).unwrap();
        }
    }
}

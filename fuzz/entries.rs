//! What is done with the bytes of a file, one function a kind of file; none may panic, whatever the bytes are.
//!
//! The fuzz targets call them, and the tests of the project with the seeds.

use eva_onnx::calib::{DataFiles, RowSource};
use eva_onnx::checkpoint::Checkpoint;
use eva_onnx::formats::{onnx_adapter, peft};
use eva_onnx::linear::find;
use eva_onnx::media::{Channels, PictureProcessor, Rgb, SettingsFile, SoundProcessor, picture, sound};
use eva_onnx::merge;
use eva_onnx::onnx::{Model, Patch};
use eva_onnx::options::MergeOptions;
use std::path::Path;

/// Calls `read` with a folder that has the bytes in the file `name`.
fn in_folder(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join(name), bytes).expect("a file");
    read(dir.path());
}

/// A model: its layers, and the edits that every command makes.
pub fn model(bytes: &[u8]) {
    in_folder("model.onnx", bytes, |dir| {
        let Ok(model) = Model::open(dir.join("model.onnx")) else { return };
        find(&model, None);
        let inputs = model.inputs();
        let inputs: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let _ = model.assuming_false(&inputs);
        if let Ok(same) = model.apply(&Patch::default()) {
            let _ = same.to_bytes();
        }
    });
}

/// A PyTorch checkpoint in safetensors.
pub fn checkpoint(bytes: &[u8]) {
    in_folder("model.safetensors", bytes, |dir| {
        if let Ok(checkpoint) = Checkpoint::open(dir.join("model.safetensors")) {
            checkpoint.matrices().for_each(drop);
        }
    });
}

/// A PEFT folder: the bytes up to a line `---` are its config, the rest its weights.
pub fn peft(bytes: &[u8]) {
    const LINE: &[u8] = b"\n---\n";
    let at = bytes.windows(LINE.len()).position(|window| window == LINE);
    let (config, weights) = at.map_or((bytes, &[][..]), |at| (&bytes[..at], &bytes[at + LINE.len()..]));
    in_folder("adapter_model.safetensors", weights, |dir| {
        std::fs::write(dir.join("adapter_config.json"), config).expect("a file");
        let _ = peft::read(dir);
    });
}

/// An adapter for ONNX Runtime.
pub fn onnx_adapter(bytes: &[u8]) {
    in_folder("adapter.onnx_adapter", bytes, |dir| {
        let _ = onnx_adapter::read(&dir.join("adapter.onnx_adapter"));
    });
}

/// A picture, a sound, or the settings of a processor of either.
pub fn media(bytes: &[u8]) {
    in_folder("file", bytes, |dir| {
        let (_, _) = (picture(&dir.join("file")), sound(&dir.join("file"), 16000, None));
        let settings = SettingsFile { path: Some(dir.join("file")), model_type: Some("vit".to_owned()) };
        if let Ok(processor) = PictureProcessor::open(&settings) {
            let small = Rgb::new(2, 3, vec![1; 18]).expect("a picture");
            let _ = processor.tensor(&small, Channels::First);
        }
        let _ = SoundProcessor::open(&settings);
    });
}

/// A summary: what it says, ranks from it, and merging with the same as another shard.
pub fn summary(bytes: &[u8]) {
    in_folder("one.safetensors", bytes, |dir| {
        let other: Vec<u8> = replaced(bytes, br#""index":0"#, br#""index":1"#);
        std::fs::write(dir.join("other.safetensors"), other).expect("a file");
        let files = ["one.safetensors", "other.safetensors"].map(|name| dir.join(name));
        let options = MergeOptions { allow_missing: true, threads: 1, ..MergeOptions::default() };
        for files in [&files[..1], &files[..]] {
            if let Ok(merged) = merge(files, &options) {
                let _ = merged.adapter(&options);
                let _ = merged.write_summary(&dir.join("all.safetensors"), true);
            }
        }
    });
}

/// The bytes with every `from` replaced by `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// Calibration rows.
pub fn rows(bytes: &[u8]) {
    in_folder("rows.jsonl", bytes, |dir| {
        let mut lines = DataFiles::new([dir.join("rows.jsonl")]);
        if let Ok(rows) = lines.rows() {
            rows.take_while(Result::is_ok).for_each(drop);
        };
    });
}

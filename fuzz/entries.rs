//! What is done with the bytes of a file, one function a kind of file; none may panic, whatever the bytes are.
//!
//! The fuzz targets call them, and the tests of the project with the seeds.

use eva_onnx::calib::{DataFiles, LoadOptions, RowSource, load};
use eva_onnx::checkpoint::Checkpoint;
use eva_onnx::formats::{onnx_adapter, peft};
use eva_onnx::hub::config::ModelConfig;
use eva_onnx::hub::llama_cpp::Layout;
use eva_onnx::linear::find;
use eva_onnx::media::{Channels, PictureProcessor, Rgb, SettingsFile, SoundProcessor, picture, sound};
use eva_onnx::merge;
use eva_onnx::onnx::{Model, Patch};
use eva_onnx::options::{MergeOptions, TrainCheckpointOptions};
use eva_onnx::results::Record;
use eva_onnx::{Train, init};
use sha2::{Digest, Sha256};
use std::fs::{create_dir_all, write};
use std::path::Path;

/// A tokenizer that knows one word.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"}}"#;

/// The line between the files that an input holds.
const LINE: &[u8] = b"\n---\n";

/// Calls `read` with a folder that has the bytes in the file `name`.
fn in_folder(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write(dir.path().join(name), bytes).expect("a file");
    read(dir.path());
}

/// What is before the first line `---`, and what is after it.
fn parted(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.windows(LINE.len()).position(|window| window == LINE);
    at.map_or((bytes, &[][..]), |at| (&bytes[..at], &bytes[at + LINE.len()..]))
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
    let (config, weights) = parted(bytes);
    in_folder("adapter_model.safetensors", weights, |dir| {
        write(dir.join("adapter_config.json"), config).expect("a file");
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
        write(dir.join("other.safetensors"), other).expect("a file");
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

/// Every row of a file, in its order and in another.
fn all_rows(file: &Path) {
    let source = || DataFiles::new([file]);
    if let Ok(rows) = source().rows() {
        rows.take_while(Result::is_ok).for_each(drop);
    };
    if let Ok(rows) = source().permuted(&mut |rows| (0..rows).rev().collect()) {
        rows.take_while(Result::is_ok).for_each(drop);
    };
}

/// Rows of tables and of plain text.
pub fn tables(bytes: &[u8]) {
    for name in ["rows.csv", "rows.tsv", "rows.txt"] {
        in_folder(name, bytes, |dir| all_rows(&dir.join(name)));
    }
}

/// Rows of a Parquet file.
pub fn parquet(bytes: &[u8]) {
    // Other files are rows of the other targets.
    if bytes.starts_with(b"PAR1") {
        in_folder("rows.parquet", bytes, |dir| all_rows(&dir.join("rows.parquet")));
    }
}

/// The rows of `rows.jsonl` in a folder with a tokenizer, as batches: whole, and their completions alone.
fn load_rows(dir: &Path) {
    for completion_only in [false, true] {
        let options = LoadOptions { tokenizer: Some(dir.to_owned()), completion_only, ..LoadOptions::default() };
        let mut rows = DataFiles::new([dir.join("rows.jsonl")]);
        if let Ok(loaded) = load(&mut rows, &options) {
            loaded.batches().for_each(drop);
        }
    }
}

/// A tokenizer; what is after a line `---` is the text that it divides.
pub fn tokenizer(bytes: &[u8]) {
    let (tokenizer, text) = parted(bytes);
    in_folder("tokenizer.json", tokenizer, |dir| {
        let text = String::from_utf8_lossy(text);
        let row = serde_json::json!({"prompt": &*text, "completion": &*text, "text": &*text});
        write(dir.join("rows.jsonl"), row.to_string()).expect("a file");
        load_rows(dir);
    });
}

/// A chat template, a row that is a conversation, and tokenizer_config.json, with lines `---` between them.
pub fn chat(bytes: &[u8]) {
    let (template, rest) = parted(bytes);
    let (row, config) = parted(rest);
    in_folder("tokenizer.json", TOKENIZER.as_bytes(), |dir| {
        for (name, bytes) in [("chat_template.jinja", template), ("tokenizer_config.json", config)] {
            if !bytes.is_empty() {
                write(dir.join(name), bytes).expect("a file");
            }
        }
        write(dir.join("rows.jsonl"), row).expect("a file");
        load_rows(dir);
    });
}

/// The state of an `init`, without the hash at its end: what is behind the hash must be read well, too.
pub fn init_state(bytes: &[u8]) -> bool {
    let sealed = [bytes, &Sha256::digest(bytes)].concat();
    init::is_state(&sealed)
}

/// The state of a training: what is wrong with it, or with the model, which is not there.
pub fn train_state(bytes: &[u8]) -> String {
    let mut said = String::new();
    in_folder("rows.jsonl", b"{}", |dir| {
        let step = dir.join("checkpoints/step-00000001");
        create_dir_all(&step).expect("a folder");
        write(step.join("state.safetensors"), bytes).expect("a file");
        let options = TrainCheckpointOptions { resume: true, ..TrainCheckpointOptions::new(dir.join("checkpoints")) };
        let train = Train::new(dir.join("missing.onnx")).data([dir.join("rows.jsonl")]).checkpoints(options);
        said = train.run().err().map(|error| error.to_string()).unwrap_or_default();
    });
    said
}

/// What a run recorded, as `report` reads it; the bytes are those of `init` and of `train`.
pub fn record(bytes: &[u8]) {
    for name in ["eva.json", "train.json"] {
        in_folder(name, bytes, |dir| {
            if let Ok(record) = Record::read(dir) {
                record.to_html();
            }
        });
    }
}

/// The settings beside a model.
pub fn settings(bytes: &[u8]) {
    for name in ["config.json", "genai_config.json"] {
        in_folder(name, bytes, |dir| {
            let config = ModelConfig::read(&dir.join("model.onnx"), None);
            if let Some(layout) = Layout::new(&config) {
                layout.tensor("model.layers.0.self_attn.q_proj");
            }
        });
    }
}

//! Opening ONNX files: what is read, what stays on disk, what is refused.

use crate::support::eva::graph;
use crate::support::graph::{F32, net};
use eva_onnx::Hint;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use eva_onnx::dtype::DType;
use eva_onnx::onnx::{Dim, Error, Model, ValueInfo};
use onnx_protobuf::{Message, TensorProto};

fn tiny(name: &str) -> PathBuf {
    graph(&format!("tiny/{name}"))
}

fn encoded(field: u64, wire: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for mut value in [field << 3 | wire, value] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out
}

#[test]
fn a_two_gigabyte_model_opens_as_a_few_hundred_bytes() {
    const ROWS: u64 = 1 << 15;
    const BYTES: u64 = ROWS * (1 << 14) * 4;
    let head = TensorProto { name: "w".to_owned(), dims: vec![1 << 15, 1 << 14], data_type: 1, ..Default::default() };
    let head = [head.write_to_bytes().unwrap(), encoded(9, 2, BYTES)].concat();
    let initializer = [encoded(5, 2, head.len() as u64 + BYTES), head].concat();
    let graph = [encoded(7, 2, initializer.len() as u64 + BYTES), initializer].concat();
    let start = [encoded(1, 0, 10), graph].concat();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.onnx");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&start).unwrap();
    file.seek(SeekFrom::Current(BYTES as i64)).unwrap();
    file.write_all(&[encoded(8, 2, 2), encoded(2, 0, 20)].concat()).unwrap();
    drop(file);

    let model = Model::open(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 2_000_000_000);
    assert!(model.to_bytes().unwrap().len() < 200);
    assert_eq!(model.opset(), 20);
    let tensor = model.tensor("w").unwrap();
    assert_eq!(tensor.dims(), [1 << 15, 1 << 14]);
    assert_eq!(tensor.bytes().unwrap().len() as u64, BYTES);
}

#[test]
fn the_facts_of_a_model() {
    let model = Model::open(tiny("bert-optimum")).unwrap();
    assert_eq!(model.producer(), "pytorch");
    assert!(model.opset() >= 14);
    assert!(model.ir_version() >= 7);
    assert!(!model.external_data());
    let symbol = |name: &str| Dim::Symbol(name.to_owned());
    let shape = Some(vec![symbol("batch_size"), symbol("sequence_length")]);
    let ids = ValueInfo { name: "input_ids".to_owned(), dtype: DType::I64, shape };
    assert_eq!(model.inputs()[0], ids);
    assert_eq!(model.outputs()[0].name, "logits");
    assert_eq!(model.data_files().collect::<Vec<_>>(), ["model.onnx"]);
}

#[test]
fn external_data_is_found() {
    let model = Model::open(tiny("llama-external")).unwrap();
    assert!(model.external_data());
    assert_eq!(model.data_files().collect::<Vec<_>>(), ["model.onnx", "model.onnx.data"]);
    let weight = model.tensor("model.embed_tokens.weight").unwrap();
    let count: i64 = weight.dims().iter().product();
    assert_eq!(weight.bytes().unwrap().len() as i64, 4 * count);
}

#[test]
fn initializers_are_not_inputs() {
    let (_dir, model) = net().input("x", F32).input("w", F32).weight("w", &[]).open();
    assert_eq!(model.inputs().len(), 1);
    assert_eq!(model.inputs()[0].name, "x");
    assert_eq!(model.inputs()[0].shape, None);
}

#[track_caller]
fn refused(content: &[u8], what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    fs::write(&path, content).unwrap();
    let error = Model::open(&path).err().unwrap();
    assert_eq!(error.to_string(), format!("`{}` is {what}, not an ONNX model", path.display()));
}

#[test]
fn other_files_are_recognised() {
    refused(b"", "an empty file");
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer");
    refused(b"<!DOCTYPE html><html></html>", "a web page");
    refused(b"PK\x03\x04aaaaaaaaaaaa", "a zip archive");
    refused(b"{\"a\": 1}", "a text file");
    refused(b"\x0a\0\0\0\0\0\0\0{\"a\": [1]}", "a safetensors file");
    refused(&[0x08, 10], "a file without a graph");
}

#[test]
fn a_truncated_model_says_where() {
    let bytes = fs::read(tiny("bert-optimum")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = Model::open(&path).err().unwrap();
    assert!(error.to_string().contains("while reading the model: field 7 needs"), "{error}");
    assert!(error.hint().unwrap().contains("truncated"));
}

#[test]
fn a_missing_file_or_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Model::open(dir.path().join("absent.onnx")), Err(Error::Read { .. })));
    assert!(matches!(Model::open(dir.path()), Err(Error::Read { .. })));
}

/// A model with one `f32[4]` tensor whose external data has these entries.
fn external(dir: &Path, entries: &[(&str, &str)]) -> Result<Model, Error> {
    fs::write(dir.join("m.onnx"), net().external("w", &[4], entries).encoded()).unwrap();
    Model::open(dir.join("m.onnx"))
}

#[track_caller]
fn external_error(entries: &[(&str, &str)], message: &str) {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("model");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("w.bin"), [0; 20]).unwrap();
    fs::write(outer.path().join("out.bin"), [0; 20]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(outer.path().join("out.bin"), dir.join("link.bin")).unwrap();
    let error = external(&dir, entries).err().map(|error| error.to_string());
    let error = error.map(|error| error.replace(&format!("{}/", dir.display()), ""));
    assert_eq!(error.unwrap_or_default(), message);
}

#[test]
fn external_data_is_checked() {
    external_error(&[("location", "w.bin")], "");
    external_error(&[("location", "./w.bin"), ("offset", "4"), ("length", "16")], "");
    let outside = |location: &str| format!("tensor `w` has its data in `{location}`, outside the folder of the model");
    external_error(&[("location", "../out.bin")], &outside("../out.bin"));
    external_error(&[("location", "/etc/hostname")], &outside("/etc/hostname"));
    #[cfg(unix)]
    external_error(&[("location", "link.bin")], &outside("link.bin"));
    external_error(
        &[("location", "w.bin"), ("offset", "8")],
        "tensor `w` ends at byte 24 of `w.bin`, which has only 20 bytes",
    );
    external_error(
        &[("location", "w.bin"), ("offset", "18446744073709551615")],
        "tensor `w` ends at byte 18446744073709551615 of `w.bin`, which has only 20 bytes",
    );
    external_error(
        &[("location", "w.bin"), ("length", "12")],
        "tensor `w` has 12 bytes of data where its shape and type need 16",
    );
    external_error(&[("location", "w.bin"), ("offset", "-1")], "tensor `w` has external data whose `offset` is `-1`");
    external_error(&[], "tensor `w` has external data whose `location` is missing");
}

#[test]
fn a_missing_data_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = external(dir.path(), &[("location", "gone.bin")]).err().unwrap();
    let path = dir.path().join("gone.bin");
    let start = format!("tensor `w` has its data in `{}`, which cannot be opened", path.display());
    assert!(error.to_string().starts_with(&start), "{error}");
    assert!(error.hint().is_some());
}

/// The cache of the Hugging Face hub: links with the right names to files with other names in another folder.
#[test]
#[cfg(unix)]
fn linked_models_keep_their_data() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, named) = (dir.path().join("blobs"), dir.path().join("snapshot"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir(&named).unwrap();
    for (file, blob) in [("model.onnx", "aa"), ("model.onnx.data", "bb")] {
        fs::copy(tiny("llama-external").with_file_name(file), blobs.join(blob)).unwrap();
        std::os::unix::fs::symlink(Path::new("../blobs").join(blob), named.join(file)).unwrap();
    }
    let model = Model::open(named.join("model.onnx")).unwrap();
    assert_eq!(model.dir(), blobs.canonicalize().unwrap());
    assert_eq!(model.data_files().collect::<Vec<_>>(), ["aa", "bb"]);
    let plain = Model::open(tiny("llama-external")).unwrap();
    let bytes = |model: &Model| model.tensor("model.embed_tokens.weight").unwrap().bytes().unwrap().into_owned();
    assert_eq!(bytes(&model), bytes(&plain));
}

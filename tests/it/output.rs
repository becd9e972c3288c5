//! Writing folders: nothing that is read is ever written, whatever the files of a model are called.

use crate::support::graph::net;
use eva_onnx::onnx::Model;
use eva_onnx::output::{self, Destination, Error, Link, Shared, model};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Bytes of each weight.
const SIZE: usize = 4096;

/// A model file called `name` whose weights are each in a file of their own, at these locations. Files are written
/// where no earlier location led.
fn model(dir: &Path, name: &str, locations: &[&str]) -> Model {
    let mut net = net();
    for (index, location) in locations.iter().enumerate() {
        net = net.external(&format!("w{index}"), &[32, 32], &[("location", location)]);
        let path = dir.join(location);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.exists() {
            fs::write(&path, vec![index as u8; SIZE]).unwrap();
        }
    }
    fs::write(dir.join(name), net.encoded()).unwrap();
    Model::open(dir.join(name)).unwrap()
}

/// The contents of all files in a folder, by their names.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

/// The first byte of every weight.
fn weights(model: &Model) -> Vec<u8> {
    model.tensors().map(|tensor| tensor.bytes().unwrap()[0]).collect()
}

/// Writes the model after files with the `reserved` names, and returns the names in the folder.
#[track_caller]
fn put(source: &Model, folder: &Path, reserved: &[&str], link: Link) -> Vec<String> {
    let before = contents(folder);
    let dir = tempfile::tempdir_in(folder.parent().unwrap()).unwrap();
    let mut destination = Destination::prepare(&dir.path().join("out"), false).unwrap();
    destination.set_link(link);
    for name in reserved {
        destination.write(name, name.as_bytes()).unwrap();
    }
    model::put(source, source, &mut destination, "", &model::FileNames::default()).unwrap();
    destination.commit(&[]).unwrap();
    let out = dir.path().join("out");
    let written = Model::open(out.join(model::MODEL)).unwrap();
    assert_eq!(weights(&written), weights(source));
    for name in reserved {
        assert_eq!(fs::read(out.join(name)).unwrap(), name.as_bytes());
    }
    assert!(contents(folder) == before, "an input has changed");
    contents(&out).into_keys().collect()
}

#[track_caller]
fn names(name: &str, locations: &[&str], reserved: &[&str], expected: &[&str]) {
    for link in [Link::Copy, Link::Hard] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("in");
        fs::create_dir(&folder).unwrap();
        let source = model(&folder, name, locations);
        assert_eq!(put(&source, &folder, reserved, link), expected, "{link:?}");
    }
}

#[test]
fn data_files_keep_their_names_where_they_can() {
    names("m.onnx", &["a.bin", "b/c.bin"], &[], &["a.bin", "b/c.bin", "model.onnx"]);
    names("m.onnx", &["w.bin", "./w.bin"], &[], &["model.onnx", "w.bin"]);
    names("m.onnx", &["./b/w.bin", "b/./w.bin"], &[], &["b/w.bin", "model.onnx"]);
}

#[test]
fn files_of_the_output_come_before_data_files() {
    names("net.onnx", &["model.onnx"], &[], &["base-model.onnx", "model.onnx"]);
    names("net.onnx", &["./model.onnx"], &[], &["base-model.onnx", "model.onnx"]);
    names("net.onnx", &["model.onnx/w.bin"], &[], &["base-model.onnx/w.bin", "model.onnx"]);
    names("net.onnx", &["Model.ONNX"], &[], &["base-Model.ONNX", "model.onnx"]);
    let adapter = "adapter.onnx_adapter";
    names("m.onnx", &["./adapter.onnx_adapter"], &[adapter], &[adapter, "base-adapter.onnx_adapter", "model.onnx"]);
    for name in ["train.py", "manifest.json", "merged.data"] {
        let mut expected = [&format!("base-{name}"), name, "model.onnx"].map(str::to_owned);
        expected.sort();
        names("m.onnx", &[name], &[name], &expected.each_ref().map(String::as_str));
    }
}

#[test]
fn a_data_file_may_be_called_like_the_settings() {
    names("m.onnx", &["./config.json"], &[], &["config.json", "model.onnx"]);
}

#[test]
fn a_new_data_file_has_a_name_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), "m.onnx", &["./merged.data", "new-merged.data"]);
    assert_eq!(model::free_name(&model, "merged.data"), "new-new-merged.data");
    assert_eq!(model::free_name(&model, "other.data"), "other.data");
}

#[cfg(unix)]
#[test]
fn links_are_followed_when_a_model_is_read() {
    for link in [Link::Copy, Link::Hard] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("in");
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("data/w.bin"), [7; SIZE]).unwrap();
        std::os::unix::fs::symlink("data/w.bin", folder.join("w.bin")).unwrap();
        std::os::unix::fs::symlink("data/w.bin", folder.join("config.json")).unwrap();
        std::os::unix::fs::symlink("data/w.bin", folder.join("tokenizer.model")).unwrap();
        let source = model(&folder, "m.onnx", &["w.bin", "data/w.bin"]);
        assert_eq!(put(&source, &folder, &[], link), ["model.onnx", "w.bin"]);
    }
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (out, other) = (dir.path().join("out"), dir.path().join("other"));
    fs::create_dir_all(&out).unwrap();
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("a"), "kept").unwrap();
    std::os::unix::fs::symlink("../other/a", out.join("a")).unwrap();
    std::os::unix::fs::symlink("../other", out.join("folder")).unwrap();
    Destination::prepare(&out, true).unwrap().commit(&[("a", b"new".to_vec())]).unwrap();
    assert!(!out.join("a").is_symlink());
    assert_eq!(fs::read(out.join("a")).unwrap(), b"new");
    let refused = Destination::prepare(&out, true).unwrap().commit(&[("b", vec![]), ("folder/a", b"new".to_vec())]);
    assert!(matches!(refused, Err(Error::Link { path }) if path == out.join("folder")));
    assert!(!out.join("b").exists());
    assert_eq!(fs::read(other.join("a")).unwrap(), b"kept");

    std::os::unix::fs::symlink("other/a", dir.path().join("file")).unwrap();
    let file = dir.path().join("file");
    assert!(matches!(output::file(&file, b"new", false), Err(Error::FileExists { .. })));
    output::file(&file, b"new", true).unwrap();
    assert_eq!((fs::read(&file).unwrap(), fs::read(other.join("a")).unwrap()), (b"new".to_vec(), b"kept".to_vec()));
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
    let dangling = Destination::prepare(&dir.path().join("dangling"), true);
    assert!(matches!(dangling, Err(Error::NotAFolder { .. })));
}

#[test]
fn the_model_that_is_read_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for (name, locations) in [("model.onnx", &["w.bin"]), ("m.onnx", &["w.bin"]), ("m.onnx", &["model.onnx"])] {
        let folder = TempDir::new_in(dir.path()).unwrap();
        let source = model(folder.path(), name, locations);
        let before = contents(folder.path());
        let mut destination = Destination::prepare(folder.path(), true).unwrap();
        model::put(&source, &source, &mut destination, "", &model::FileNames::default()).unwrap();
        let refused = destination.commit(&[]);
        assert!(matches!(refused, Err(Error::Input { .. })), "{name} {locations:?}");
        assert!(contents(folder.path()) == before);
    }
}

#[test]
fn a_name_is_staged_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("source");
    fs::write(&file, "source").unwrap();
    let mut destination = Destination::prepare(&dir.path().join("out"), false).unwrap();
    destination.set_link(Link::Hard);
    assert_eq!(destination.share(&file, "a").unwrap(), Shared::Linked);
    assert!(matches!(destination.write("a", b"new"), Err(Error::Twice { .. })));
    assert!(matches!(destination.copy(&file, "./a"), Err(Error::Twice { .. })));
    assert!(matches!(destination.share(&file, "a"), Err(Error::Twice { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"source");
}

#[test]
fn a_folder_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/adapter");
    let destination = Destination::prepare(&out, false).unwrap();
    assert!(!out.exists());
    destination.commit(&[("a", b"1".to_vec()), ("b", b"2".to_vec())]).unwrap();
    assert_eq!((fs::read(out.join("a")).unwrap(), fs::read(out.join("b")).unwrap()), (b"1".to_vec(), b"2".to_vec()));
    assert!(matches!(Destination::prepare(&out, false), Err(Error::Exists { .. })));

    let other = dir.path().join("deep/other");
    drop(Destination::prepare(&other, false).unwrap());
    let failed = Destination::prepare(&other, false).unwrap().commit(&[("a", b"1".to_vec()), ("a/such", vec![])]);
    assert!(matches!(failed, Err(Error::Io { .. })));
    assert_eq!(contents(&dir.path().join("deep")).into_keys().collect::<Vec<_>>(), ["adapter/a", "adapter/b"]);
}

#[test]
fn an_empty_folder_is_filled_in_place() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".eva-onnx-partial")).unwrap();
    let destination = Destination::prepare(dir.path(), false).unwrap();
    destination.commit(&[("a", b"1".to_vec()), ("b/c", b"2".to_vec())]).unwrap();
    assert_eq!(contents(dir.path()).into_keys().collect::<Vec<_>>(), ["a", "b/c"]);
    assert!(matches!(Destination::prepare(dir.path(), false), Err(Error::Exists { .. })));
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    Destination::prepare(&dir.path().join("out"), false).unwrap().commit(&[("a", vec![])]).unwrap();
    output::file(&dir.path().join("b"), b"", false).unwrap();
    assert_eq!(mode(&dir.path().join("out")), mode(&dir.path().join("folder")));
    for file in ["out/a", "b"] {
        assert_eq!(mode(&dir.path().join(file)), mode(&dir.path().join("file")));
    }
}

#[test]
fn a_file_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Destination::prepare(&file, true), Err(Error::NotAFolder { .. })));
    assert!(matches!(Destination::prepare(&file.join("below"), false), Err(Error::Io { .. })));
}

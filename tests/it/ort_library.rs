//! Finding and loading a real ONNX Runtime, and refusing everything that is not one.
//!
//! `make test` brings the real library; the false ones are made here with the C compiler that Rust links with.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use eva_onnx::Hint;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use eva_onnx::runtime::{Error, Library, SearchStep, find, load};

const STUB: &str = r#"
struct base { const void *(*get_api)(unsigned); const char *(*get_version)(void); };
static const void *get_api(unsigned version) { (void)version; return 0; }
static const char *get_version(void) { return VERSION; }
static const struct base base = { get_api, get_version };
const struct base *OrtGetApiBase(void) { return BASE; }
"#;

/// Compiles a shared library that answers as ONNX Runtime does.
fn stub(folder: &Path, version: &str, base: &str) -> PathBuf {
    let (source, library) = (folder.join("stub.c"), folder.join("libonnxruntime.so"));
    fs::write(&source, STUB).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .args([format!("-DVERSION={version}"), format!("-DBASE={base}")])
        .status()
        .expect("a C compiler called `cc`");
    assert!(status.success());
    library
}

/// The library that `make test` installs.
fn real() -> Library {
    find(None).unwrap_or_else(|error| panic!("{error}\nhint: run the tests with `make test`"))
}

/// Checks that neither `find` nor `load` accepts the library, both for the same reason, and returns that reason.
#[track_caller]
fn refused(path: &Path) -> Error {
    let found = find(Some(path)).unwrap_err();
    let library = Library { path: path.to_path_buf(), step: SearchStep::OrtLib };
    let loaded = load(&library).unwrap_err();
    // Once the process has a runtime, `load` refuses every other library before looking at it.
    if !matches!(loaded, Error::AlreadyLoaded { .. }) {
        assert_eq!(found.to_string(), loaded.to_string());
    }
    found
}

#[test]
fn the_real_library_loads_once() {
    let library = real();
    let runtime = load(&library).unwrap();
    let minor: u32 = runtime.version.split('.').nth(1).unwrap().parse().unwrap();
    assert!(runtime.version.starts_with("1.") && minor >= 23, "{}", runtime.version);
    assert_eq!(runtime.library, library);
    assert!(ort::session::Session::builder(&runtime.environment).is_ok());

    assert_eq!(load(&library).unwrap().version, runtime.version);
    if library.path.is_absolute() {
        let again = find(Some(&library.path)).unwrap();
        assert_eq!(load(&again).unwrap().library, library);
    }

    let folder = tempfile::tempdir().unwrap();
    let other = Library { path: folder.path().join("libonnxruntime.so"), step: SearchStep::OrtLib };
    assert!(matches!(load(&other), Err(Error::AlreadyLoaded { .. })));
}

#[test]
fn a_folder_leads_to_the_library_in_it() {
    let library = real();
    let Some(folder) = library.path.parent().filter(|folder| folder.is_absolute()) else {
        return;
    };
    assert_eq!(find(Some(folder)).unwrap().path, library.path);
}

#[test]
fn a_missing_path_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    let error = find(Some(&path)).unwrap_err();
    let expected = format!("`--ort-lib` names `{}`, which does not exist", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().is_some());
}

#[test]
fn a_text_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    fs::write(&path, "not a library, but long enough to hold the header of one if it were one").unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::NotLoadable { .. }), "{error}");
    let start = format!("`{}` does not load as a shared library: ", path.display());
    let text = error.to_string();
    let reason = text.strip_prefix(&start).unwrap_or_default();
    assert!(!reason.is_empty() && !reason.contains("libonnxruntime"), "{reason}");
}

#[test]
fn an_old_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = stub(folder.path(), "\"1.17.0\"", "&base");
    let error = refused(&path);
    let expected = format!("`{}` is ONNX Runtime 1.17.0, but 1.23 or later is needed", path.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint().as_deref(), Some("`pip install 'onnxruntime>=1.23'`"));
}

#[test]
fn a_library_of_something_else_is_refused() {
    let cases = [
        ("\"1.99.0\"", "0", "`OrtGetApiBase` returns nothing"),
        ("0", "&base", "it reports no version"),
        ("\"1.99.0\"", "&base", "it lacks the API of its own version"),
    ];
    for (version, base, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = stub(folder.path(), version, base);
        let expected = format!("`{}` is not an ONNX Runtime library: {reason}", path.display());
        assert_eq!(refused(&path).to_string(), expected);
    }
}

#[test]
fn a_library_without_the_entry_point_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    let source = folder.path().join("empty.c");
    fs::write(&source, "int nothing;").unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(status.unwrap().success());
    let error = refused(&library).to_string();
    assert!(error.ends_with("it does not export `OrtGetApiBase`"), "{error}");
}

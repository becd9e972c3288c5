use crate::hint::Hint;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs;

use super::*;

/// A made-up machine in a temporary folder.
struct Machine {
    root: tempfile::TempDir,
    platform: Platform,
    executable: &'static str,
    variables: HashMap<&'static str, PathBuf>,
    python: Option<&'static str>,
    interpreter: Option<&'static str>,
    python_asked: Cell<bool>,
    /// Text in the path of the libraries that do not load.
    broken: Option<&'static str>,
    /// Whether the system loader has the library.
    installed: bool,
}

impl Machine {
    fn new(executable: &'static str, files: &[&str]) -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
            platform: Platform::Linux,
            executable,
            variables: HashMap::new(),
            python: None,
            interpreter: None,
            python_asked: Cell::new(false),
            broken: None,
            installed: false,
        };
        machine.with(files)
    }

    fn with(self, files: &[&str]) -> Self {
        for file in files {
            let path = self.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        self
    }

    fn on(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    fn variable(mut self, name: &'static str, path: &str) -> Self {
        let path = self.path(path);
        self.variables.insert(name, path);
        self
    }

    fn python(mut self, package: &'static str) -> Self {
        self.python = Some(package);
        self
    }

    fn broken(mut self, part: &'static str) -> Self {
        self.broken = Some(part);
        self
    }

    /// A path on this machine; the empty path stays empty.
    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { PathBuf::new() } else { self.root.path().join(path) }
    }

    fn search(&self, explicit: Option<&str>) -> Result<Library> {
        let explicit = explicit.map(|path| self.path(path));
        let surroundings = Surroundings {
            platform: self.platform,
            executable: Some(self.path(self.executable)),
            interpreter: self.interpreter.map(|package| self.path(package)),
            variable: &|name| self.variables.get(name).map(|path| path.clone().into_os_string()),
            python: &|| {
                self.python_asked.set(true);
                self.python.map(|package| self.path(package))
            },
        };
        search(
            explicit.as_deref(),
            &surroundings,
            &|path| {
                let bare = path.parent() == Some(Path::new(""));
                let broken = self.broken.is_some_and(|part| path.to_string_lossy().contains(part));
                if broken || (bare && !self.installed) {
                    let (path, reason) = (path.to_path_buf(), "broken".to_owned());
                    return Err(Error::NotLoadable { path, reason });
                }
                Ok(())
            },
            &mut Vec::new(),
        )
    }

    #[track_caller]
    fn finds(&self, step: SearchStep, path: &str) {
        let expected = Library { path: self.path(path), step };
        assert_eq!(self.search(None).unwrap(), expected);
    }
}

const WHEEL: &str = "env/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0";
const OTHER: &str = "other/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1";

#[test]
fn the_option_comes_first() {
    let machine = Machine::new("bin/eva-onnx", &["mine/ort.so", "bin/libonnxruntime.so", "v.so"])
        .variable("ORT_DYLIB_PATH", "v.so");
    let library = machine.search(Some("mine/ort.so")).unwrap();
    assert_eq!(library, Library { path: machine.path("mine/ort.so"), step: SearchStep::OrtLib });
    assert!(!machine.python_asked.get());
}

#[test]
fn the_variable_comes_second() {
    let machine = Machine::new("bin/eva-onnx", &["bin/libonnxruntime.so", "v.so"]).variable("ORT_DYLIB_PATH", "v.so");
    machine.finds(SearchStep::DylibPath, "v.so");
}

#[test]
fn an_empty_variable_is_unset() {
    let machine = Machine::new("bin/eva-onnx", &["bin/libonnxruntime.so"])
        .variable("ORT_DYLIB_PATH", "")
        .variable("VIRTUAL_ENV", "");
    machine.finds(SearchStep::Executable, "bin/libonnxruntime.so");
}

#[test]
fn the_unnamed_places_follow_in_order() {
    let files = ["env/bin/libonnxruntime.so", "env/lib/libonnxruntime.so.1.30.0", WHEEL, OTHER];
    let machine = Machine::new("env/bin/eva-onnx", &files)
        .with(&["conda/lib/libonnxruntime.so", "site/onnxruntime/capi/libonnxruntime.so.1.29.0"])
        .variable("VIRTUAL_ENV", "other")
        .variable("CONDA_PREFIX", "conda")
        .python("site/onnxruntime");
    let order = [
        (SearchStep::Executable, files[0]),
        (SearchStep::Executable, files[1]),
        (SearchStep::ExecutableEnvironment, WHEEL),
        (SearchStep::VirtualEnv, OTHER),
        (SearchStep::CondaPrefix, "conda/lib/libonnxruntime.so"),
        (SearchStep::Python, "site/onnxruntime/capi/libonnxruntime.so.1.29.0"),
    ];
    for (step, path) in order {
        assert!(!machine.python_asked.get());
        machine.finds(step, path);
        fs::remove_file(machine.path(path)).unwrap();
    }
    assert!(matches!(machine.search(None), Err(Error::NotFound { .. })));
    let machine = Machine { installed: true, ..machine };
    let library = machine.search(None).unwrap();
    assert_eq!(library, Library { path: "libonnxruntime.so".into(), step: SearchStep::System });
}

#[test]
fn the_running_python_comes_before_the_unnamed_places() {
    let machine = Machine::new("env/bin/python", &[WHEEL, OTHER]);
    let machine = Machine { interpreter: Some("other/lib/python3.12/site-packages/onnxruntime"), ..machine };
    machine.finds(SearchStep::Interpreter, OTHER);
}

#[test]
fn an_unusable_library_is_passed_over() {
    let machine = Machine::new("env/bin/eva-onnx", &[WHEEL, OTHER]).variable("VIRTUAL_ENV", "other").broken("/env/");
    machine.finds(SearchStep::VirtualEnv, OTHER);
}

#[test]
fn a_user_install_is_an_environment() {
    let library = "home/.local/lib/python3.9/site-packages/onnxruntime/capi/libonnxruntime.so.1.24.0";
    Machine::new("home/.local/bin/eva-onnx", &[library]).finds(SearchStep::ExecutableEnvironment, library);
}

#[test]
fn the_newest_python_and_library_win() {
    let old = "env/lib/python3.9/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0";
    let capi = "env/lib64/python3.13t/site-packages/onnxruntime/capi";
    let (new, newer) = (format!("{capi}/libonnxruntime.so.1.9.0"), format!("{capi}/libonnxruntime.so.1.23.2"));
    let noise = format!("{capi}/libonnxruntime.so.1.99.0.bak");
    let files = [old, &new, &newer, &noise, "env/lib/pythonic/site-packages/onnxruntime/capi/libonnxruntime.so"];
    Machine::new("env/bin/eva-onnx", &files).finds(SearchStep::ExecutableEnvironment, &newer);
}

#[test]
fn the_cuda_wheel_wins_in_a_shared_folder() {
    let gpu = "env/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1";
    let info = "env/lib/python3.11/site-packages/onnxruntime_gpu-1.31.1.dist-info/METADATA";
    let machine = Machine::new("env/bin/eva-onnx", &[WHEEL, gpu]);
    machine.finds(SearchStep::ExecutableEnvironment, WHEEL);
    let machine = machine.with(&[info]);
    machine.finds(SearchStep::ExecutableEnvironment, gpu);
    fs::remove_file(machine.path(gpu)).unwrap();
    machine.finds(SearchStep::ExecutableEnvironment, WHEEL);
}

#[cfg(unix)]
#[test]
fn a_linked_lib64_is_not_searched_again() {
    let machine = Machine::new("env/bin/eva-onnx", &[WHEEL]).broken("/env/");
    std::os::unix::fs::symlink("lib", machine.path("env/lib64")).unwrap();
    let Err(Error::NotFound { tried }) = machine.search(None) else { panic!("found") };
    let capi = machine.path(WHEEL).parent().unwrap().to_path_buf();
    assert_eq!(tried[1].places, [capi]);
    assert_eq!(tried[1].refused.len(), 1);
}

#[test]
fn an_executable_outside_bin_has_no_environment() {
    let machine = Machine::new("env/target/eva-onnx", &[WHEEL]);
    assert!(matches!(machine.search(None), Err(Error::NotFound { .. })));
}

#[test]
fn every_platform_has_its_names() {
    let mac = "env/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.1.32.0.dylib";
    Machine::new("env/bin/eva-onnx", &[mac]).on(Platform::MacOs).finds(SearchStep::ExecutableEnvironment, mac);
    let windows = "env/Lib/site-packages/onnxruntime/capi/onnxruntime.dll";
    Machine::new("env/Scripts/eva-onnx.exe", &[windows])
        .on(Platform::Windows)
        .finds(SearchStep::ExecutableEnvironment, windows);
}

#[test]
fn the_option_takes_a_folder() {
    let capi = "site/onnxruntime/capi/libonnxruntime.so.1.32.0";
    let release = "release/lib/libonnxruntime.so";
    let machine = Machine::new("bin/eva-onnx", &[capi, release]);
    for (folder, path) in
        [("site/onnxruntime/capi", capi), ("site/onnxruntime", capi), ("site", capi), ("release", release)]
    {
        assert_eq!(machine.search(Some(folder)).unwrap().path, machine.path(path), "{folder}");
    }
}

#[test]
fn what_the_user_names_is_never_passed_over() {
    let machine =
        Machine::new("bin/eva-onnx", &["bin/libonnxruntime.so", "empty/readme", "broken.so"]).broken("broken.so");
    assert!(matches!(machine.search(Some("missing.so")), Err(Error::Missing { step: SearchStep::OrtLib, .. })));
    assert!(matches!(machine.search(Some("empty")), Err(Error::MissingInFolder { step: SearchStep::OrtLib, .. })));
    assert!(matches!(machine.search(Some("broken.so")), Err(Error::NotLoadable { .. })));
    let machine = machine.variable("ORT_DYLIB_PATH", "missing.so");
    assert!(matches!(machine.search(None), Err(Error::Missing { step: SearchStep::DylibPath, .. })));
}

#[test]
fn the_final_error_names_every_place_and_every_refusal() {
    let machine = Machine::new("env/bin/eva-onnx", &[WHEEL]).variable("VIRTUAL_ENV", "other").broken("/env/");
    let error = machine.search(None).unwrap_err();
    let root = machine.root.path().display().to_string();
    let text = error.to_string().replace(&root, "ROOT");
    insta::assert_snapshot!(text, @r"
    no usable ONNX Runtime library found; looked in
      the executable's folder: `ROOT/env/bin`, `ROOT/env/lib`
      the executable's Python environment: `ROOT/env/lib/python3.11/site-packages/onnxruntime/capi`
        `ROOT/env/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0` does not load as a shared library: broken
      `VIRTUAL_ENV`: no `onnxruntime` package
      `CONDA_PREFIX`: no `onnxruntime` package
      the Python on `PATH`: no `onnxruntime` package
      the system loader: `libonnxruntime.so`, `libonnxruntime.so.1`
        `libonnxruntime.so` does not load as a shared library: broken
        `libonnxruntime.so.1` does not load as a shared library: broken
    ");
    let hint = error.hint().unwrap();
    let expected = "`pip install onnxruntime` (`onnxruntime-gpu` for CUDA), or name the library with `--ort-lib`";
    assert_eq!(hint, expected);
}

#[test]
fn an_old_library_makes_the_hint_an_upgrade() {
    let old = Error::TooOld { path: "a.so".into(), version: "1.17.0".into() };
    let tried = Tried { step: SearchStep::System, places: vec![], refused: vec![old] };
    let hint = Error::NotFound { tried: vec![tried] }.hint();
    assert_eq!(hint.as_deref(), Some("`pip install 'onnxruntime>=1.23'`"));
}

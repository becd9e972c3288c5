//! Opening ONNX Runtime's library: the checks before `ort` sees it, and the one environment of the process.

use std::ffi::CStr;
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::sys::OrtApiBase;

use super::error::{Error, Result, Tried};
use super::search::{Library, Platform, Surroundings, search};

/// ONNX Runtime, loaded and started. Clones share the one environment of the process.
#[derive(Clone)]
pub struct Runtime {
    /// What sessions are built on.
    pub environment: Environment,
    /// The version that the library reports, such as `1.32.0`.
    pub version: String,
    /// The library and where it was found.
    pub library: Library,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { environment: _, version, library } = self;
        f.debug_struct("Runtime").field("version", version).field("library", library).finish_non_exhaustive()
    }
}

/// Finds the ONNX Runtime library to use: `explicit` when given, else the first usable one in the order of
/// [`super::SearchStep`].
///
/// A library is usable when it loads, is ONNX Runtime, and is 1.23 or later.
///
/// # Errors
/// [`Error::NotFound`] when no place has a usable library, naming those found and refused. What the user names,
/// by `explicit` or `ORT_DYLIB_PATH`, is never passed over: it is used, or its own error is returned.
pub fn find(explicit: Option<&Path>) -> Result<Library> {
    find_noting(explicit, &mut Vec::new())
}

/// As [`find`]; `tried` gets the steps before the one that ends the search.
///
/// # Errors
/// As [`find`].
pub fn find_noting(explicit: Option<&Path>, tried: &mut Vec<Tried>) -> Result<Library> {
    let surroundings = Surroundings {
        platform: Platform::current(),
        interpreter: INTERPRETER.get().cloned(),
        // A symlink to the executable, as pipx makes, must lead to the environment behind it.
        executable: std::env::current_exe().and_then(|exe| exe.canonicalize()).ok(),
        variable: &|name| std::env::var_os(name),
        python: &ask_python,
    };
    search(explicit, &surroundings, &|path| probe(path).map(drop), tried)
}

/// The folder of the `onnxruntime` package of the Python that this process runs.
static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();

/// Says that this process runs a Python, which has the `onnxruntime` package in this folder. The first call counts.
pub fn set_interpreter_package(folder: PathBuf) {
    INTERPRETER.get_or_init(|| folder);
}

/// Loads the library and starts ONNX Runtime, logging errors only.
///
/// A process has one runtime: later calls return that of the first.
///
/// # Errors
/// [`Error::NotLoadable`], [`Error::NotOnnxRuntime`] and [`Error::TooOld`] when the library is unusable,
/// [`Error::AlreadyLoaded`] when the process uses another one, [`Error::NotStarted`] when it fails to start.
pub fn load(library: &Library) -> Result<Runtime> {
    static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*loaded {
        if same_file(&runtime.library.path, &library.path) {
            return Ok(runtime.clone());
        }
        let (loaded, asked) = (runtime.library.path.clone(), library.path.clone());
        return Err(Error::AlreadyLoaded { loaded, asked });
    }
    let version = probe(&library.path)?;
    tracing::debug!(path = %library.path.display(), step = %library.step, version, "ONNX Runtime");
    let environment = start(&library.path)?;
    let runtime = Runtime { environment, version, library: library.clone() };
    *loaded = Some(runtime.clone());
    Ok(runtime)
}

fn start(path: &Path) -> Result<Environment> {
    let failed = |reason: String| Error::NotStarted { path: path.to_path_buf(), reason };
    let builder = ort::init_from(path).map_err(|error| failed(error.to_string()))?;
    builder.with_name("eva-onnx").with_telemetry(false).build().map_err(|error| failed(error.to_string()))
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The names of the execution providers of the library that this process has loaded; none before.
pub fn providers(_loaded: &Runtime) -> Vec<String> {
    let (mut names, mut count) = (ptr::null_mut(), 0);
    let api = ort::api();
    // SAFETY: both are places for what the function returns, and a null status means that they are filled.
    let status = unsafe { (api.GetAvailableProviders)(&raw mut names, &raw mut count) };
    if !status.0.is_null() || names.is_null() {
        return Vec::new();
    }
    let name = |index: usize| {
        // SAFETY: the list has `count` names, which are terminated strings, until it is released.
        let name = unsafe { CStr::from_ptr(*names.add(index)) }.to_string_lossy();
        name.strip_suffix("ExecutionProvider").unwrap_or(&name).to_owned()
    };
    let found = (0..usize::try_from(count).unwrap_or(0)).map(name).collect();
    // SAFETY: it releases the list that the other function made, once.
    let _ = unsafe { (api.ReleaseAvailableProviders)(names, count) };
    found
}

/// Opens the library and returns its version when `ort` can use it.
///
/// `ort` panics on some libraries that this refuses, so every library passes here first.
fn probe(path: &Path) -> Result<String> {
    let foreign = |reason: &str| Error::NotOnnxRuntime { path: path.to_path_buf(), reason: reason.to_owned() };

    // SAFETY: the initialisers of a library that the user's own environment names are trusted to be sound.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| Error::NotLoadable { path: path.to_path_buf(), reason: reason(path, &error) })?;
    // SAFETY: every ONNX Runtime release exports `OrtGetApiBase` with this type.
    let get_base = unsafe { library.get::<unsafe extern "system" fn() -> *const OrtApiBase>(b"OrtGetApiBase") }
        .map_err(|_| foreign("it does not export `OrtGetApiBase`"))?;
    // SAFETY: the function takes nothing and returns a pointer to static data, or null.
    let base = unsafe { get_base().as_ref() }.ok_or_else(|| foreign("`OrtGetApiBase` returns nothing"))?;
    // SAFETY: `GetVersionString` is the one function whose place is the same in every release.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err(foreign("it reports no version"));
    }
    // SAFETY: not null, and a terminated string that lives as long as the library, by ONNX Runtime's contract.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned();
    if !new_enough(&version) {
        return Err(Error::TooOld { path: path.to_path_buf(), version });
    }
    // SAFETY: `GetApi` returns null for a version that it does not have.
    if unsafe { (base.GetApi)(ort::sys::ORT_API_VERSION) }.is_null() {
        return Err(foreign("it lacks the API of its own version"));
    }
    // `ort` opens the same file next; closing ONNX Runtime in between would run its destructors for nothing.
    let _ = ManuallyDrop::new(library);
    Ok(version)
}

/// The message of the system loader without the path, which the error has already.
fn reason(path: &Path, error: &libloading::Error) -> String {
    let detail = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let prefix = format!("{}: ", path.display());
    detail.strip_prefix(&prefix).unwrap_or(&detail).to_owned()
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, ort::MINOR_VERSION)
}

/// The folder of the `onnxruntime` package of the Python on `PATH`, which is not imported.
fn ask_python() -> Option<PathBuf> {
    let answer = query(if cfg!(windows) { "python" } else { "python3" }).output().ok()?;
    let folder = String::from_utf8(answer.stdout).ok()?;
    let folder = Path::new(folder.trim_end_matches(['\r', '\n']));
    (answer.status.success() && folder.is_absolute()).then(|| folder.to_path_buf())
}

/// The command that prints the folder of the package.
fn query(python: &str) -> Command {
    // `sys` is built in. Whatever else is imported must not come from the current directory, which `-c` puts first.
    const QUERY: &str = "import sys
sys.path = [path for path in sys.path if path]
import importlib.util
print(importlib.util.find_spec('onnxruntime').submodule_search_locations[0])";

    let mut command = Command::new(python);
    command.args(["-c", QUERY]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::{new_enough, query};

    #[track_caller]
    fn check(version: &str, expected: bool) {
        assert_eq!(new_enough(version), expected, "{version}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        check("1.23.0", true);
        check("1.32.0", true);
        check("1.100.1", true);
        check("1.23", true);
        check("2.0.0", true);
        check("1.22.2", false);
        check("1.9.0", false);
        check("0.99.0", false);
        check("", false);
        check("nightly", false);
    }

    #[test]
    fn python_runs_nothing_of_the_current_folder() {
        let folder = tempfile::tempdir().unwrap();
        for module in ["types", "contextlib", "warnings", "importlib", "onnxruntime", "sitecustomize"] {
            let code = "open('mark', 'a').write(__name__)";
            std::fs::write(folder.path().join(module).with_extension("py"), code).unwrap();
        }
        let python = if cfg!(windows) { "python" } else { "python3" };
        query(python).current_dir(folder.path()).output().expect("a Python on the PATH");
        assert!(!folder.path().join("mark").exists());
    }
}

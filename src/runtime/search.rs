//! The order in which ONNX Runtime's library is looked for, as a function of its surroundings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{Error, Result, SearchStep, Tried};

/// A library that [`super::load`] can open, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// An absolute path, or a bare file name when the system loader resolves it.
    pub path: PathBuf,
    /// Where it was found.
    pub step: SearchStep,
}

/// The places that are searched when the user names no library.
const UNNAMED: [SearchStep; 7] = [
    SearchStep::Interpreter,
    SearchStep::Executable,
    SearchStep::ExecutableEnvironment,
    SearchStep::VirtualEnv,
    SearchStep::CondaPrefix,
    SearchStep::Python,
    SearchStep::System,
];

/// How the operating system names shared libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    Linux,
    MacOs,
    Windows,
}

impl Platform {
    pub(super) fn current() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_vendor = "apple") {
            Self::MacOs
        } else {
            Self::Linux
        }
    }

    fn plain_name(self) -> &'static str {
        match self {
            Self::Linux => "libonnxruntime.so",
            Self::MacOs => "libonnxruntime.dylib",
            Self::Windows => "onnxruntime.dll",
        }
    }

    fn loader_names(self) -> &'static [&'static str] {
        match self {
            Self::Linux => &["libonnxruntime.so", "libonnxruntime.so.1"],
            Self::MacOs => &["libonnxruntime.dylib", "libonnxruntime.1.dylib"],
            Self::Windows => &["onnxruntime.dll"],
        }
    }

    /// The version in a versioned library's file name: `libonnxruntime.so.1.32.0` -> `[1, 32, 0]`.
    fn version_in(self, name: &str) -> Option<Vec<u64>> {
        let version = match self {
            Self::Linux => name.strip_prefix("libonnxruntime.so.")?,
            Self::MacOs => name.strip_prefix("libonnxruntime.")?.strip_suffix(".dylib")?,
            Self::Windows => return None,
        };
        version.split('.').map(|part| part.parse().ok()).collect()
    }
}

/// What the search can see of the process and the machine.
pub(super) struct Surroundings<'a> {
    pub(super) platform: Platform,
    pub(super) executable: Option<PathBuf>,
    /// The folder of the `onnxruntime` package of the Python that this process runs, if it runs one.
    pub(super) interpreter: Option<PathBuf>,
    /// An environment variable's value.
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The folder of the `onnxruntime` package, as the Python on `PATH` knows it; asked only when needed.
    pub(super) python: &'a dyn Fn() -> Option<PathBuf>,
}

/// The first usable library in the order of [`SearchStep`]; `usable` checks that a file can be loaded.
///
/// A library that the user names, by option or variable, is the answer or the error. Elsewhere an unusable
/// library is remembered for the final error and the search continues. `tried` gets the steps before the one that ends
/// the search.
pub(super) fn search(
    explicit: Option<&Path>,
    surroundings: &Surroundings<'_>,
    usable: &dyn Fn(&Path) -> Result<()>,
    tried: &mut Vec<Tried>,
) -> Result<Library> {
    if let Some(path) = explicit {
        return named(path, SearchStep::OrtLib, surroundings.platform, usable);
    }
    if let Some(path) = path_variable(surroundings, "ORT_DYLIB_PATH") {
        return named(&path, SearchStep::DylibPath, surroundings.platform, usable);
    }
    for step in UNNAMED {
        if step == SearchStep::Interpreter && surroundings.interpreter.is_none() {
            continue;
        }
        let places = places(step, surroundings);
        let mut refused = Vec::new();
        for place in &places {
            let path = match step {
                SearchStep::System => Some(place.clone()),
                _ => library_in(place, surroundings.platform),
            };
            let Some(path) = path else { continue };
            match usable(&path) {
                Ok(()) => return Ok(Library { path, step }),
                Err(error) => {
                    tracing::debug!(%step, %error, "library refused");
                    refused.push(error);
                }
            }
        }
        tried.push(Tried { step, places, refused });
    }
    Err(Error::NotFound { tried: std::mem::take(tried) })
}

fn named(path: &Path, step: SearchStep, platform: Platform, usable: &dyn Fn(&Path) -> Result<()>) -> Result<Library> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if !path.exists() {
        return Err(Error::Missing { path, step });
    }
    let path = if path.is_dir() {
        // A release archive, a Python package and a site-packages folder are all folders that hold the library.
        let inside = ["", "lib", "capi", "onnxruntime/capi"];
        let found = inside.iter().find_map(|sub| library_in(&path.join(sub), platform));
        found.ok_or_else(|| Error::MissingInFolder { path, step, expected: platform.plain_name().to_owned() })?
    } else {
        path
    };
    usable(&path)?;
    Ok(Library { path, step })
}

fn places(step: SearchStep, surroundings: &Surroundings<'_>) -> Vec<PathBuf> {
    let platform = surroundings.platform;
    let folder = surroundings.executable.as_deref().and_then(Path::parent);
    match step {
        SearchStep::OrtLib | SearchStep::DylibPath => Vec::new(),
        SearchStep::Interpreter => surroundings.interpreter.iter().map(|package| package.join("capi")).collect(),
        SearchStep::Executable => {
            let beside = folder.and_then(Path::parent).map(|parent| parent.join("lib"));
            folder.map(Path::to_path_buf).into_iter().chain(beside).collect()
        }
        SearchStep::ExecutableEnvironment => match folder {
            Some(bin) if bin.ends_with("bin") || bin.ends_with("Scripts") => {
                bin.parent().map(|root| packages(root, platform)).unwrap_or_default()
            }
            _ => Vec::new(),
        },
        SearchStep::VirtualEnv => {
            path_variable(surroundings, "VIRTUAL_ENV").map(|root| packages(&root, platform)).unwrap_or_default()
        }
        SearchStep::CondaPrefix => {
            let Some(root) = path_variable(surroundings, "CONDA_PREFIX") else {
                return Vec::new();
            };
            let mut places = packages(&root, platform);
            places.push(root.join("lib"));
            places
        }
        SearchStep::Python => (surroundings.python)().map(|package| package.join("capi")).into_iter().collect(),
        SearchStep::System => platform.loader_names().iter().map(PathBuf::from).collect(),
    }
}

/// Where the `onnxruntime` package keeps its library in a Python environment, for every Python in it, newest first.
fn packages(root: &Path, platform: Platform) -> Vec<PathBuf> {
    const CAPI: &str = "onnxruntime/capi";
    if platform == Platform::Windows {
        return vec![root.join("Lib/site-packages").join(CAPI)];
    }
    let libs = [root.join("lib"), root.join("lib64")];
    let mut pythons: Vec<(Vec<u64>, PathBuf)> = libs
        .iter()
        // Virtual environments link `lib64` to `lib`.
        .filter(|lib| !lib.is_symlink())
        .flat_map(|lib| entries(lib))
        .filter_map(|(name, path)| Some((python_version(&name)?, path)))
        .collect();
    pythons.sort_by(|(a, _), (b, _)| b.cmp(a));
    // Debian's Python installs into dist-packages.
    let kinds = ["site-packages", "dist-packages"];
    let all = pythons.iter().flat_map(|(_, lib)| kinds.map(|kind| lib.join(kind).join(CAPI)));
    all.filter(|path| path.is_dir()).collect()
}

/// The version in the name of a Python's library folder: `python3.11` -> `[3, 11]`, `python` -> `[]`.
fn python_version(name: &str) -> Option<Vec<u64>> {
    let version = name.strip_prefix("python")?;
    // The free-threaded build ends in `t`.
    let version = version.strip_suffix('t').unwrap_or(version);
    if version.is_empty() {
        return Some(Vec::new());
    }
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// The library in a folder: the unversioned name, else the CUDA wheel's, else the highest version.
fn library_in(folder: &Path, platform: Platform) -> Option<PathBuf> {
    let plain = folder.join(platform.plain_name());
    if plain.is_file() {
        return Some(plain);
    }
    let versions = entries(folder).into_iter().filter_map(|(name, path)| Some((platform.version_in(&name)?, path)));
    // The CPU and the CUDA wheel share a folder, and only one library goes with the CUDA provider in it.
    let cuda = cuda_wheel(folder);
    versions
        .filter(|(_, path)| path.is_file())
        .max_by_key(|(version, _)| (cuda.as_ref() == Some(version), version.clone()))
        .map(|(_, path)| path)
}

/// The version of the CUDA wheel, when it is installed, given the folder where wheels keep the library.
fn cuda_wheel(capi: &Path) -> Option<Vec<u64>> {
    let installed = entries(capi.parent()?.parent()?);
    installed.iter().find_map(|(name, _)| {
        let version = name.strip_prefix("onnxruntime_gpu-")?.strip_suffix(".dist-info")?;
        version.split('.').map(|part| part.parse().ok()).collect()
    })
}

/// What a folder holds, by name; nothing when it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    entries.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

/// A variable that names a path; an empty value counts as unset.
fn path_variable(surroundings: &Surroundings<'_>, name: &str) -> Option<PathBuf> {
    (surroundings.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;

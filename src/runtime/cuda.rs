//! NVIDIA's libraries as the Python packages install them, where the system loader does not look.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::search::{Library, entries};

/// What the CUDA provider links to, each after the libraries that it needs itself.
const NEEDED: [&str; 7] = [
    "libcudart.so.",
    "libcublasLt.so.",
    "libcublas.so.",
    "libnvrtc.so.",
    "libcurand.so.",
    "libcufft.so.",
    "libcudnn.so.",
];

/// Loads the CUDA and cuDNN libraries that are installed as Python packages beside the runtime's own package, and
/// returns those loaded.
///
/// Call it before the first session on a CUDA device; the provider then finds them by name. Nothing is loaded for a
/// runtime outside a Python environment, which uses the system's CUDA. Libraries that do not load are left out: the
/// provider's own error names what it misses.
pub fn preload_cuda(library: &Library) -> Vec<PathBuf> {
    // <site-packages>/onnxruntime/capi/libonnxruntime.so.1.32.0
    let packages = library.path.ancestors().nth(3);
    let mut libraries = packages.map(needed).unwrap_or_default();
    libraries.retain(|path| ort::util::preload_dylib(path).is_ok());
    libraries
}

/// Bytes of memory that are free on GPU `number`, as NVIDIA's driver says.
pub fn free_memory(number: u32) -> Option<u64> {
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", &number.to_string()]);
    let said = String::from_utf8(command.output().ok()?.stdout).ok()?;
    Some(said.trim().parse::<u64>().ok()? << 20)
}

/// A library that the CUDA provider links to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CudaLibrary {
    /// Its file name.
    pub name: String,
    /// Where it is: in a Python package, or under its name alone where the system loader has it.
    pub path: Option<PathBuf>,
}

/// The libraries that the CUDA provider beside a runtime links to; `None` if there is no provider.
pub fn cuda_libraries(library: &Library) -> Option<Vec<CudaLibrary>> {
    let provider = library.path.with_file_name("libonnxruntime_providers_cuda.so");
    let names = linked(&provider).ok()?;
    let in_packages = library.path.ancestors().nth(3).map(needed).unwrap_or_default();
    let find = |name: String| {
        let in_package = in_packages.iter().find(|path| path.file_name().is_some_and(|file| *file == *name)).cloned();
        let path = in_package.or_else(|| ort::util::preload_dylib(&name).is_ok().then(|| PathBuf::from(&name)));
        CudaLibrary { name, path }
    };
    Some(names.into_iter().map(find).collect())
}

/// The names of NVIDIA's libraries, with their versions, in a file.
fn linked(provider: &Path) -> io::Result<BTreeSet<String>> {
    const CHUNK: usize = 1 << 20;
    // Longer than a name.
    const OVERLAP: usize = 64;
    let mut file = File::open(provider)?;
    let pattern = r"lib(?:cudart|cublasLt|cublas|nvrtc|curand|cufft|cudnn)\.so\.[0-9]+\x00";
    let pattern = regex::bytes::Regex::new(pattern).map_err(io::Error::other)?;
    let (mut names, mut window) = (BTreeSet::new(), Vec::new());
    loop {
        window.drain(..window.len().saturating_sub(OVERLAP));
        if file.by_ref().take(CHUNK as u64).read_to_end(&mut window)? == 0 {
            return Ok(names);
        }
        let found = pattern.find_iter(&window).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
        names.extend(found.map(|name| name.trim_end_matches('\0').to_owned()));
    }
}

/// The version of NVIDIA's driver, on Linux.
pub fn nvidia_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let mut words = text.lines().next()?.split_whitespace();
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.')).map(str::to_owned)
}

/// The libraries below `packages`, in the order of [`NEEDED`].
fn needed(packages: &Path) -> Vec<PathBuf> {
    // One folder a component (`cublas`, `cudnn`) up to CUDA 12, one for all but cuDNN (`cu13`) since then.
    let components = entries(&packages.join("nvidia"));
    let mut found: Vec<(usize, PathBuf)> = components
        .iter()
        .flat_map(|(_, component)| entries(&component.join("lib")))
        .filter_map(|(name, path)| Some((NEEDED.iter().position(|n| name.starts_with(n))?, path)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(files: &[&str], expected: &[&str]) {
        let packages = tempfile::tempdir().unwrap();
        for file in files {
            let path = packages.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let expected: Vec<_> = expected.iter().map(|file| packages.path().join(file)).collect();
        assert_eq!(needed(packages.path()), expected);
    }

    #[test]
    fn libraries_come_after_what_they_need() {
        check(&[], &[]);
        let cuda_13 = [
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia/cu13/lib/libcublasLt.so.13",
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cu13/lib/libnvrtc.so.13",
            "nvidia/cu13/lib/libcufft.so.12",
            "nvidia/cudnn/lib/libcudnn.so.9",
        ];
        let other = [
            "nvidia/cu13/lib/libcudart_static.a",
            "nvidia/cu13/lib/libnvrtc-builtins.so.13.2",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
            "nvidia/cudnn/include/libcudnn.so.9",
        ];
        check(&[other.as_slice(), cuda_13.as_slice()].concat(), &cuda_13);
        let cuda_12 = ["nvidia/cublas/lib/libcublasLt.so.12", "nvidia/cublas/lib/libcublas.so.12"];
        check(&[cuda_12[1], cuda_12[0]], &cuda_12);
    }

    #[test]
    fn names_across_chunks_are_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libonnxruntime_providers_cuda.so");
        let mut bytes = vec![0; (1 << 20) - 5];
        bytes.extend(b"libcudnn.so.9\0libcublasLt.so.13\0libcudnn_ops.so.9\0libcufft.so\0libcudnn.so.9\0");
        fs::write(&file, bytes).unwrap();
        assert_eq!(linked(&file).unwrap().into_iter().collect::<Vec<_>>(), ["libcublasLt.so.13", "libcudnn.so.9"]);
        let library =
            Library { path: dir.path().join("none/libonnxruntime.so"), step: super::super::SearchStep::OrtLib };
        assert_eq!(cuda_libraries(&library), None);
    }

    #[test]
    fn a_library_outside_a_python_environment_has_none() {
        let library = Library { path: "libonnxruntime.so".into(), step: super::super::SearchStep::System };
        assert_eq!(preload_cuda(&library), Vec::<PathBuf>::new());
    }
}

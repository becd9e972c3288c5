//! Why ONNX Runtime cannot be used, and where its library was looked for.

use crate::hint::Hint;
use std::fmt;
use std::path::PathBuf;

/// The result of everything in [`crate::runtime`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A place where the library is looked for, in the order of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStep {
    /// The `--ort-lib` option: a file or a folder, never passed over.
    OrtLib,
    /// The `ORT_DYLIB_PATH` environment variable: a file or a folder, never passed over.
    DylibPath,
    /// The `onnxruntime` package of the Python that runs this.
    Interpreter,
    /// The folder of the executable, and `lib` beside that folder.
    Executable,
    /// The Python environment that the executable is installed in.
    ExecutableEnvironment,
    /// The active virtual environment, `VIRTUAL_ENV`.
    VirtualEnv,
    /// The active conda environment, `CONDA_PREFIX`.
    CondaPrefix,
    /// The `onnxruntime` package of the Python on `PATH`.
    Python,
    /// The system's own library search.
    System,
}

impl fmt::Display for SearchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OrtLib => "`--ort-lib`",
            Self::DylibPath => "`ORT_DYLIB_PATH`",
            Self::Interpreter => "the running Python",
            Self::Executable => "the executable's folder",
            Self::ExecutableEnvironment => "the executable's Python environment",
            Self::VirtualEnv => "`VIRTUAL_ENV`",
            Self::CondaPrefix => "`CONDA_PREFIX`",
            Self::Python => "the Python on `PATH`",
            Self::System => "the system loader",
        })
    }
}

/// One step of a search that found nothing usable.
#[derive(Debug)]
pub struct Tried {
    /// The step.
    pub step: SearchStep,
    /// The folders (for [`SearchStep::System`] the file names) that the step looked at.
    pub places: Vec<PathBuf>,
    /// Libraries that were there, with the reason why they were refused.
    pub refused: Vec<Error>,
}

/// Why ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user named a file or folder that does not exist.
    #[error("{step} names `{}`, which does not exist", path.display())]
    Missing {
        /// What was named, made absolute.
        path: PathBuf,
        /// Where it was named.
        step: SearchStep,
    },

    /// The user named a folder without ONNX Runtime in it.
    #[error("{step} names the folder `{}`, which holds no `{expected}`", path.display())]
    MissingInFolder {
        /// What was named, made absolute.
        path: PathBuf,
        /// Where it was named.
        step: SearchStep,
        /// The file name looked for.
        expected: String,
    },

    /// The file is not a shared library for this machine, or one of its own dependencies is missing.
    #[error("`{}` does not load as a shared library: {reason}", path.display())]
    NotLoadable {
        /// The file, or the bare name given to the system loader.
        path: PathBuf,
        /// The message of the system loader.
        reason: String,
    },

    /// The file is a shared library, but not (a working) ONNX Runtime.
    #[error("`{}` is not an ONNX Runtime library: {reason}", path.display())]
    NotOnnxRuntime {
        /// The library.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },

    /// The library is ONNX Runtime, but older than this program needs.
    #[error("`{}` is ONNX Runtime {version}, but 1.{} or later is needed", path.display(), ort::MINOR_VERSION)]
    TooOld {
        /// The library.
        path: PathBuf,
        /// The version it reports.
        version: String,
    },

    /// The search found no usable library.
    #[error("no usable ONNX Runtime library found; looked in{}", lines(tried))]
    NotFound {
        /// Every place looked at, in order, with what was found and refused there.
        tried: Vec<Tried>,
    },

    /// A process can hold one ONNX Runtime, and it holds another.
    #[error("`{}` cannot be loaded: this process already uses `{}`", asked.display(), loaded.display())]
    AlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        asked: PathBuf,
    },

    /// The device name is unknown.
    #[error("unknown device `{device}`")]
    UnknownDevice {
        /// What was asked for.
        device: String,
    },

    /// A GPU is named several times.
    #[error("the device `{device}` is named twice")]
    RepeatedDevice {
        /// The device.
        device: String,
    },

    /// The device cannot be used.
    #[error("the device `{device}` cannot be used: {reason}")]
    Device {
        /// The device.
        device: String,
        /// The message of ONNX Runtime.
        reason: String,
    },

    /// ONNX Runtime cannot load the model.
    #[error("ONNX Runtime cannot load `{}`: {reason}", path.display())]
    Load {
        /// The model.
        path: PathBuf,
        /// The message of ONNX Runtime.
        reason: String,
    },

    /// A file of the model is no longer the one that was opened.
    #[error("`{}` was changed while the model was in use", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// ONNX Runtime failed while running the model.
    #[error("ONNX Runtime failed to run the model: {reason}")]
    Run {
        /// The message of ONNX Runtime.
        reason: String,
    },

    /// The device does not have enough memory for the model, or for one batch.
    #[error("out of memory: {reason}")]
    OutOfMemory {
        /// The message of ONNX Runtime.
        reason: String,
        /// Whether the model was loaded when it happened.
        running: bool,
    },

    /// A tensor has an unexpected type, shape or place.
    #[error("unusable tensor: {reason}")]
    Tensor {
        /// Why.
        reason: String,
    },

    /// ONNX Runtime loaded, but did not start.
    #[error("ONNX Runtime from `{}` did not start: {reason}", path.display())]
    NotStarted {
        /// The library.
        path: PathBuf,
        /// The message of ONNX Runtime.
        reason: String,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { step, .. } | Self::MissingInFolder { step, .. } => match step {
                SearchStep::DylibPath => {
                    "unset `ORT_DYLIB_PATH`, or set it to the library file or the folder holding it"
                }
                _ => {
                    "give the library file or the folder holding it; without `--ort-lib` the usual places are searched"
                }
            },
            Self::NotLoadable { .. } | Self::NotOnnxRuntime { .. } => {
                "`pip install onnxruntime` brings a library that works"
            }
            Self::TooOld { .. } => return Some(upgrade()),
            Self::NotFound { tried } if tried.iter().any(refused_for_age) => return Some(upgrade()),
            Self::NotFound { .. } => {
                "`pip install onnxruntime` (`onnxruntime-gpu` for CUDA), or name the library with `--ort-lib`"
            }
            Self::AlreadyLoaded { .. } => return None,
            Self::NotStarted { .. } => "`--ort-lib` chooses another library",
            Self::UnknownDevice { .. } => {
                "`--device` takes `auto`, `cpu`, `cuda`, `cuda:N`, or a list such as `cuda:0,cuda:1`"
            }
            Self::RepeatedDevice { .. } => "name each GPU once; `cuda` is `cuda:0`",
            Self::Device { .. } => "`--device cpu` always works; CUDA needs `pip install onnxruntime-gpu[cuda,cudnn]`",
            Self::OutOfMemory { running: true, .. } => {
                "lower --batch-size or --batch-tokens, or cut longer rows with --max-length"
            }
            Self::OutOfMemory { running: false, .. } => {
                "the model itself does not fit; use `--device cpu`, a smaller or quantized export, or a GPU with \
                 more free memory"
            }
            Self::Changed { .. } => {
                "run the command again, and let nothing write to the model meanwhile; a new file that is renamed to the \
                 old name does no harm once the model is loaded"
            }
            Self::Run { reason } if reason.contains("CUDA failure") || reason.contains("CUBLAS failure") => {
                "on a GPU, ONNX Runtime fails like this when a batch has over 2^31 attention scores (heads x rows x \
                 length x length): lower --batch-size, --batch-tokens or --max-length"
            }
            Self::Run { reason } if reason.contains("eshape") => {
                "if the model takes only some lengths, pad to them with --pad-multiple or --pad-to"
            }
            Self::Load { reason, .. } if reason.contains("Could not find an implementation") => {
                "on this device ONNX Runtime computes that operator in other element types only, on CPUs few in bf16: use \
                 --device cuda, or an export in f32 or f16"
            }
            Self::Load { .. } | Self::Run { .. } | Self::Tensor { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Whether a message of ONNX Runtime reports that memory ran out.
pub(super) fn reports_memory(reason: &str) -> bool {
    // Its arenas, the CPU's allocator, the CUDA runtime, cuBLAS and cuDNN.
    let signs = ["Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "ALLOC_FAILED"];
    signs.iter().any(|sign| reason.contains(sign))
}

fn upgrade() -> String {
    format!("`pip install 'onnxruntime>=1.{}'`", ort::MINOR_VERSION)
}

fn refused_for_age(tried: &Tried) -> bool {
    tried.refused.iter().any(|error| matches!(error, Error::TooOld { .. }))
}

fn lines(tried: &[Tried]) -> String {
    let mut text = String::new();
    for place in tried {
        let folders: Vec<_> = place.places.iter().map(|path| format!("`{}`", path.display())).collect();
        let folders = if folders.is_empty() { "no `onnxruntime` package".to_owned() } else { folders.join(", ") };
        text.push_str(&format!("\n  {}: {folders}", place.step));
        for error in &place.refused {
            text.push_str(&format!("\n    {error}"));
        }
    }
    text
}

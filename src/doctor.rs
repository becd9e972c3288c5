//! What is there to run models: ONNX Runtime, its devices, the machine.

use crate::dtype::DType;
use crate::error::Error;
use crate::hint::Hint;
use crate::onnx::{self, Builder, Input, Model, Output, Patch};
use crate::runtime::{self, CudaLibrary, Device, Runtime, Session, SessionOptions, Tried, Value};
use crate::{parallel, system};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Operator set of the model that is tried.
const OPSET: i64 = 15;

/// What brings NVIDIA's libraries and the ONNX Runtime that uses them.
const INSTALL_CUDA: &str = "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'";

/// What there is to run models.
///
/// Serialises as the document of `eva-onnx doctor --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Version of this program.
    pub version: &'static str,
    /// The ONNX Runtime that is used; `None` where none can be.
    pub onnxruntime: Option<OnnxRuntime>,
    /// Where it was looked for before.
    pub searched: Vec<Searched>,
    /// What is there for NVIDIA GPUs.
    pub cuda: Cuda,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory that this process may use, where the system says it.
    pub memory_bytes: Option<u64>,
    /// Why no model can run; `None` if a small one ran on the CPU.
    pub problem: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// An ONNX Runtime.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct OnnxRuntime {
    /// Its version.
    pub version: String,
    /// Its library.
    pub path: PathBuf,
    /// Where that was found.
    pub found_by: String,
    /// Its execution providers.
    pub providers: Vec<String>,
}

/// A place where ONNX Runtime was looked for.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Searched {
    /// The place.
    pub step: String,
    /// The folders, or the names that the system loader was asked for.
    pub places: Vec<PathBuf>,
    /// Why a library there was not used.
    pub refused: Vec<String>,
}

/// What there is for NVIDIA GPUs.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Cuda {
    /// Whether ONNX Runtime can use a GPU.
    pub works: bool,
    /// Version of the driver.
    pub driver: Option<String>,
    /// The libraries that the provider links to, and where they are; empty if there is no provider.
    pub libraries: Vec<CudaLibrary>,
    /// Why no GPU can be used.
    pub problem: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Looks for what models need, and runs a small one. `ort_lib` is the library of ONNX Runtime or its folder; without it,
/// the usual places are searched.
pub fn doctor(ort_lib: Option<&Path>) -> Diagnosis {
    let mut tried = Vec::new();
    let loaded = runtime::find_noting(ort_lib, &mut tried).and_then(|library| runtime::load(&library));
    let problem = loaded.as_ref().ok().and_then(|runtime| try_out(runtime).err());
    let mut diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        onnxruntime: loaded.as_ref().ok().map(OnnxRuntime::from),
        searched: Vec::new(),
        cuda: loaded.as_ref().map(cuda).unwrap_or_default(),
        cores: parallel::cores(),
        memory_bytes: system::memory(),
        problem: problem.as_ref().map(ToString::to_string),
        hint: problem.as_ref().and_then(Hint::hint),
    };
    if let Err(error) = loaded {
        (diagnosis.problem, diagnosis.hint) = (Some(headline(&error)), error.hint());
        if let runtime::Error::NotFound { tried: all } = error {
            tried = all;
        }
    }
    diagnosis.searched = tried.iter().map(Searched::from).collect();
    diagnosis
}

/// The message without the list of places, which a diagnosis has.
fn headline(error: &runtime::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_end_matches("; looked in").to_owned()
}

impl From<&Runtime> for OnnxRuntime {
    fn from(runtime: &Runtime) -> Self {
        Self {
            version: runtime.version.clone(),
            path: runtime.library.path.clone(),
            found_by: runtime.library.step.to_string(),
            providers: runtime::providers(runtime),
        }
    }
}

impl From<&Tried> for Searched {
    fn from(tried: &Tried) -> Self {
        Self {
            step: tried.step.to_string(),
            places: tried.places.clone(),
            refused: tried.refused.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Runs a model of one sum on the CPU.
fn try_out(runtime: &Runtime) -> Result<(), Error> {
    let options = SessionOptions { device: Device::Cpu, threads: 1 };
    let (a, b) = (Value::f32(&[2], vec![1.0, 2.0])?, Value::f32(&[2], vec![3.0, 4.0])?);
    let sum = Session::load(runtime, &sum()?, options)?.run([("a", &a), ("b", &b)])?;
    match sum.first().map(Value::as_f32).transpose()? {
        Some((_, [4.0, 6.0])) => Ok(()),
        _ => Err(Error::usage("ONNX Runtime adds wrongly", Some("`--ort-lib` chooses another library"))),
    }
}

fn sum() -> Result<Model, onnx::Error> {
    let mut graph = Builder::new("sum", OPSET);
    graph.op("Add", &["a", "b"]).to("sum");
    let input = |name: &str| Input { name: name.to_owned(), dtype: DType::F32, shape: vec![Some(2)] };
    let mut patch = Patch {
        inputs: vec![input("a"), input("b")],
        outputs: vec![Output { name: "sum".to_owned(), dtype: Some(DType::F32) }],
        ..Patch::default()
    };
    graph.add_to(&mut patch);
    Model::empty(OPSET).apply(&patch)
}

fn cuda(runtime: &Runtime) -> Cuda {
    let problem = runtime::cuda_problem(runtime);
    let libraries = runtime::cuda_libraries(&runtime.library);
    let driver = runtime::nvidia_driver();
    let missing = || libraries.iter().flatten().filter(|library| library.path.is_none());
    let hint = match &problem {
        None => None,
        Some(_) if driver.is_none() => Some("a GPU needs NVIDIA's driver, which is not loaded here".to_owned()),
        Some(_) if libraries.is_none() => Some(INSTALL_CUDA.to_owned()),
        Some(_) if missing().next().is_some() => {
            let names: Vec<&str> = missing().map(|library| library.name.as_str()).collect();
            Some(format!("missing: {}; {INSTALL_CUDA}", names.join(", ")))
        }
        Some(_) => Some("the driver may be older than this CUDA needs: nvidia-smi shows what it supports".to_owned()),
    };
    Cuda { works: problem.is_none(), driver, libraries: libraries.unwrap_or_default(), problem, hint }
}

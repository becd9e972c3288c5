//! Sessions: a model loaded for one device.

use super::error::reports_memory;
use super::{Error, Result, Runtime, Value, preload_cuda, value};
use crate::dtype::DType;
use crate::onnx::{Dim, FileState, Model, ValueInfo};
use ort::ep::{ArenaExtendStrategy, CPU, CUDA, ExecutionProvider};
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{Outlet, Tensor, ValueType};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Session option with the folder of the external data of a model in memory.
const EXTERNAL_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Session option that keeps weights as they are stored.
const NO_COPIES: &str = "session.disable_prepacking";

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU by number.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownDevice { device: text.to_owned() };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", n)) => n.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl Device {
    /// The devices of a list with commas. The CPU may be named several times, a GPU once.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`] or [`Error::RepeatedDevice`].
    pub fn list(text: &str) -> Result<Vec<Self>> {
        let mut devices = Vec::new();
        for name in text.split(',') {
            let device: Self = name.parse()?;
            if device != Self::Cpu && devices.contains(&device) {
                return Err(Error::RepeatedDevice { device: device.to_string() });
            }
            devices.push(device);
        }
        Ok(devices)
    }
}

/// How a session is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The device that the session uses; there is no fallback.
    pub device: Device,
    /// Threads of the CPU provider; 0 lets ONNX Runtime choose.
    pub threads: usize,
}

/// Where a run puts an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// In the memory of the device.
    Device,
    /// In host memory that the device writes to fast. It belongs to the session.
    Pinned,
    /// In host memory.
    Host,
}

/// A model loaded into ONNX Runtime.
pub struct Session {
    inner: OrtSession,
    options: SessionOptions,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|o| o.name().to_owned()).collect::<Vec<_>>();
        f.debug_struct("Session")
            .field("inputs", &names(self.inner.inputs()))
            .field("outputs", &names(self.inner.outputs()))
            .finish()
    }
}

impl Session {
    /// Loads a model; ONNX Runtime reads its weights from their files.
    ///
    /// # Errors
    /// [`Error::Load`] with the message of ONNX Runtime; [`Error::Device`] when the device cannot be used;
    /// [`Error::Changed`] when a file of the model is no longer the one that was opened.
    pub fn load(runtime: &Runtime, model: &Model, options: SessionOptions) -> Result<Self> {
        Self::commit(configure(runtime, model, options)?, model, options)
    }

    /// As [`load`](Self::load), for a model that runs a few times: products read the weights as they are in their files,
    /// where a session else lays out copies that are faster to read.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_in_place(runtime: &Runtime, model: &Model, options: SessionOptions) -> Result<Self> {
        let failed = |e: ort::Error<_>| Error::Load { path: model.path().to_owned(), reason: e.message().to_owned() };
        let builder = configure(runtime, model, options)?.with_config_entry(NO_COPIES, "1").map_err(failed)?;
        Self::commit(builder, model, options)
    }

    fn commit(mut builder: SessionBuilder, model: &Model, options: SessionOptions) -> Result<Self> {
        let failed = |reason: String| Error::Load { path: model.path().to_owned(), reason };
        let bytes = model.to_bytes().map_err(|e| failed(e.to_string()))?;
        let inner = builder.commit_from_memory(&bytes).map_err(|e| match e.message() {
            reason if reports_memory(reason) => Error::OutOfMemory { reason: reason.to_owned(), running: false },
            reason => failed(reason.to_owned()),
        });
        // ONNX Runtime opens the files of the weights by their names; one that is gone and that it needs, it says itself.
        let changed = |path: &Path, state: FileState| state != FileState::Unchanged && path.exists();
        if let Some(path) = model.file_where(changed) {
            return Err(Error::Changed { path });
        }
        Ok(Self { inner: inner?, options })
    }

    /// Its options.
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// The names of the inputs.
    pub fn inputs(&self) -> Vec<String> {
        self.inner.inputs().iter().map(|input| input.name().to_owned()).collect()
    }

    /// The outputs as ONNX Runtime infers their types; the shape is `None` where an output is no tensor.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.inner.outputs().iter().map(value_info).collect()
    }

    /// A copy of a 32-bit float tensor in pinned host memory, which the device can read and write during a run.
    /// The memory belongs to the session: copy the tensor [elsewhere](Value::unpinned) before the session is dropped.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type or on a device, or when there is no such memory left.
    pub fn pinned(&self, tensor: &Value) -> Result<Value> {
        let Device::Cuda(device) = self.options.device else { return tensor.unpinned() };
        let failed = |e: ort::Error| Error::Tensor { reason: e.message().to_owned() };
        let (shape, data) = tensor.as_f32()?;
        let memory = memory(AllocationDevice::CUDA_PINNED, device).map_err(failed)?;
        let allocator = Allocator::new(&self.inner, memory).map_err(failed)?;
        let mut copy = Tensor::<f32>::new(&allocator, shape).map_err(failed)?;
        copy.try_extract_tensor_mut::<f32>().map_err(failed)?.1.copy_from_slice(data);
        Ok(Value(copy.into_dyn()))
    }

    /// Runs the model once and returns its outputs in order, in host memory.
    ///
    /// # Errors
    /// [`Error::Run`] with the message of ONNX Runtime.
    pub fn run<'a>(&mut self, feeds: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Result<Vec<Value>> {
        self.run_to(feeds, |_| Memory::Host)
    }

    /// Runs the model once and returns its outputs in order, each in the memory that `memory` gives for its name.
    ///
    /// # Errors
    /// [`Error::Run`] with the message of ONNX Runtime.
    pub fn run_to<'a>(
        &mut self,
        feeds: impl IntoIterator<Item = (&'a str, &'a Value)>,
        place: impl Fn(&str) -> Memory,
    ) -> Result<Vec<Value>> {
        let failed = |e: ort::Error| match e.message() {
            reason if reports_memory(reason) => Error::OutOfMemory { reason: reason.to_owned(), running: true },
            reason => Error::Run { reason: reason.to_owned() },
        };
        let Device::Cuda(device) = self.options.device else {
            let feeds: Vec<(&str, SessionInputValue<'_>)> =
                feeds.into_iter().map(|(name, value)| (name, SessionInputValue::from(&value.0))).collect();
            let outputs = self.inner.run(feeds).map_err(failed)?;
            return Ok(outputs.into_iter().map(|(_, value)| Value(value)).collect());
        };
        // A binding reuses its output buffers, and the outputs kept are inputs of the next run: each run has its own.
        let mut binding = self.inner.create_binding().map_err(failed)?;
        for (name, value) in feeds {
            binding.bind_input(name, &value.0).map_err(failed)?;
        }
        let memory = |place| match place {
            Memory::Device => memory(AllocationDevice::CUDA, device),
            Memory::Pinned => memory(AllocationDevice::CUDA_PINNED, device),
            Memory::Host => memory(AllocationDevice::CPU, 0),
        };
        for output in self.inner.outputs() {
            let memory = memory(place(output.name())).map_err(failed)?;
            binding.bind_output_to_device(output.name(), &memory).map_err(failed)?;
        }
        let outputs = self.inner.run_binding(&binding).map_err(failed)?;
        Ok(outputs.into_iter().map(|(_, value)| Value(value)).collect())
    }
}

fn value_info(outlet: &Outlet) -> ValueInfo {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return ValueInfo { name, dtype: DType::Undefined, shape: None };
    };
    let dims = shape.iter().zip(dimension_symbols.iter()).map(|(size, symbol)| match (size, symbol.as_str()) {
        (0.., _) => Dim::Fixed(*size),
        (_, "") => Dim::Unknown,
        (_, symbol) => Dim::Symbol(symbol.to_owned()),
    });
    ValueInfo { name, dtype: value::dtype(*ty), shape: Some(dims.collect()) }
}

fn memory(device: AllocationDevice<'_>, number: u32) -> ort::Result<MemoryInfo<'static>> {
    MemoryInfo::new(device, number as i32, AllocatorType::Device, MemoryType::Default)
}

/// Whether the loaded library has a CUDA provider that starts on this machine.
pub fn cuda_works(runtime: &Runtime) -> bool {
    cuda_problem(runtime).is_none()
}

/// Why the CUDA provider cannot be used on this machine, as ONNX Runtime says it; `None` if it can.
pub fn cuda_problem(runtime: &Runtime) -> Option<String> {
    preload_cuda(&runtime.library);
    if !CUDA::is_available().unwrap_or(false) {
        return Some("this ONNX Runtime has no CUDA provider".to_owned());
    }
    match OrtSession::builder(&runtime.environment) {
        Err(error) => Some(error.message().to_owned()),
        Ok(builder) => {
            let provider = CUDA::default().build().error_on_failure();
            builder.with_execution_providers([provider]).err().map(|error| error.message().to_owned())
        }
    }
}

fn configure(runtime: &Runtime, model: &Model, options: SessionOptions) -> Result<SessionBuilder> {
    let failed = |reason: &str| Error::Load { path: model.path().to_owned(), reason: reason.to_owned() };
    let folder = model.dir().to_str().ok_or_else(|| failed("the path of its folder is not valid UTF-8"))?;
    let mut builder = OrtSession::builder(&runtime.environment)
        .map_err(|e| failed(e.message()))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|e| failed(e.message()))?
        .with_config_entry(EXTERNAL_FOLDER, folder)
        .map_err(|e| failed(e.message()))?
        // Failures are returned as errors; the library would also print them.
        .with_log_level(LogLevel::Fatal)
        .map_err(|e| failed(e.message()))?;
    if options.threads > 0 {
        builder = builder.with_intra_threads(options.threads).map_err(|e| failed(e.message()))?;
    }
    let SessionOptions { device, threads } = options;
    tracing::debug!(model = %model.path().display(), %device, threads, "new session");
    let provider = match options.device {
        Device::Cpu => CPU::default().build(),
        Device::Cuda(n) => {
            preload_cuda(&runtime.library);
            CUDA::default()
                .with_device_id(n as i32)
                // The 11-bit factors of TF32 lose components beside one of much greater variance.
                .with_tf32(false)
                .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
                .build()
        }
    };
    builder
        .with_execution_providers([provider.error_on_failure()])
        .map_err(|e| Error::Device { device: options.device.to_string(), reason: e.message().to_owned() })
}

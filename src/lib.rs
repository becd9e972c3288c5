//! EVA-initialised LoRA adapters from exported ONNX models.
//!
//! The library reads an ONNX model without copying its weights ([`onnx`]), finds its linear layers and
//! their PyTorch names ([`linear`]), runs calibration batches ([`calib`]) through ONNX Runtime
//! ([`runtime`]) and turns what it sees into a LoRA adapter. It puts adapters into models and takes them out again
//! ([`splice`], [`formats`]). ARCHITECTURE.md tells how the pieces fit.

pub mod adapter;
pub mod calib;
pub mod capture;
pub mod checkpoint;
mod convert;
pub mod dtype;
mod error;
pub mod eva;
pub mod feeds;
pub mod formats;
mod graph;
pub mod group;
pub mod hub;
pub mod init;
mod inspect;
pub mod linear;
pub mod named;
pub mod onnx;
pub mod output;
mod parallel;
pub mod pca;
pub mod report;
pub mod runtime;
pub mod sketch;
pub mod splice;
mod splicing;
pub mod system;
pub mod tensor;

pub use adapter::{Adapter, AdapterModule, Base};
pub use calib::{BatchSize, Order, TextSource};
pub use convert::{ConvertOptions, Converted, Scaling, convert};
pub use dtype::DType;
pub use error::{Error, ErrorKind};
pub use eva::{BatchRecord, Next, Ranks, Settings, Stop};
pub use hub::config::TASK_TYPES;
pub use init::{CaptureMethod, DataOptions, Init, Initialised, Note, Progress, RuntimeOptions};
pub use inspect::{Inspection, LayerInfo, ModelInfo, ModuleInfo, SkippedNode, inspect};
pub use linear::NamedBy;
pub use named::{Naming, Selection};
pub use onnx::{Dim, ValueInfo};
pub use output::Destination;
pub use report::{GroupReport, ModuleReport, Report};
pub use splice::{Form, Task};
pub use splicing::{SpliceOptions, Spliced, splice};

/// The examples of docs/library.md, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;

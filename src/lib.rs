//! LoRA adapters initialised by Explained Variance Adaptation (EVA, [arXiv 2410.07170](https://arxiv.org/abs/2410.07170)),
//! from an exported ONNX model and calibration data, without PyTorch.
//!
//! [`Init`] runs calibration data through the model with ONNX Runtime, allocates ranks to its linear layers by explained
//! variance, and makes the leading principal components of each layer's input its A [rank, in_features]; B is zero. The
//! result loads with PEFT.
//!
//! ```no_run
//! use eva_onnx::Init;
//!
//! # fn main() -> Result<(), eva_onnx::Error> {
//! let run = Init::new("model.onnx").data(["calibration.jsonl"]).rank(16).run()?;
//! run.save("adapter")?; // a PEFT folder, and eva.json
//! for module in &run.modules {
//!     println!("{} rank {}, explains {:.3}", module.name, module.rank, module.explained_variance);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`inspect()`] lists the linear layers of a model and their PyTorch names without running it, and [`cuts()`] the blocks in
//! which a model larger than the memory runs. [`splice()`] puts an adapter
//! into a model: to train it, to feed it at run time, or merged into the weights. [`check()`] says whether the two fit.
//! [`merge()`] makes an adapter of what several runs know of their rows.
//! [`convert()`] turns adapters of one form into another. Every function fails with an [`Error`], whose message names the file and whose
//! [`hint`](Hint::hint) says what to do.
//!
//! The modules behind these functions are not part of the stable interface, and are hidden from this page.

// The files of the program, which the Python module runs, name this crate.
#[cfg(feature = "python")]
extern crate self as eva_onnx;

#[doc(hidden)]
pub mod adapter;
#[doc(hidden)]
pub mod blocks;
#[doc(hidden)]
pub mod calib;
#[doc(hidden)]
pub mod capture;
mod caught;
mod check;
#[doc(hidden)]
pub mod checkpoint;
#[cfg(feature = "python")]
#[path = "bin/eva-onnx/main.rs"]
#[expect(dead_code, reason = "`main` is that of the program")]
mod command;
mod convert;
mod cuts;
mod doctor;
#[doc(hidden)]
pub mod dtype;
mod error;
#[doc(hidden)]
pub mod eva;
#[doc(hidden)]
pub mod feeds;
#[doc(hidden)]
pub mod fingerprint;
#[doc(hidden)]
pub mod formats;
#[doc(hidden)]
pub mod gradient;
mod graph;
#[doc(hidden)]
pub mod group;
mod hint;
#[doc(hidden)]
pub mod hub;
#[doc(hidden)]
pub mod init;
mod inspect;
#[doc(hidden)]
pub mod linear;
#[doc(hidden)]
pub mod media;
mod merging;
#[doc(hidden)]
pub mod named;
#[doc(hidden)]
pub mod onnx;
#[doc(hidden)]
pub mod output;
#[doc(hidden)]
pub mod page;
mod parallel;
#[doc(hidden)]
pub mod pca;
#[cfg(feature = "python")]
mod python;
mod readers;
mod regular;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod runtime;
mod siblings;
#[doc(hidden)]
pub mod sketch;
#[doc(hidden)]
pub mod splice;
mod splicing;
#[doc(hidden)]
pub mod summary;
#[doc(hidden)]
pub mod system;
#[doc(hidden)]
pub mod tensor;
#[doc(hidden)]
pub mod train;
mod training;
mod worker;

pub use adapter::Adapter;
pub use check::check;
pub use convert::convert;
pub use cuts::cuts;
pub use doctor::doctor;
pub use dtype::DType;
pub use error::{Error, ErrorKind};
pub use eva::Next;
pub use hint::Hint;
pub use init::Init;
pub use inspect::inspect;
pub use merging::merge;
pub use splicing::splice;
pub use training::Train;

/// Options of the functions of this crate, with the defaults of the command line.
pub mod options {
    pub use crate::blocks::Blocks;
    pub use crate::calib::{BatchSize, FieldValue, Fields, OnBadRow, Order, Padding, Shard, TextSource};
    pub use crate::capture::CaptureMethod;
    pub use crate::convert::{ConvertOptions, Scaling};
    pub use crate::eva::{Ranks, Settings};
    pub use crate::hub::config::TASK_TYPES;
    pub use crate::init::{BlockOptions, CheckpointOptions, DataOptions, RuntimeOptions, Split, SummaryOptions, shard};
    pub use crate::linear::GraphNames;
    pub use crate::merging::MergeOptions;
    pub use crate::named::{Naming, Selection};
    pub use crate::output::{Destination, Link};
    pub use crate::readers::Reader;
    pub use crate::splice::{Form, Inputs};
    pub use crate::splicing::SpliceOptions;
    pub use crate::tensor::Tensor;
    pub use crate::train::{AdamW, Loss, Recompute, Schedule};
    pub use crate::training::{CheckpointOptions as TrainCheckpointOptions, TrainSettings};
}

/// What the functions of this crate return, and what observers of a run see.
pub mod results {
    pub use crate::adapter::{AdapterModule, Base, BaseWeights};
    pub use crate::blocks::Carried;
    pub use crate::calib::{BadRows, RowCounts};
    pub use crate::check::{Checked, FormChecked};
    pub use crate::convert::Converted;
    pub use crate::cuts::{BlockInfo, Cuts};
    pub use crate::doctor::{Cuda, Diagnosis, OnnxRuntime, Searched};
    pub use crate::eva::{BatchRecord, Stop};
    pub use crate::init::{BlockProgress, Initialised, MemoryNeed, Note, Plan, PlannedModule, Progress, Summarised};
    pub use crate::inspect::{Inspection, LayerInfo, ModelInfo, ModuleInfo, SkippedNode};
    pub use crate::linear::NamedBy;
    pub use crate::linear::module::split_block;
    pub use crate::merging::Merged;
    pub use crate::onnx::{Dim, ValueInfo};
    pub use crate::page::{Grid, Module as RecordedModule, Record, RunRecord, TrainRecord, level};
    pub use crate::report::{GroupReport, ModuleReport, Report, Run, Seconds, Totals};
    pub use crate::runtime::CudaLibrary;
    pub use crate::splicing::Spliced;
    pub use crate::summary::Part;
    pub use crate::training::{
        CheckpointError, Difference, Evaluation, Resumed, StepRecord, TrainPlan, TrainProgress, Trained,
    };
}

/// The examples of docs/library.md, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;

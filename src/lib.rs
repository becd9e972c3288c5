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
pub mod dtype;
pub mod eva;
pub mod feeds;
pub mod formats;
mod graph;
pub mod group;
pub mod hub;
pub mod linear;
pub mod onnx;
pub mod output;
mod parallel;
pub mod pca;
pub mod report;
pub mod runtime;
pub mod sketch;
pub mod splice;
pub mod system;

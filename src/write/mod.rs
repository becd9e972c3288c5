//! Pure serialisers, and the one place that puts their bytes on disk.

pub mod fs;
pub mod manifest;
pub mod model;
pub mod onnx_adapter;
pub mod peft;
pub mod report;

//! The integration tests: one binary, one module an area.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod calib;
mod capture;
mod capture_limits;
mod cli;
mod convert;
mod docs;
mod eva;
mod exports;
mod facade;
mod grouping;
mod inputs;
mod linear;
mod linear_checkpoint;
mod linear_confirm;
mod linear_fused;
mod linear_names;
mod linear_quantized;
mod model;
mod model_branch;
mod model_graph;
mod model_patch;
mod ort_library;
mod output;
mod pca;
mod pca_golden;
mod peft_reader;
mod peft_writer;
mod quantized;
mod splice;
mod splice_forms;
mod splice_quantized;
mod splice_training;
mod tidy;

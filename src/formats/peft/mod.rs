//! The folder that PEFT's `save_pretrained` writes for a LoRA adapter: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! `A` is [rank, in] and `B` [out, rank].

mod config;
mod read;
mod write;

pub use read::read;
pub use write::{config, weights};

/// File name of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// File name of the config.
pub const CONFIG: &str = "adapter_config.json";

/// What PEFT puts before the name of a module in the names of tensors.
const PREFIX: &str = "base_model.model.";

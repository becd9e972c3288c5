//! The folder that PEFT's `save_pretrained` writes for a LoRA adapter: `adapter_config.json` and
//! `adapter_model.safetensors`.

mod read;
mod write;

pub use read::read;
pub use write::{Element, config, weights};

/// File name of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// File name of the config.
pub const CONFIG: &str = "adapter_config.json";

//! The folder that PEFT's `save_pretrained` writes for a LoRA adapter: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! `A` is [rank, in] and `B` [out, rank].

mod config;
pub(super) mod names;
mod read;
mod write;

pub use read::{Contents, SavedWeights, dtypes, read, read_all, saved_weights};
pub use write::{config, config_with, diffusers, weights, weights_with};

/// File name of the weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// Start and end of the file names of weights in several files, around the number and `-of-` their count.
const SHARD: &str = "adapter_model-";
const SHARD_END: &str = ".safetensors";
/// File name of the weights in PyTorch's own format, which old versions of PEFT wrote.
const PICKLED: &str = "adapter_model.bin";
/// File name of what diffusers loads.
pub const DIFFUSERS: &str = "pytorch_lora_weights.safetensors";
/// File name of the config.
pub const CONFIG: &str = "adapter_config.json";

/// The key of the config that says which names of a graph the modules have, if not those of PyTorch. PEFT warns of keys
/// that it does not know, and then does not find the modules.
const GRAPH_NAMES: &str = "eva_onnx_names";

/// What PEFT puts before the name of a module in the names of tensors.
const PREFIX: &str = "base_model.model.";

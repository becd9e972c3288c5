//! What the Hugging Face Hub keeps beside a model, and where.

pub mod config;
pub mod conventions;
pub mod layout;
pub mod llama_cpp;
pub(crate) mod predictions;

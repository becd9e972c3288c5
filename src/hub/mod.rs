//! What the Hugging Face Hub keeps beside a model.

pub mod config;
pub mod conventions;

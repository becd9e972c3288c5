//! Adapters in graphs: LoRA branches to train or to feed, or weights with the product merged in.
//!
//! [`fit()`] finds the layers of a model that the modules of an adapter belong to. [`trainable`], [`adapter_inputs`] and
//! [`merge()`] make the [`Patch`](crate::onnx::Patch) that adds the adapter.

mod error;
mod fit;
mod lora;
mod merge;
mod names;
mod plain;
mod record;
mod saved;
mod weight;
mod weight_file;

pub use error::{Error, OtherShape, Unmergeable, Unplaceable};
pub use fit::{Site, fit};
pub(crate) use lora::branches;
pub use lora::{Inputs, adapter_inputs, check_branches, check_products, parameters, trainable};
pub use merge::{check_merge, merge};
pub(crate) use names::module_of;
pub use names::{PREFIX, a_name, b_name, scale_name};
pub use plain::{check_plain, plain};
pub use record::{Form, KEY, Record, RecordModule};
pub use saved::{Saved, SavedParameter};
pub use weight::is_weight;

//! Calibration data: rows of named fields in, padded batches of named tensors out.
//!
//! [`Arrivals`] takes rows from a [`RowSource`] (files, or any iterator), tokenises those with text the way Hugging
//! Face's `tokenizer(text)` does, and plans the batches of one window after the other, while earlier ones run;
//! [`load()`] plans them all. [`Calibration::batch`] pads one when it is needed. This module knows no model: vocabulary
//! size, static dimensions and tensor inputs come from [`LoadOptions`].
//!
//! A new format of data is a [`RowSource`] of its own; what a row means is decided in `parse`.

mod arrays;
mod arrivals;
mod bad_rows;
mod bad_tensor;
mod batch;
mod calibration;
mod chat;
mod content;
mod cut;
mod error;
mod example;
mod fields;
mod file_error;
mod files;
mod forms;
mod ids;
mod input;
mod labels;
mod media;
mod options;
mod padding;
mod pair;
mod parse;
mod plan;
mod reader;
mod row;
mod shard;
mod source;
mod spilled;
mod stack;
mod template;
mod tensors;
mod tokenizer;
mod windows;

#[cfg(feature = "python")]
pub(crate) use arrays::of_numpy;
pub use arrivals::{Arrival, Arrivals};
pub use bad_rows::{BadRows, OnBadRow};
pub use bad_tensor::BadTensor;
pub use batch::{Batch, FixedDims, TokenInputs, Tokens};
pub use calibration::{Calibration, RowCounts};
pub use chat::ChatError;
pub use error::Error;
pub use file_error::{FileError, Foreign};
pub use files::DataFiles;
pub(crate) use ids::marks_padding;
pub use input::{Lengths, Size, TensorInput};
pub use labels::{BadLabel, IGNORED, LABEL, LABELS, LabelError};
pub use options::LoadOptions;
pub use padding::Padding;
pub use parse::TextSource;
pub use plan::{BatchSize, Order};
pub use row::{FieldValue, Fields, Row, RowOrigin};
pub use shard::{Shard, ShardOf};
pub use source::{IterSource, RowSource, Rows};
pub use tensors::NamedTensor;
pub use windows::load;

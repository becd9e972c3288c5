//! Calibration data: JSON lines in, padded batches of token ids out.
//!
//! [`load()`] reads the rows of one or several `.jsonl` files, tokenises those that carry text the way
//! Hugging Face's `tokenizer(text)` does, and plans the batches; [`Calibration::batch`] pads one of
//! them when it is needed. Models and runtimes are unknown here: what a model dictates (vocabulary
//! size, static dimensions) comes in through [`LoadOptions`].

mod batch;
mod calibration;
mod content;
mod error;
mod example;
mod fields;
mod jsonl;
mod load;
mod pair;
mod parse;
mod plan;
mod row;
mod source;
mod template;
mod tensors;
mod tokenizer;

pub use batch::{Batch, FixedDims, Tokens};
pub use calibration::{Calibration, RowCounts};
pub use error::{BadTensor, Error};
pub use jsonl::JsonLines;
pub use load::{LoadOptions, load};
pub use parse::TextSource;
pub use plan::{BatchSize, Order};
pub use row::{FieldValue, Fields, Row, RowOrigin};
pub use source::{IterSource, RowSource, Rows};
pub use tensors::TensorInput;

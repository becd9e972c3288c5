//! Calibration data: JSON lines in, padded batches of token ids out.
//!
//! [`load`] reads the rows of one or several `.jsonl` files, tokenises those that carry text the way
//! Hugging Face's `tokenizer(text)` does, and plans the batches; [`Calibration::batch`] pads one of
//! them when it is needed. Models and runtimes are unknown here: what a model dictates (vocabulary
//! size, static dimensions) comes in through [`Options`].

mod batch;
mod error;
mod example;
mod fields;
mod lines;
mod load;
mod pair;
mod plan;
mod rows;
mod template;
mod tensors;
mod tokenizer;

pub use batch::{Batch, Shape, Source};
pub use error::{Error, Place};
pub use load::{Calibration, Counts, Options, load};
pub use plan::{BatchSize, Order};
pub use rows::TextSource;
pub use tensors::TensorInput;

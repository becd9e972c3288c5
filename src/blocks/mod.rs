//! Models in parts: blocks that run one after the other, so that one at a time is in memory, or parts side by side on several
//! devices.
//!
//! [`plan()`] and [`divide()`] find where to cut: pure functions of the graph. A [`Chain`] feeds each block what those before
//! have made of a batch, and keeps what it makes, in memory or in files. In a [`Pipeline`], all parts are loaded, and batches
//! run through them one after the other.

mod budget;
mod chain;
mod cut;
mod flow;
mod line;
mod parts;
mod pipeline;
mod requests;
mod sizes;
mod store;
mod weights;

pub use budget::{Blocks, Plan, PlanError, divide, plan};
pub use chain::{Chain, SavedChain};
pub(crate) use cut::handed_on;
pub use cut::{Block, Carried};
pub use pipeline::Pipeline;

/// How the files of what blocks return begin.
pub(crate) const STATES: &str = store::PREFIX;

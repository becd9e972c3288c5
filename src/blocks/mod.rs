//! Models that run in blocks, one after the other, so that one block at a time is in memory.
//!
//! [`plan()`] finds where to cut: a pure function of the graph. A [`Chain`] feeds each block what those before have made of a batch,
//! and keeps what it makes, in memory or in files.

mod budget;
mod chain;
mod cut;
mod flow;
mod requests;
mod sizes;
mod store;
mod weights;

pub use budget::{Blocks, Plan, PlanError, plan};
pub use chain::{Chain, SavedChain};
pub use cut::{Block, Carried};

/// How the files of what blocks return begin.
pub(crate) const STATES: &str = store::PREFIX;

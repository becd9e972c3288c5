//! Names checked against the weights of a checkpoint: `compare` finds equal weights, `verdict` draws the conclusions.

mod compare;
mod verdict;

pub(crate) use verdict::{Verdict, verdict};

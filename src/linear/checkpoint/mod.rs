//! Names checked against the weights of a checkpoint.

mod compare;
pub(crate) mod verdict;

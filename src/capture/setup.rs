//! What a capture is built from.

use super::matching::Demands;
use super::sketch::strategy::Strategy;
use crate::feeds::Feeds;
use crate::group::Group;
use crate::onnx::{Model, Output, Patch};
use crate::runtime::{Runtime, SessionOptions};

/// What a capture is built from.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// ONNX Runtime.
    pub runtime: &'a Runtime,
    /// Device and threads.
    pub options: SessionOptions,
    /// The model as it was opened.
    pub model: &'a Model,
    /// How it is fed.
    pub feeds: &'a Feeds,
    /// The groups wanted.
    pub groups: &'a [Group],
    /// Components wanted of each group, at most its features.
    pub components: usize,
    /// How the sketch is laid out.
    pub strategy: Strategy,
    /// Seed of the first basis.
    pub seed: u64,
    /// What is known of how batches must be split.
    pub demands: Demands,
    /// Whether the whole model has nodes that may turn tokens round.
    pub may_turn: bool,
}

impl Setup<'_> {
    /// Lets the model return what other parts of it read.
    pub(super) fn return_carried(&self, patch: &mut Patch) {
        for name in self.feeds.returned() {
            if !patch.outputs.iter().any(|output| output.name == name) {
                patch.outputs.push(Output { name, dtype: None });
            }
        }
    }
}

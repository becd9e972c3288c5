//! The state of a run.

/// The state of a run; before the first batch, all counts are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Batches that the data has or the options allow, as soon as the rows are read that far; the run may converge before.
    pub planned: Option<usize>,
    /// Batches run.
    pub batches: usize,
    /// Attended tokens seen.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// Modules whose assigned components converged.
    pub converged: usize,
    /// Modules in all; 0 before the model is loaded.
    pub modules: usize,
    /// Where a run in blocks is; its batches, tokens and modules are those of the block.
    pub block: Option<BlockProgress>,
}

/// Where a run in blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockProgress {
    /// Number of the block, from 1.
    pub block: usize,
    /// All blocks.
    pub of: usize,
    /// Bytes of hidden states that are kept.
    pub states: u64,
}

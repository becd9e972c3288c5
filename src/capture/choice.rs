//! Which rows count in a run.

use super::layout::Layout;
use crate::calib::Batch;

/// Which rows of the groups of a stack count in one run.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Rows of each tensor that count.
    pub(super) kept: Vec<Vec<i64>>,
    /// Rows of each tensor; `None` when the graph decides.
    pub(super) all: Vec<Option<usize>>,
}

impl Choice {
    /// One row of each tensor, or all where rows are masked.
    pub(super) fn probe(tensors: usize) -> Self {
        Self { kept: vec![vec![0]; tensors], all: vec![None; tensors] }
    }

    /// The rows of kept tokens or sequences.
    pub(super) fn of(layouts: &[Layout], batch: &Batch) -> Self {
        let kept = layouts.iter().map(|layout| layout.rows(batch)).collect();
        Self { kept, all: layouts.iter().map(|layout| layout.all(batch)).collect() }
    }

    /// Rows that count; `None` when the graph decides.
    pub(super) fn count(&self) -> Option<usize> {
        self.all.iter().all(Option::is_some).then(|| self.kept.iter().map(Vec::len).sum())
    }

    /// Which of the rows of all tensors, one behind the other, count; one value for all when the graph decides.
    pub(super) fn mask(&self) -> Vec<bool> {
        let Some(_) = self.count() else { return vec![true] };
        let mut mask = Vec::new();
        for (kept, all) in self.kept.iter().zip(&self.all) {
            let from = mask.len();
            mask.resize(from + all.unwrap_or(0), false);
            kept.iter().for_each(|&row| mask[from + row as usize] = true);
        }
        mask
    }
}

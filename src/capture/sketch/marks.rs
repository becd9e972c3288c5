//! States to go back to. What the session returned is shared with them, and not copied.

use super::stack::StackMark;
use crate::capture::interface::Events;
use crate::capture::matching::Matching;

/// The state after a batch.
pub(super) struct Mark {
    pub(super) number: usize,
    pub(super) batches: usize,
    pub(super) events: Events,
    pub(super) matching: Matching,
    pub(super) stacks: Vec<StackMark>,
}

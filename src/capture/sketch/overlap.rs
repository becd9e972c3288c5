//! The work of the host while a batch runs: it reads the statistics of the batch before and decomposes what is due.

use super::codec::Seen;
use super::member::{Encoded, Member};
use super::schedule::Due;
use crate::capture::error::Error;
use crate::parallel::{each, joined};
use crate::runtime::Value;
use std::sync::Arc;

/// Statistics that a run returned and nobody has read yet.
#[derive(Clone)]
pub(super) struct Unread {
    pub(super) statistics: Arc<Value>,
    /// Of each group.
    pub(super) seen: Vec<Seen>,
}

/// The work for one stack.
pub(super) struct HostWork<'a> {
    pub(super) members: &'a mut [Member],
    pub(super) unread: Option<Unread>,
    /// Where the next rotations are written.
    pub(super) rotations: &'a mut Value,
    /// When each member is decomposed.
    pub(super) due: Vec<Due>,
}

/// The work for one group.
struct Task<'a> {
    member: &'a mut Member,
    unread: Option<Encoded<'a>>,
    rotation: &'a mut [f32],
    due: Due,
}

/// Runs a batch and does the work meanwhile. One of the threads is left to start the operations of the device.
pub(super) fn beside<T>(
    run: impl FnOnce() -> Result<T, Error>,
    work: Vec<HostWork<'_>>,
    threads: usize,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let host = scope.spawn(|| do_all(work, threads.saturating_sub(1).max(1)));
        let outputs = run();
        joined(host).and(outputs)
    })
}

/// Does the work for all stacks.
pub(super) fn do_all(mut work: Vec<HostWork<'_>>, threads: usize) -> Result<(), Error> {
    let mut tasks = Vec::new();
    for stack in &mut work {
        tasks.extend(stack.tasks()?);
    }
    each(tasks, threads, |task| task.member.read(task.unread, task.rotation, task.due))
}

impl HostWork<'_> {
    fn tasks(&mut self) -> Result<Vec<Task<'_>>, Error> {
        let count = self.members.len();
        let mut unread = vec![None; count];
        if let Some(Unread { statistics, seen }) = &self.unread {
            let values = statistics.as_f32()?.1;
            let of_each = seen.iter().copied().zip(values.chunks_exact(values.len() / count));
            unread = of_each.map(|encoded| Some(encoded).filter(|(seen, _)| seen.rows > 0)).collect();
        }
        let rotations = self.rotations.as_f32_mut()?;
        let size = rotations.len() / count;
        let members = self.members.iter_mut().zip(rotations.chunks_exact_mut(size)).zip(unread).zip(&self.due);
        Ok(members.map(|(((member, rotation), unread), &due)| Task { member, unread, rotation, due }).collect())
    }
}

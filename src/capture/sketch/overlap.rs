//! What the host does while a run goes on: it reads what the run before said, and decomposes what is ready.

use super::codec::{Seen, statistics, write_rotation};
use super::member::Member;
use super::schedule::Due;
use crate::capture::Error;
use crate::parallel::each;
use crate::pca::StreamingPca;
use crate::runtime::Value;

/// What a run said that nobody has read yet.
pub(super) struct Waiting {
    pub(super) statistics: Value,
    /// Of each group.
    pub(super) seen: Vec<Seen>,
}

/// The work for one stack.
pub(super) struct Behind<'a> {
    pub(super) members: &'a mut [Member],
    pub(super) waiting: Option<Waiting>,
    /// Where the next rotations go.
    pub(super) rotations: &'a mut Value,
    /// Which members are decomposed.
    pub(super) due: Due,
}

/// The work for one group.
struct Task<'a> {
    member: &'a mut Member,
    /// What the graph returned of it.
    stats: Option<(Seen, &'a [f32])>,
    rotation: &'a mut [f32],
    due: Due,
}

/// Does the work for all stacks.
pub(super) fn catch_up(mut stacks: Vec<Behind<'_>>, threads: usize) -> Result<(), Error> {
    let mut tasks = Vec::new();
    for stack in &mut stacks {
        tasks.extend(stack.tasks()?);
    }
    each(tasks, threads, Task::done)
}

impl Behind<'_> {
    fn tasks(&mut self) -> Result<Vec<Task<'_>>, Error> {
        let count = self.members.len();
        let mut stats = vec![None; count];
        if let Some(Waiting { statistics, seen }) = &self.waiting {
            let values = statistics.as_f32()?.1;
            let of_each = seen.iter().copied().zip(values.chunks_exact(values.len() / count));
            stats = of_each.map(|stats| Some(stats).filter(|(seen, _)| seen.rows > 0)).collect();
        }
        let rotations = self.rotations.as_f32_mut()?;
        let size = rotations.len() / count;
        let members = self.members.iter_mut().zip(rotations.chunks_exact_mut(size)).zip(stats).enumerate();
        let due = |i: usize| match self.due {
            Due::Even if i % 2 == 1 => Due::None,
            Due::Odd if i.is_multiple_of(2) => Due::None,
            due => due,
        };
        Ok(members.map(|(i, ((member, rotation), stats))| Task { member, stats, rotation, due: due(i) }).collect())
    }
}

impl Task<'_> {
    fn done(self) -> Result<(), Error> {
        let Self { member, stats, rotation, due } = self;
        if due == Due::Odd {
            member.decompose(StreamingPca::catch_up)?;
            write_rotation(&member.pca, rotation);
        }
        if let Some((seen, values)) = stats {
            member.pca.put_off(statistics(seen, values, member.pca.size()));
        }
        if matches!(due, Due::All | Due::Even) {
            member.decompose(StreamingPca::catch_up)?;
            write_rotation(&member.pca, rotation);
        }
        Ok(())
    }
}

//! States to go back to. What the session returned is shared with them, and not copied.

use super::Sketch;
use super::stack::StackMark;
use crate::capture::error::Error;
use crate::capture::interface::Events;
use crate::capture::matching::Matching;

/// The state after a batch.
pub(super) struct Mark {
    number: usize,
    batches: usize,
    events: Events,
    matching: Matching,
    stacks: Vec<StackMark>,
}

impl Sketch {
    /// Remembers the state under a number.
    pub(super) fn add_mark(&mut self, number: usize, most: usize) -> Result<(), Error> {
        let stacks = self.stacks.iter().map(|stack| stack.mark()).collect::<Result<Vec<_>, _>>()?;
        let (batches, events, matching) = (self.batches, self.events, self.matching.clone());
        self.marks.push_back(Mark { number, batches, events, matching, stacks });
        while self.marks.len() > most {
            self.marks.pop_front();
        }
        Ok(())
    }

    /// Goes back to the state of a number.
    pub(super) fn go_to_mark(&mut self, number: usize) -> Result<(), Error> {
        let found = self.marks.drain(..).find(|mark| mark.number == number);
        let Mark { batches, events, matching, stacks, .. } = found.ok_or(Error::State { what: "it is forgotten" })?;
        let session = self.session.as_ref().ok_or(Error::Unloaded)?;
        self.stacks.iter_mut().zip(stacks).try_for_each(|(stack, mark)| stack.return_to(mark, session))?;
        (self.batches, self.events, self.matching) = (batches, events, matching);
        self.host_is_done = false;
        Ok(())
    }
}

//! When statistics are decomposed: a batch at a time, or two batches on each basis.

/// Batches after each of which the basis rotates. Later it changes little, and every second batch is enough.
const EAGER: usize = 4;

/// What is done with the statistics of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// They rotate the basis and are not counted.
    WarmUp,
    /// The same, for stacks of which a warm-up has only learnt where the rows are.
    WarmUpDisplaced,
    /// They are counted and decomposed at once.
    Absorb,
    /// They are counted, and decomposed with those of the next batch; at once where components are hard to tell apart.
    Accumulate,
    /// They are counted, and decomposed while the next batches run.
    Defer,
}

impl Step {
    /// Of a batch by its number, from 0, for a host that is one batch late or not.
    pub(super) fn of(batch: usize, late: bool) -> Self {
        match batch {
            ..EAGER => Self::Absorb,
            _ if late => Self::Defer,
            _ if batch % 2 == 1 => Self::Absorb,
            _ => Self::Accumulate,
        }
    }
}

/// Which of the runs on one basis comes next, for a stack whose host is one batch late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Phase {
    /// The only one.
    Single,
    /// The first of two.
    First,
    /// The second of two.
    Second,
}

/// When a member of a stack is decomposed during a run, in which its statistics of the run before are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Not at all.
    Never,
    /// Before its statistics are read, which are then not part of what is decomposed.
    BeforeReading,
    /// With the statistics that are read.
    AfterReading,
}

impl Phase {
    /// The phase after this one. The next basis is kept for two runs if `pair`.
    pub(super) fn next(self, pair: bool) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Single | Self::Second if pair => Self::First,
            Self::Single | Self::Second => Self::Single,
        }
    }

    /// When a member is decomposed: of a pair of runs, members of even numbers have the first one and the others the
    /// second, and both decompose the same two batches.
    pub(super) fn due(self, member: usize) -> Due {
        let even = member.is_multiple_of(2);
        match self {
            Self::Single => Due::AfterReading,
            Self::First if even => Due::AfterReading,
            Self::Second if !even => Due::BeforeReading,
            Self::First | Self::Second => Due::Never,
        }
    }

    /// When a member is decomposed if no run follows: only those for which a second run was meant.
    pub(super) fn due_at_the_end(self, member: usize) -> Due {
        if self == Self::Second { self.due(member) } else { Due::Never }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_share_a_basis_and_the_members() {
        let (first, second) = (Phase::Single.next(true), Phase::First.next(false));
        assert_eq!(
            (first, second, second.next(true), second.next(false)),
            (Phase::First, Phase::Second, first, Phase::Single)
        );
        assert_eq!([0, 1].map(|member| Phase::Single.due(member)), [Due::AfterReading; 2]);
        assert_eq!([0, 1].map(|member| first.due(member)), [Due::AfterReading, Due::Never]);
        assert_eq!([0, 1].map(|member| second.due(member)), [Due::Never, Due::BeforeReading]);
    }

    #[test]
    fn the_first_batches_are_decomposed_at_once() {
        assert_eq!([0, 3, 4, 5, 6].map(|batch| Step::of(batch, false)), {
            use Step::{Absorb, Accumulate};
            [Absorb, Absorb, Accumulate, Absorb, Accumulate]
        });
        assert_eq!([3, 4, 5].map(|batch| Step::of(batch, true)), [Step::Absorb, Step::Defer, Step::Defer]);
    }
}

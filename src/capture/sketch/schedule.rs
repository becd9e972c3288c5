//! When groups are decomposed.

/// Which members of a stack are decomposed during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    None,
    All,
    /// Of two runs with the same directions this is the first: every second member.
    Even,
    /// This is the second: the others. What the first said is not a part of what they decompose.
    Odd,
}

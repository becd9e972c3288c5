//! Errors that say what to do.

/// An error that says what to do about it.
pub trait Hint: std::error::Error {
    /// What the user can do about it, when there is something.
    fn hint(&self) -> Option<String>;
}

//! Failures of the linear algebra.

/// Failures of the linear algebra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input of a decomposition is not finite, or its iteration did not converge.
    #[error("the {what} did not converge: its input is not finite or is badly scaled")]
    NoConvergence {
        /// The decomposition, for example `eigenvalue decomposition`.
        what: &'static str,
    },
}

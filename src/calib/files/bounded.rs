//! A reader that gives no more than a row may have.

use std::fmt;
use std::io::{self, Read};

use super::object::LONGEST;

/// A row has too many bytes.
#[derive(Debug)]
struct Exceeded;

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row has more than {LONGEST} bytes")
    }
}

impl std::error::Error for Exceeded {}

/// Whether this is the error of a row with too many bytes.
pub(super) fn exceeded(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Exceeded>())
}

/// Gives the bytes of one row; [`allow`](Self::allow) begins the next one.
pub(super) struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: LONGEST }
    }

    pub(super) fn allow(&mut self) {
        self.left = LONGEST;
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(Exceeded));
        }
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}

//! Work spread over threads.

use super::Error;
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// Does something with each item; each thread takes the next one when it is done with another.
pub(super) fn each<T: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let threads = threads.min(items.len());
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let until_done = || std::iter::from_fn(next).try_for_each(&work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(until_done)).collect();
        threads.into_iter().try_for_each(joined)
    })
}

/// What `make` makes of each item, in their order.
pub(super) fn map_each<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    make: impl Fn(&I) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let mut made: Vec<Option<T>> = items.iter().map(|_| None).collect();
    each(made.iter_mut().zip(items).collect(), threads, |(made, item)| {
        *made = Some(make(item)?);
        Ok(())
    })?;
    Ok(made.into_iter().flatten().collect())
}

/// What a thread returns; a panic goes on in this one.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

//! Work for several threads.

use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// Does some work for each item; a thread takes the next item when it is done with one. The first error ends its
/// thread.
pub(crate) fn each<T: Send, E: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = threads.min(items.len());
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let until_done = || std::iter::from_fn(next).try_for_each(&work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(until_done)).collect();
        threads.into_iter().try_for_each(joined)
    })
}

/// The results of `make` for each item, in order.
pub(crate) fn map_each<I: Sync, T: Send, E: Send>(
    items: &[I],
    threads: usize,
    make: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let mut made: Vec<Option<T>> = items.iter().map(|_| None).collect();
    each(made.iter_mut().zip(items).collect(), threads, |(made, item)| {
        *made = Some(make(item)?);
        Ok(())
    })?;
    Ok(made.into_iter().flatten().collect())
}

/// The result of a thread; its panic continues in this one.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What `make` makes of each item, in order.
pub(crate) fn map<I: Send, T: Send>(items: Vec<I>, threads: usize, make: impl Fn(I) -> T + Sync) -> Vec<T> {
    let mut made: Vec<Option<T>> = items.iter().map(|_| None).collect();
    let done = each(made.iter_mut().zip(items).collect(), threads, |(made, item)| {
        *made = Some(make(item));
        Ok::<(), std::convert::Infallible>(())
    });
    match done {
        Ok(()) => made.into_iter().flatten().collect(),
    }
}

/// As many threads as the process has cores.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

//! A mapped file that another process cuts short: the system then sends SIGBUS to the thread that reads it.
//!
//! Only Linux says which file it was; elsewhere the signal ends the process as it always does.

#[cfg(target_os = "linux")]
mod linux;

/// From now on, such a file is named, what was begun is removed, and the process ends with the status of a file that changed.
#[cfg(target_os = "linux")]
pub(crate) fn end_on_bus_error() {
    linux::watch();
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn end_on_bus_error() {}

//! What only the operating system can tell: an interrupt, and the memory used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Installs the interrupt handler: the first Ctrl-C raises the flag, the second ends the process with
/// this status.
pub fn interrupt_flag(status: u8) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    // A handler can only be installed once a process; without one, Ctrl-C ends the process as usual.
    let _ = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(status));
        }
    });
    flag
}

/// Largest resident set of this process in bytes, on Linux.
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

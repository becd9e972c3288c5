//! Ctrl-C.

use super::error::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Installs the interrupt handler: the first Ctrl-C raises the flag, the second ends the process with `status`.
pub(crate) fn interrupt_flag(status: ExitStatus) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    // A handler can only be installed once a process; without one, Ctrl-C ends the process as usual.
    let _ = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            std::process::exit(status as i32);
        }
    });
    flag
}

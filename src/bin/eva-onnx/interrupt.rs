//! Ctrl-C, and the signals that ask a process to end.

use super::error::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// From now on, a signal raises the flag, and a second one ends the process without a trace in the file system.
pub(crate) fn interrupt_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    on_signal(move || {
        if raised.swap(true, Ordering::SeqCst) {
            end();
        }
    });
    flag
}

/// From now on, a signal ends the process without a trace in the file system.
pub(crate) fn end_on_interrupt() {
    on_signal(|| end());
}

fn on_signal(act: impl FnMut() + Send + 'static) {
    // A handler can only be installed once a process; without one, Ctrl-C ends the process as usual.
    let _ = ctrlc::set_handler(act);
}

fn end() -> ! {
    eva_onnx::output::abandon();
    eprintln!("error: interrupted; nothing was written");
    let status = ExitStatus::Interrupted as i32;
    #[cfg(unix)]
    // SAFETY: it ends the process at once. Other threads go on until then, so destructors of statics must not run.
    unsafe {
        libc::_exit(status)
    }
    #[cfg(not(unix))]
    std::process::exit(status)
}

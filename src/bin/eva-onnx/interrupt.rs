//! Ctrl-C, and the signals that ask a process to end.

use super::error::ExitStatus;
use super::printed::say;
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
    let ignored = ignored_signals();
    // A handler can only be installed once a process; without one, Ctrl-C ends the process as usual.
    let _ = ctrlc::set_handler(act);
    ignore(&ignored);
}

/// The signals that this process was started to ignore, as under `nohup` or in the background of a script.
#[cfg(unix)]
fn ignored_signals() -> Vec<libc::c_int> {
    let is_ignored = |signal: &libc::c_int| {
        // SAFETY: without a new action, `sigaction` only fills in the structure, which is valid when all is zero.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
        }
    };
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(is_ignored).collect()
}

#[cfg(unix)]
fn ignore(signals: &[libc::c_int]) {
    for signal in signals {
        // SAFETY: ignoring a signal runs no code of this process.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// From now on, a file that would be larger than this process may make one is an error of the write, and no signal.
#[cfg(unix)]
pub(crate) fn refuse_large_files_by_error() {
    ignore(&[libc::SIGXFSZ]);
}

#[cfg(not(unix))]
pub(crate) fn refuse_large_files_by_error() {}

#[cfg(not(unix))]
fn ignored_signals() {}

#[cfg(not(unix))]
fn ignore((): &()) {}

fn end() -> ! {
    eva_onnx::options::Destination::abandon_all();
    say("error", "interrupted; nothing was written");
    let status = ExitStatus::Interrupted as i32;
    #[cfg(unix)]
    // SAFETY: it ends the process at once. Other threads go on until then, so destructors of statics must not run.
    unsafe {
        libc::_exit(status)
    }
    #[cfg(not(unix))]
    std::process::exit(status)
}

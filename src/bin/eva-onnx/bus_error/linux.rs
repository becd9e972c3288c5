//! The handler of SIGBUS, and the thread that it wakes.

use super::super::error::ExitStatus;
use super::super::printed::say;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The end of a pipe that wakes the thread which ends the process.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// The address that could not be read.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
/// Seconds after which the process ends without a word, if that thread cannot work.
const PATIENCE: u32 = 10;

pub(super) fn watch() {
    let mut ends = [-1; 2];
    // SAFETY: it fills the array of two, which is there.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return;
    }
    // SAFETY: the descriptor was just opened, and nothing else owns it.
    let wait = unsafe { File::from_raw_fd(ends[0]) };
    let spawned = std::thread::Builder::new().name("bus error".to_owned()).spawn(|| end_when_woken(wait));
    if spawned.is_err() {
        return;
    }
    WAKE.store(ends[1], Ordering::SeqCst);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    // SAFETY: the structure is valid when all is zero, and the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

/// Does only what a signal handler may: it stores a number, writes a byte, waits, and ends the process.
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid `info` to a handler with SA_SIGINFO, and for SIGBUS it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr()) };
    if code != libc::BUS_ADRERR {
        // Another kind of bus error: the instruction runs again, and the signal has its usual effect (SA_RESETHAND).
        return;
    }
    ADDRESS.store(address as usize, Ordering::SeqCst);
    // SAFETY: these functions are safe in signal handlers. The other thread ends the process.
    unsafe {
        libc::write(WAKE.load(Ordering::SeqCst), c"!".as_ptr().cast(), 1);
        libc::sleep(PATIENCE);
        libc::_exit(ExitStatus::Changed as i32)
    }
}

fn end_when_woken(mut wait: File) {
    if wait.read_exact(&mut [0]).is_err() {
        return;
    }
    eva_onnx::options::Destination::abandon_all();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let file = mapped_at(&maps, ADDRESS.load(Ordering::SeqCst));
    let file = file.map_or("a mapped file".to_owned(), |path| format!("`{path}`"));
    say("error", &format!("{file} was cut short, or could not be read, while it was in use; nothing was written"));
    say("hint", "give a file another content by renaming a new one to its name, which lets runs go on");
    // SAFETY: it ends the process at once. Another thread waits in its signal handler until then.
    unsafe { libc::_exit(ExitStatus::Changed as i32) }
}

/// The file that is mapped at an address, in the text of `/proc/self/maps`.
fn mapped_at(maps: &str, address: usize) -> Option<&str> {
    let holds = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text| usize::from_str_radix(text, 16).ok();
        range.and_then(|(from, to)| Some(hex(from)? <= address && address < hex(to)?)) == Some(true)
    };
    let line = maps.lines().find(holds)?;
    let path = &line[line.find('/')?..];
    Some(path.strip_suffix(" (deleted)").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::mapped_at;

    #[test]
    fn the_file_at_an_address_is_found() {
        let maps = "1000-3000 r--p 00000000 08:01 7    /a b/model.onnx\n3000-4000 rw-p 00000000 00:00 0 \n\
                    4000-5000 r--p 00000000 08:01 8    /c (deleted)\n";
        assert_eq!(
            [0x1000, 0x2fff, 0x4abc].map(|at| mapped_at(maps, at)),
            [Some("/a b/model.onnx"), Some("/a b/model.onnx"), Some("/c")]
        );
        assert_eq!([0xfff, 0x3000, 0x5000].map(|at| mapped_at(maps, at)), [None; 3]);
    }
}

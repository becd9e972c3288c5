//! Commands that a user watches at a terminal.

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

/// Runs a command whose standard error is a terminal, and interrupts it once as soon as `sign` is true of what the
/// terminal has shown.
pub fn interrupted_at(mut command: Command, sign: impl Fn(&str) -> bool) -> Output {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(OsStr::from_bytes(name.to_bytes())).unwrap();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::from(terminal)).spawn().unwrap();
    // The terminal ends when nobody has it open for writing: the command is kept here no longer.
    drop(command);
    let (mut master, mut shown, mut buffer) = (File::from(master), String::new(), [0; 4096]);
    let mut interrupted = false;
    while let Some(read) = master.read(&mut buffer).ok().filter(|read| *read > 0) {
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if !interrupted && sign(&shown) {
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            interrupted = true;
        }
    }
    let output = child.wait_with_output().unwrap();
    assert!(interrupted, "the sign never came: {shown}");
    Output { stderr: shown.into_bytes(), ..output }
}

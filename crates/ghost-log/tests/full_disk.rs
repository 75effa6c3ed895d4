//! A log that cannot be written must not end the daemon. A program of its own: the log is set up once, for the whole process.

use std::fs::File;
use std::io::{Error, Write};

#[test]
fn a_log_on_a_full_disk_ends_nobody() {
    // What is printed here about a failure goes where it always went.
    let shown = std::io::stderr();
    let kept = nix::unistd::dup(&shown).expect("standard error");
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    nix::unistd::dup2_stderr(&full).expect("standard error is a full disk");
    let written = shown.lock().write_all(b"x\n").map_err(|why| Error::raw_os_error(&why));
    ghost_log::start("info").expect("the log");
    let outcome = std::panic::catch_unwind(|| tracing::warn!("said to a full disk"));
    nix::unistd::dup2_stderr(&kept).expect("standard error");
    assert_eq!(written, Err(Some(nix::libc::ENOSPC)), "the disk is full indeed");
    assert!(outcome.is_ok(), "the daemon would have ended");
}

//! Descriptor tables: a child with one of its own, and what a program finds in its at its start.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts a child that has a copy of this descriptor and no other, bears this name, and does `work`.
///
/// For what asks a file system which its own process serves. A thread would keep the process from being gone after it was
/// killed, as long as its request is not answered (fs/fuse/dev.c `request_wait_answer`: not even SIGKILL ends the wait for a
/// request that was taken up), and nobody would answer it. A child is left behind, and is answered by who comes after.
///
/// # Errors
/// Those of fork(2).
pub fn child_with_only(fd: OwnedFd, name: &CStr, work: impl FnOnce(OwnedFd)) -> io::Result<()> {
    // SAFETY: the daemons that use this have one thread then, and glibc's allocator is whole in the child in any case (its
    // fork handlers see to that); the child does `work`, which takes no lock of this process, and ends.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let kept = fd.as_raw_fd().cast_unsigned();
            // SAFETY: the child's own copies, which no value of the child uses any more; a NUL-terminated name; no return from
            // here, so that nothing of the parent's is dropped.
            unsafe {
                libc::prctl(libc::PR_SET_NAME, name.as_ptr());
                if kept > 0 {
                    libc::syscall(libc::SYS_close_range, 0, kept - 1, 0);
                }
                libc::syscall(libc::SYS_close_range, kept + 1, u32::MAX, 0);
                for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                    libc::signal(signal, libc::SIG_IGN);
                }
            }
            work(fd);
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

/// A descriptor that whoever started this program has left open for it and named on the command line; close-on-exec from
/// now on. To be called at most once for each number, before anything else of the program opens descriptors.
///
/// # Errors
/// EBADF: it is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: an integer; fails with EBADF for a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, as just seen, and nobody's: this program has opened nothing yet, and the caller asks for it once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The first number that a service manager's descriptors have (sd_listen_fds(3), SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// Goes on as another program in this process, which finds these descriptors as a service manager passes them on: from number 3 in this
/// order, with their names, in LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID. All others that are close-on-exec are closed.
///
/// Returns only if it cannot. This process may then have lost descriptors that it still uses: there is nothing left for
/// it to do but to end.
pub fn become_with(mut command: Command, passed: &[(String, OwnedFd)]) -> io::Error {
    let count = RawFd::try_from(passed.len()).unwrap_or(RawFd::MAX - FIRST);
    let mut above = Vec::new();
    for (_, fd) in passed {
        // Out of the way of what comes next.
        match nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(FIRST + count)) {
            // SAFETY: a new descriptor, owned by nobody yet.
            Ok(copy) => above.push(unsafe { OwnedFd::from_raw_fd(copy) }),
            Err(errno) => return errno.into(),
        }
    }
    for (number, fd) in (FIRST..).zip(&above) {
        // SAFETY: integers. What had the number is closed under whoever owns it, as the documentation says.
        if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
            return io::Error::last_os_error();
        }
    }
    let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
    command.env("LISTEN_FDS", names.len().to_string());
    command.env("LISTEN_FDNAMES", names.join(":"));
    command.env("LISTEN_PID", std::process::id().to_string());
    command.exec()
}

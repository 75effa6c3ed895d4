//! Descriptor tables: a thread with one of its own, and what a program finds in its at its start.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::sched::{CloneFlags, unshare};

/// Gives the calling thread a descriptor table of its own that holds a copy of descriptor `number` only.
///
/// For a thread that asks a file system which its own process serves: as long as it shares the table, the process's death
/// cannot close the server's descriptor before the thread is gone, and the thread, asleep in a request that nobody
/// answers any more, never goes.
///
/// # Errors
/// ENOMEM. EBADF never: a number that is not open gives a descriptor that fails on use.
pub fn keep_only(number: RawFd) -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_FILES)?;
    let kept = number.cast_unsigned();
    for (first, last) in [(0, kept.wrapping_sub(1)), (kept + 1, u32::MAX)] {
        if first > last || last == u32::MAX && first == 0 {
            continue;
        }
        // SAFETY: the table was just unshared: what is closed here are this thread's own copies, which no value owns.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: this thread's copy, made by the unshare above; the original in the old table keeps its owner.
    let copy = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(copy)
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

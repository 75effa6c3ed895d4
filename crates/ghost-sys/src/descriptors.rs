//! A thread with a descriptor table of its own.

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

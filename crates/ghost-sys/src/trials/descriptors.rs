//! What is open.

use std::io;

/// Has every descriptor from `first` on closed by the next exec.
///
/// # Errors
/// EINVAL before Linux 5.11.
pub fn close_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: three integers; a flag of descriptors is changed, none is closed.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes every descriptor from `first` on. For a fresh child that goes on with what it opens itself: whatever in its
/// memory stands for one of them must not be used or dropped any more (the child of [`super::fork`] never drops it).
///
/// # Errors
/// None that the kernel documents for a range like this.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: three integers; see the contract above, which is about meaning, not memory.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

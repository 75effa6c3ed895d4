//! The nice value.

use std::io;

/// Sets the calling process's own, -20 to 19.
///
/// # Errors
/// EACCES: lower than it is, and not privileged.
pub fn set_nice(value: i32) -> io::Result<()> {
    // SAFETY: three integers.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

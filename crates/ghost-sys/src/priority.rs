//! Nice values of processes: -20 to 19.

use std::io;

/// The nice value of a process.
///
/// # Errors
/// ESRCH: there is no such process.
pub fn nice_of(pid: u32) -> io::Result<i32> {
    // SAFETY: no memory is passed. The raw call gives 20 - nice, so that no valid value looks like an error.
    let result = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, pid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(20 - (result as i32).clamp(1, 40)) }
}

/// Gives a process another nice value.
///
/// # Errors
/// ESRCH: there is no such process. EPERM, EACCES: the caller may not.
pub fn set_nice_of(pid: u32, nice: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, pid, nice) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_nice_value_is_set_and_read() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep");
        let before = nice_of(child.id()).expect("it lives");
        assert_eq!(before, crate::inherit::nice());
        set_nice_of(child.id(), 17).expect("a higher value is always allowed");
        assert_eq!(nice_of(child.id()).expect("it lives"), 17);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(nice_of(child.id()).expect_err("gone").raw_os_error(), Some(libc::ESRCH));
        assert!(set_nice_of(child.id(), 18).is_err());
    }
}

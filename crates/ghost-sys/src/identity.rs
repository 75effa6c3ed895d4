//! Which process a number means, and whose it is.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What the kernel says of a living process, in this process's PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// Its parent; 0 if that is outside this PID namespace.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
}

/// `struct pidfd_info` in its first version, include/uapi/linux/pidfd.h (Linux 6.13).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_PID: u64 = 1;
const PIDFD_INFO_CREDS: u64 = 2;
/// `_IOWR(0xFF, 11, struct pidfd_info)` with the 64 bytes of the first version (`PIDFD_INFO_SIZE_VER0`).
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;

/// Asks the kernel who a process is: one system call from Linux 6.13 on, a file of [`crate::procfs`] before.
///
/// # Errors
/// ESRCH: it has been waited for.
pub fn of(pidfd: &impl AsFd, pid: u32) -> io::Result<Identity> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_PID | PIDFD_INFO_CREDS, ..PidfdInfo::default() };
    // SAFETY: the request number carries the size of the structure that the kernel fills (fs/pidfs.c pidfd_info).
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result == 0 && info.mask & PIDFD_INFO_CREDS != 0 {
        return Ok(Identity { pid: info.tgid, ppid: info.ppid, uid: info.ruid });
    }
    let error = io::Error::last_os_error();
    if result == 0 || matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) {
        from_proc(pid)
    } else {
        Err(error)
    }
}

/// The process group of a process.
///
/// # Errors
/// ESRCH: there is no such process.
pub fn group(pid: u32) -> io::Result<u32> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: no memory is passed.
    let group = unsafe { libc::getpgid(pid) };
    u32::try_from(group).map_err(|_| io::Error::last_os_error())
}

/// The session of a process.
///
/// # Errors
/// ESRCH: there is no such process.
pub fn session(pid: u32) -> io::Result<u32> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: no memory is passed.
    let session = unsafe { libc::getsid(pid) };
    u32::try_from(session).map_err(|_| io::Error::last_os_error())
}

/// What a process is called (at most 15 bytes), and its real user.
///
/// # Errors
/// Those of reading its files in `/proc`.
pub fn name_and_user(pid: u32) -> io::Result<(Vec<u8>, u32)> {
    let mut name = std::fs::read(format!("/proc/{pid}/comm"))?;
    if name.last() == Some(&b'\n') {
        name.pop();
    }
    let pidfd = crate::pidfd::open(pid)?;
    Ok((name, of(&pidfd, pid)?.uid))
}

fn from_proc(pid: u32) -> io::Result<Identity> {
    // A name is any bytes.
    let text = crate::procfs::read(pid, "status")?;
    let text = String::from_utf8_lossy(&text);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_ascii_whitespace().next())
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/status has no {name}")))
    };
    Ok(Identity { pid, ppid: field("PPid:")?, uid: field("Uid:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_self_is_the_child_of_the_parent() {
        let pid = std::process::id();
        let pidfd = crate::pidfd::open(pid).unwrap();
        let identity = of(&pidfd, pid).unwrap();
        assert_eq!(
            identity,
            Identity { pid, ppid: std::os::unix::process::parent_id(), uid: nix::unistd::getuid().as_raw() }
        );
        assert_eq!(from_proc(pid).unwrap(), identity);
        assert_eq!(name_and_user(pid).unwrap().1, identity.uid);
        assert_eq!(session(pid).unwrap(), nix::unistd::getsid(None).unwrap().as_raw().unsigned_abs());
    }
}

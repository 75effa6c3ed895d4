//! Files of `/proc/PID` as the kernel has them, whatever is mounted over that directory: over a ghost's lies what its node says.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// include/uapi/linux/mount.h
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
/// MOUNT_ATTR_NOSUID, _NODEV, _NOEXEC
const ATTRIBUTES: libc::c_uint = 2 | 4 | 8;

/// Reads a file of a process. Who may not mount (without CAP_SYS_ADMIN) gets what `/proc` shows.
///
/// # Errors
/// ENOENT: there is no such process, or no such file. ESRCH: it has been waited for meanwhile.
pub fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    static OWN: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let mut file = match OWN.get_or_init(|| mount(c"proc").ok()) {
        Some(own) => {
            let path = format!("{pid}/{name}");
            File::from(openat(own, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
        }
        None => File::open(format!("/proc/{pid}/{name}"))?,
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file system that is mounted nowhere: only its descriptor leads there (fs/namespace.c, `fsmount()`). One of kind proc shows this
/// process's PID namespace (fs/proc/root.c, `proc_init_fs_context()`).
fn mount(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the name, which ends with a zero byte.
    let context = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC))? };
    let no_text = std::ptr::null::<libc::c_char>();
    // SAFETY: this command has neither key nor value, so that nothing is read or written.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, no_text, no_text, 0 as libc::c_int)
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no memory is passed.
    unsafe { owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, ATTRIBUTES)) }
}

/// # Safety
/// `result` is that of a system call that makes a descriptor, which nobody else has.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the caller's promise.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount as bind};
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn what_is_mounted_over_a_process_is_not_what_is_read() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: nothing can be mounted here");
            return;
        }
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let said = std::thread::spawn(move || {
            // Of this thread alone.
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            bind(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            bind(Some("/sys"), format!("/proc/{pid}").as_str(), none, MsFlags::MS_BIND, none).unwrap();
            (std::fs::read(format!("/proc/{pid}/status")).is_ok(), read(pid, "status").unwrap())
        });
        let said = said.join();
        child.kill().unwrap();
        child.wait().unwrap();
        let (is_there, status) = said.unwrap();
        assert!(!is_there, "something lies over it");
        let status = String::from_utf8_lossy(&status).into_owned();
        assert!(status.contains(&format!("\nPid:\t{pid}\n")), "{status}");
        assert!(read(pid, "status").is_err());
    }
}

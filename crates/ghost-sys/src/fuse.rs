//! The raw FUSE door: `/dev/fuse` and the mount. The protocol itself is bytes and is spoken in `ghost-host`.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a FUSE file system at `dir` and gives the server's end, non-blocking.
///
/// The file system is closed to everybody else's path look-ups (no `allow_other`): its files are reached only through
/// descriptors that the server's own process opened and passed on. fs/fuse/dir.c `fuse_permission` applies that rule to
/// look-ups and opens, not to reads of an open file.
///
/// # Errors
/// ENOENT or EACCES of /dev/fuse, and what mount(2) gives (EPERM without CAP_SYS_ADMIN).
pub fn mount_at(dir: &Path, source: &str) -> io::Result<OwnedFd> {
    mount_with(dir, source, "")
}

/// As [`mount_at`], for everybody: the kernel checks each file's owner and mode as it does on a disk (`allow_other`,
/// `default_permissions`).
///
/// # Errors
/// As [`mount_at`].
pub fn mount_for_all(dir: &Path, source: &str) -> io::Result<OwnedFd> {
    mount_with(dir, source, ",allow_other,default_permissions")
}

fn mount_with(dir: &Path, source: &str, more: &str) -> io::Result<OwnedFd> {
    let device =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0{more}", device.as_raw_fd());
    mount(
        Some(source),
        dir,
        Some("fuse.ghostproc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some(options.as_str()),
    )?;
    Ok(device.into())
}

/// Detaches whatever is mounted at `dir` (`MNT_DETACH`: open files keep working until they are closed).
///
/// # Errors
/// EINVAL if nothing is mounted there.
pub fn unmount(dir: &Path) -> io::Result<()> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    Ok(umount2(path.as_c_str(), MntFlags::MNT_DETACH)?)
}

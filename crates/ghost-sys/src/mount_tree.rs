//! Mounting a part of a mounted file system in a second place, in two steps (open_tree(2), move_mount(2)).
//!
//! The first step looks a path up, which may ask a file system's server and take as long as that; the second takes two
//! descriptors and asks nobody. What lies between the two is the caller's time to change his mind.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

/// include/uapi/linux/mount.h
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// A second mount of what is at `path`, attached nowhere yet; gone when the descriptor is closed unattached.
///
/// # Errors
/// Those of looking the path up, EPERM without CAP_SYS_ADMIN.
pub fn second_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with NUL and lives over the call; gives a new descriptor or -1.
    let fd = unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a mount of [`second_mount`] to the directory that `target` (which may be `O_PATH`) stands for.
///
/// # Errors
/// ENOENT: that directory is no more (fs/namespace.c `get_mountpoint`). EINVAL: it is in another mount namespace.
pub fn attach(mount: &impl AsFd, target: &impl AsFd) -> io::Result<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: two descriptors and two empty strings.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Detaches what is mounted last on `path` itself. No file system is asked for anything about its root directory
/// (fs/namei.c: `LOOKUP_MOUNTPOINT` does not revalidate it), so this does not wait for a server that hangs.
///
/// # Errors
/// EINVAL if nothing is mounted there, ENOENT if it does not exist.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?)
}

//! Namespaces that a program is put into instead of its parent's; its PID namespace is its parent's all the same.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Entered in this order, by the fresh child, which shares its root and working directory with nobody: the kernel asks for that
/// (fs/namespace.c, `mntns_install()`), and makes them the root of the mount namespace.
const KINDS: [&str; 4] = ["net", "uts", "ipc", "mnt"];

/// Mounts, network, host name and IPC objects of somebody.
#[derive(Debug)]
pub struct Namespaces([OwnedFd; KINDS.len()]);

impl Namespaces {
    /// Those of this process, as `/proc` names it now.
    ///
    /// # Errors
    /// EACCES: the caller could not trace it (kernel/nsproxy.c, fs/proc/namespaces.c). ENOENT.
    pub fn of(pid: u32) -> io::Result<Namespaces> {
        let open = |kind| File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from);
        let [net, uts, ipc, mnt] = KINDS.map(open);
        Ok(Namespaces([net?, uts?, ipc?, mnt?]))
    }

    pub(super) fn descriptors(&self) -> Vec<i32> {
        self.0.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

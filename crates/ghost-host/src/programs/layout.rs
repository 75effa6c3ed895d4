//! Fills in [`Config`] and [`TreeConfig`]: the running kernel's layout, this architecture's registers, and who the loader
//! is.

use std::fs;
use std::os::unix::fs::MetadataExt;

use ghost_abi::{Config, TreeConfig};

use super::LoadError;
use super::btf::Btf;

/// The running kernel's type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `enum pid_type` of include/linux/pid_types.h, unchanged since Linux 4.19.
const PIDTYPE_TGID: u32 = 1;
const PIDTYPE_PGID: u32 = 2;
const PIDTYPE_SID: u32 = 3;

/// Size of the kernel's pointers.
const POINTER: u32 = size_of::<u64>() as u32;

/// Offsets in `struct pt_regs` of the number, first and fourth argument of a running system call.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [u32; 3] = [120, 112, 56]; // orig_ax, di, r10
#[cfg(target_arch = "aarch64")]
const REGISTERS: [u32; 3] = [280, 0, 24]; // syscallno, regs[0] (overwritten only on return), regs[3]

/// The layout of the running kernel.
struct Layout(Btf);

impl Layout {
    fn read() -> Result<Self, LoadError> {
        let data = fs::read(KERNEL_BTF).map_err(LoadError::NoBtf)?;
        Btf::parse(data).map(Self).map_err(|_| LoadError::Layout(KERNEL_BTF))
    }

    /// Offset of `field`, written `structure.field`.
    fn offset(&self, field: &'static str) -> Result<u32, LoadError> {
        let (structure, path) = field.split_once('.').ok_or(LoadError::Layout(field))?;
        self.0.offset(structure, path).ok_or(LoadError::Layout(field))
    }

    /// Offset in bits of a bit field that is one bit wide.
    fn bit(&self, field: &'static str) -> Result<u32, LoadError> {
        let (structure, path) = field.split_once('.').ok_or(LoadError::Layout(field))?;
        self.0.bit(structure, path).ok_or(LoadError::Layout(field))
    }

    fn size(&self, structure: &'static str) -> Result<u32, LoadError> {
        self.0.size(structure).ok_or(LoadError::Layout(structure))
    }
}

/// For the programs that watch ghosts. Reads everything anew, so that it fits the caller's PID, namespaces and kernel.
pub fn configuration() -> Result<Config, LoadError> {
    let layout = Layout::read()?;
    let pids = layout.offset("signal_struct.pids")?;
    let [regs_syscall, regs_first, regs_fourth] = REGISTERS;
    Ok(Config {
        pid_namespace: namespace("pid")?,
        user_namespace: namespace("user")?,
        // Whoever comes after uses the same programs: what it sends itself is left out when records are read.
        own_pid: u32::MAX,
        task_signal: layout.offset("task_struct.signal")?,
        task_cred: layout.offset("task_struct.cred")?,
        task_exit_code: layout.offset("task_struct.exit_code")?,
        signal_tgid: pids + PIDTYPE_TGID * POINTER,
        signal_pgid: pids + PIDTYPE_PGID * POINTER,
        signal_live: layout.offset("signal_struct.live")?,
        pid_level: layout.offset("pid.level")?,
        pid_numbers: layout.offset("pid.numbers")?,
        upid_size: layout.size("upid")?,
        upid_nr: layout.offset("upid.nr")?,
        upid_ns: layout.offset("upid.ns")?,
        pid_namespace_inum: layout.offset("pid_namespace.ns.inum")?,
        cred_euid: layout.offset("cred.euid")?,
        cred_cap_effective: layout.offset("cred.cap_effective")?,
        cred_user_ns: layout.offset("cred.user_ns")?,
        user_namespace_inum: layout.offset("user_namespace.ns.inum")?,
        regs_syscall,
        regs_first,
        regs_fourth,
        syscall_kill: libc_number(nix::libc::SYS_kill),
        syscall_pidfd_send_signal: libc_number(nix::libc::SYS_pidfd_send_signal),
    })
}

/// For the programs that follow the tree.
pub fn tree_configuration() -> Result<TreeConfig, LoadError> {
    let layout = Layout::read()?;
    let pids = layout.offset("signal_struct.pids")?;
    Ok(TreeConfig {
        task_signal: layout.offset("task_struct.signal")?,
        task_group_leader: layout.offset("task_struct.group_leader")?,
        task_real_parent: layout.offset("task_struct.real_parent")?,
        task_real_cred: layout.offset("task_struct.real_cred")?,
        task_nsproxy: layout.offset("task_struct.nsproxy")?,
        task_pid: layout.offset("task_struct.pid")?,
        task_tgid: layout.offset("task_struct.tgid")?,
        task_start_boottime: layout.offset("task_struct.start_boottime")?,
        task_comm: layout.offset("task_struct.comm")?,
        signal_tgid: pids + PIDTYPE_TGID * POINTER,
        signal_pgid: pids + PIDTYPE_PGID * POINTER,
        signal_sid: pids + PIDTYPE_SID * POINTER,
        signal_live: layout.offset("signal_struct.live")?,
        signal_flags: layout.offset("signal_struct.flags")?,
        signal_group_exit_code: layout.offset("signal_struct.group_exit_code")?,
        signal_is_child_subreaper_bit: layout.bit("signal_struct.is_child_subreaper")?,
        signal_has_child_subreaper_bit: layout.bit("signal_struct.has_child_subreaper")?,
        pid_level: layout.offset("pid.level")?,
        pid_numbers: layout.offset("pid.numbers")?,
        upid_size: layout.size("upid")?,
        upid_nr: layout.offset("upid.nr")?,
        upid_ns: layout.offset("upid.ns")?,
        nsproxy_pid_namespace: layout.offset("nsproxy.pid_ns_for_children")?,
        pid_namespace_level: layout.offset("pid_namespace.level")?,
        pid_namespace_inum: layout.offset("pid_namespace.ns.inum")?,
        cred_uid: layout.offset("cred.uid")?,
        cred_euid: layout.offset("cred.euid")?,
        cred_gid: layout.offset("cred.gid")?,
    })
}

/// Inode number of one of the caller's namespaces; the kernel's own are 32 bits wide (`struct ns_common`).
fn namespace(kind: &'static str) -> Result<u32, LoadError> {
    let path = format!("/proc/self/ns/{kind}");
    let inode = fs::metadata(&path).map_err(|source| LoadError::Namespace { path, source })?.ino();
    u32::try_from(inode).map_err(|_| LoadError::Layout("ns_common.inum"))
}

fn libc_number(number: nix::libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

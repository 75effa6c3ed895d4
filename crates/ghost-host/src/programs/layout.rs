//! Fills in [`Config`]: the running kernel's layout, this architecture's registers, and who the loader is.

use std::fs;
use std::os::unix::fs::MetadataExt;

use ghost_abi::Config;

use super::LoadError;
use super::btf::Btf;

/// The running kernel's type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `enum pid_type` of include/linux/pid_types.h, unchanged since Linux 4.19.
const PIDTYPE_TGID: u32 = 1;
const PIDTYPE_PGID: u32 = 2;

/// Offsets in `struct pt_regs` of the number, first and fourth argument of a running system call.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [u32; 3] = [120, 112, 56]; // orig_ax, di, r10
#[cfg(target_arch = "aarch64")]
const REGISTERS: [u32; 3] = [280, 0, 24]; // syscallno, regs[0] (overwritten only on return), regs[3]

/// Reads everything anew, so that it fits the caller's PID, namespaces and kernel.
pub fn configuration() -> Result<Config, LoadError> {
    let data = fs::read(KERNEL_BTF).map_err(LoadError::NoBtf)?;
    let btf = Btf::parse(data).map_err(|_| LoadError::Layout(KERNEL_BTF))?;
    let offset = |structure, field, what| btf.offset(structure, field).ok_or(LoadError::Layout(what));
    let pids = offset("signal_struct", "pids", "signal_struct.pids")?;
    let pointer = size_of::<u64>() as u32;
    let [regs_syscall, regs_first, regs_fourth] = REGISTERS;
    Ok(Config {
        pid_namespace: namespace("pid")?,
        user_namespace: namespace("user")?,
        own_pid: std::process::id(),
        task_signal: offset("task_struct", "signal", "task_struct.signal")?,
        task_cred: offset("task_struct", "cred", "task_struct.cred")?,
        task_exit_code: offset("task_struct", "exit_code", "task_struct.exit_code")?,
        signal_tgid: pids + PIDTYPE_TGID * pointer,
        signal_pgid: pids + PIDTYPE_PGID * pointer,
        signal_live: offset("signal_struct", "live", "signal_struct.live")?,
        pid_level: offset("pid", "level", "pid.level")?,
        pid_numbers: offset("pid", "numbers", "pid.numbers")?,
        upid_size: btf.size("upid").ok_or(LoadError::Layout("upid"))?,
        upid_nr: offset("upid", "nr", "upid.nr")?,
        upid_ns: offset("upid", "ns", "upid.ns")?,
        pid_namespace_inum: offset("pid_namespace", "ns.inum", "pid_namespace.ns.inum")?,
        cred_euid: offset("cred", "euid", "cred.euid")?,
        cred_cap_effective: offset("cred", "cap_effective", "cred.cap_effective")?,
        cred_user_ns: offset("cred", "user_ns", "cred.user_ns")?,
        user_namespace_inum: offset("user_namespace", "ns.inum", "user_namespace.ns.inum")?,
        regs_syscall,
        regs_first,
        regs_fourth,
        syscall_kill: libc_number(nix::libc::SYS_kill),
        syscall_pidfd_send_signal: libc_number(nix::libc::SYS_pidfd_send_signal),
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

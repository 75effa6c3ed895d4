//! Who sends a signal, and at whom it is aimed: read off the task that is running.
//!
//! `si_pid` is the sender's number in the *sender's* PID namespace, and signals sent with a value carry whatever pid and uid
//! their sender wrote; the running task tells the truth.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_get_current_uid_gid, bpf_task_pt_regs},
};
use ghost_abi::{Scope, SignalFlags};

use crate::{
    config::config,
    task::{self, Address, read},
};

const CAP_KILL: u32 = 5;
/// Of `pidfd_send_signal` (include/uapi/linux/pidfd.h), from 6.9 on.
const PIDFD_SIGNAL_PROCESS_GROUP: u64 = 1 << 2;

/// Credentials of a task.
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    /// [`SignalFlags::PRIVILEGED`] or 0.
    pub privileged: u32,
}

/// Credentials of the running task.
#[inline(always)]
pub fn credentials() -> Credentials {
    let cred: Address = read(task::current() as Address, config!(task_cred));
    let effective: u32 = read(cred, config!(cred_cap_effective));
    let namespace: Address = read(cred, config!(cred_user_ns));
    // A capability held in a user namespace of the sender's own gives no power here.
    let here = read::<u32>(namespace, config!(user_namespace_inum)) == config!(user_namespace);
    let privileged = if here && effective & 1 << CAP_KILL != 0 { SignalFlags::PRIVILEGED } else { 0 };
    Credentials { uid: bpf_get_current_uid_gid() as u32, euid: read(cred, config!(cred_euid)), privileged }
}

/// At whom the running system call aims. System calls of other ABIs (32-bit programs) count as aimed at the process alone.
#[inline(always)]
pub fn scope_of_system_call() -> Scope {
    // SAFETY: `current` is the task that is running.
    let regs = unsafe { bpf_task_pt_regs(task::current().cast_mut().cast()) } as Address;
    let number: u64 = read(regs, config!(regs_syscall));
    // The upper half of the register is undefined in a 32-bit entry; the kernel looks at the lower (arch/x86/entry).
    let number = number as u32;
    if number == config!(syscall_kill) {
        let target = read::<u64>(regs, config!(regs_first)) as i32;
        return match target {
            -1 => Scope::Everyone,
            1.. => Scope::Process,
            _ => Scope::Group,
        };
    }
    if number == config!(syscall_pidfd_send_signal)
        && read::<u64>(regs, config!(regs_fourth)) & PIDFD_SIGNAL_PROCESS_GROUP != 0
    {
        return Scope::Group;
    }
    Scope::Process
}

/// At whom the kernel aims a signal of its own: what terminals send goes to process groups (drivers/tty/tty_jobctrl.c,
/// n_tty.c), the rest (out of memory, limits, end of a namespace) to processes.
#[inline(always)]
pub fn scope_of_kernel(sig: u32) -> Scope {
    const HUP: u32 = 1;
    const INT: u32 = 2;
    const QUIT: u32 = 3;
    const CONT: u32 = 18;
    const TSTP: u32 = 20;
    const TTIN: u32 = 21;
    const TTOU: u32 = 22;
    const WINCH: u32 = 28;
    match sig {
        HUP | INT | QUIT | CONT | TSTP | TTIN | TTOU | WINCH => Scope::Group,
        _ => Scope::Process,
    }
}

/// The sender is `target` itself, by whichever thread.
#[inline(always)]
pub fn is_own(target: *const task_struct) -> bool {
    task::signal(task::current()) == task::signal(target)
}

/// The sender is the loader.
#[inline(always)]
pub fn is_loader(sender_pid: i32) -> bool {
    sender_pid as u32 == config!(own_pid)
}

//! Which signals are reported, and the record of one.

use aya_ebpf::{bindings::task_struct, macros::map, maps::PerCpuArray};
use ghost_abi::{GhostFlags, GhostState, Kind, Scope, SignalFlags, SignalRecord};

use crate::{
    origin::{self, Credentials},
    ring,
    siginfo::SigInfo,
    storage,
    task::{self, Address, read},
};

const HUP: u32 = 1;
const INT: u32 = 2;
const QUIT: u32 = 3;
const KILL: u32 = 9;
const TERM: u32 = 15;
const CHLD: u32 = 17;
const CONT: u32 = 18;
const STOP: u32 = 19;
const TSTP: u32 = 20;
const URG: u32 = 23;
const WINCH: u32 = 28;

/// `TRACE_SIGNAL_DELIVERED` of include/trace/events/signal.h: queued, or at once effective.
const RESULT_QUEUED: i32 = 0;
/// `TRACE_SIGNAL_IGNORED`.
const RESULT_IGNORED: i32 = 1;
/// `SIG_IGN`.
const HANDLER_IGNORE: u64 = 1;

/// A signal has been sent to `task`.
#[inline(always)]
pub fn generated(sig: i32, info: *const u8, task: *const task_struct, result: i32) {
    let state = storage::state_of(task);
    if state.is_null() {
        return;
    }
    let sig = sig as u32;
    if sig == KILL {
        // SAFETY: not null, so it is the value of `task`, whose siglock is held.
        unsafe { (*state).flags |= GhostFlags::KILLED };
    }
    // SAFETY: as above.
    let launcher = unsafe { (*state).flags } & GhostFlags::LAUNCHER != 0;
    let urgent = sig == KILL || sig == STOP;
    let wanted = if launcher {
        !matches!(sig, CHLD | URG | WINCH)
    } else {
        result == RESULT_IGNORED || (urgent && result == RESULT_QUEUED)
    };
    if !wanted {
        return;
    }
    let info = SigInfo::read(info as Address);
    if is_kernels_child_notice(sig, &info) || origin::is_own(task) {
        return;
    }
    if info.is_kernels() && matches!(sig, HUP | CONT) && is_ghost(task::current()) {
        return;
    }
    // What the kernel finds fault with is the launcher's own: its writing, its memory, its use of the processor.
    if launcher && info.is_kernels() && !matches!(sig, HUP | INT | QUIT | TERM | CONT | TSTP) && !urgent {
        return;
    }
    let mut flags = if launcher { SignalFlags::LAUNCHER } else { 0 };
    let (scope, sender_pid, sender) = if info.is_kernels() {
        flags |= SignalFlags::KERNEL;
        (origin::scope_of_kernel(sig), 0, Credentials { uid: 0, euid: 0, privileged: 0 })
    } else {
        let sender_pid = task::process_id(task::current());
        if origin::is_loader(sender_pid) {
            return;
        }
        (origin::scope_of_system_call(), sender_pid, origin::credentials())
    };
    let pgid = if scope as u16 == Scope::Group as u16 { task::process_group(task) } else { 0 };
    let seq = ring::sequence();
    let call = if scope as u16 == Scope::Process as u16 {
        0
    } else {
        // SAFETY: as above.
        unsafe { call_id(state, sig, pgid, &info, seq) }
    };
    // SAFETY: as above.
    unsafe {
        let record = SignalRecord {
            kind: Kind::Signal as u32,
            flags: flags | sender.privileged,
            ghost: (*state).ghost,
            seq,
            call,
            value: info.value,
            sig: sig as u16,
            scope: scope as u16,
            si_code: info.code,
            sender_pid,
            sender_uid: sender.uid,
            sender_euid: sender.euid,
            pgid,
        };
        ring::put_signal(state, record, urgent);
    }
}

/// Current is about to act on a signal that it had blocked.
#[inline(always)]
pub fn delivered(sig: i32, info: *const u8, action: *const u8) {
    let state = storage::state_of(task::current());
    if state.is_null() {
        return;
    }
    // `sa_handler` is the first field of `struct k_sigaction` except on MIPS (include/linux/signal_types.h).
    if read::<u64>(action as Address, 0) != HANDLER_IGNORE {
        return;
    }
    let sig = sig as u32;
    let info = SigInfo::read(info as Address);
    // SAFETY: not null, so it is the value of the running task, whose siglock is held.
    if is_kernels_child_notice(sig, &info) || unsafe { (*state).flags } & GhostFlags::LAUNCHER != 0 {
        return;
    }
    // A task may have put any siginfo at all into its own queue, also one that says that root or the kernel sent it. So
    // the signal has the authority of the ghost itself, which its sender had at least.
    let own = origin::credentials();
    let seq = ring::sequence();
    // SAFETY: as above.
    unsafe {
        let record = SignalRecord {
            kind: Kind::Signal as u32,
            flags: SignalFlags::DELIVERED,
            ghost: (*state).ghost,
            seq,
            call: 0,
            value: info.value,
            sig: sig as u16,
            scope: Scope::Process as u16,
            si_code: info.code,
            sender_pid: info.alleged_pid,
            sender_uid: own.uid,
            sender_euid: own.euid,
            pgid: 0,
        };
        ring::put_signal(state, record, false);
    }
}

/// A ghost ends, and the kernel finds that a group with stopped members is orphaned by that (kernel/exit.c,
/// `kill_orphaned_pgrp()`): a node's kernel finds that out itself, of the processes.
#[inline(always)]
fn is_ghost(task: *const task_struct) -> bool {
    let state = storage::state_of(task);
    // SAFETY: if it is not null, it is the task's value.
    !state.is_null() && unsafe { (*state).flags } & GhostFlags::LAUNCHER == 0
}

/// The kernel tells a parent that a child has changed state: the ghost's own children, never the remote process's.
#[inline(always)]
fn is_kernels_child_notice(sig: u32, info: &SigInfo) -> bool {
    sig == CHLD && info.is_kernels()
}

/// The call that this CPU saw last, to recognise the targets of one `kill()` as such.
///
/// A call visits its targets one after the other under `tasklist_lock`, thus on one CPU. The next call by the same sender
/// with the same signal visits them again; new members come first in a group's list (kernel/pid.c, `attach_pid`).
#[repr(C)]
#[derive(Clone, Copy)]
struct LastCall {
    id: u64,
    sender: u64,
    value: u64,
    pgid: i32,
    sig: u32,
}

/// One for calls by processes, one for the kernel's own signals, which may come in an interrupt during a call.
#[map]
static LAST_CALL: PerCpuArray<LastCall> = PerCpuArray::with_max_entries(2, 0);

/// The id of the call that sends this signal: that of the last one if it looks the same and has not had this target yet,
/// else `seq`, the number of its first record.
///
/// # Safety
/// `state` is the value of the task whose `siglock` is held.
#[inline(always)]
unsafe fn call_id(state: *mut GhostState, sig: u32, pgid: i32, info: &SigInfo, seq: u64) -> u64 {
    let kernels = info.is_kernels();
    let Some(last) = LAST_CALL.get_ptr_mut(u32::from(kernels)) else { return seq };
    let sender = if kernels { 0 } else { task::current() as u64 };
    // SAFETY: `last` is this CPU's element and `state` the target's; tracing programs are not preempted by themselves.
    unsafe {
        let same =
            (*last).sender == sender && (*last).value == info.value && (*last).pgid == pgid && (*last).sig == sig;
        if !same || (*last).id == (*state).last_call {
            *last = LastCall { id: seq, sender, value: info.value, pgid, sig };
        }
        (*state).last_call = (*last).id;
        (*last).id
    }
}

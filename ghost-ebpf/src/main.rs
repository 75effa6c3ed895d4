//! The kernel programs: signals sent to ghosts, and the ends of ghosts, become records in a ring buffer.
//!
//! A ghost is a task with a value in the task storage [`GHOSTS`]: given by the loader, or at the fork if another ghost makes
//! it (`storage::forked`). It ignores every signal, so the kernel drops what is sent
//! to it without waking it; `signal_generate` fires nevertheless. The invariant: *what a local process in the ghost's
//! place would receive is reported exactly once.* Hence:
//!
//! * generated with result 1 (ignored): reported;
//! * generated with result 0: only KILL and STOP, which cannot be ignored;
//! * other results, and 0 for others: the ghost has the signal blocked (it is being born, or is traced). It is reported
//!   when the ghost unblocks it and the kernel finds it ignored (`signal_deliver` with handler `SIG_IGN`);
//! * a launcher, which handles its signals itself: whatever the result, what another process sends it but CHLD, URG and
//!   WINCH, and of the kernel's what terminals and the end of things send;
//! * not what a task sends itself, what the loader sends, nor the kernel's SIGCHLD.
//!
//! `trace_signal_generate` and `trace_signal_deliver` fire under the target's `siglock` (kernel/signal.c,
//! `__send_signal_locked`, `get_signal`), so for each ghost these programs run one at a time.
#![no_std]
#![no_main]

mod config;
mod exit;
mod origin;
mod ring;
mod siginfo;
mod signal;
mod storage;
mod task;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

/// `TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`
#[btf_tracepoint(function = "signal_generate")]
pub fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    signal::generated(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(4));
    0
}

/// `TP_PROTO(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`; current is the receiver.
#[btf_tracepoint(function = "signal_deliver")]
pub fn signal_deliver(ctx: BtfTracePointContext) -> i32 {
    signal::delivered(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    storage::forked(ctx.arg(0), ctx.arg(1));
    0
}

/// `TP_PROTO(struct task_struct *p)`, from 6.16 on followed by `bool group_dead`, which is not used.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    exit::exited(ctx.arg(0));
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

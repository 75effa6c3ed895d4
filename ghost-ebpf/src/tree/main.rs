//! The kernel programs that follow the processes of one PID namespace: who forks, executes, ends, is reaped, stops or goes
//! on becomes records in a ring buffer (`ghost_abi::tree`).
//!
//! They run for every process of the host, so who does not belong is let go after a few plain loads (namespace.rs).
//! Tracepoint programs run with preemption off, and none of these tracepoints fires within itself on one CPU: no call is
//! lost to the kernel's guard against recursion (kernel/trace/bpf_trace.c, `__bpf_trace_run()`).
#![no_std]
#![no_main]

mod change;
mod config;
mod life;
mod list;
mod members;
mod namespace;
mod ring;
mod task;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::task::Task;

/// Is never attached: the loader runs it once (`BPF_PROG_TEST_RUN`), in the thread that has chosen the namespace.
#[raw_tracepoint]
pub fn choose_namespace(_: RawTracePointContext) -> u32 {
    namespace::choose();
    0
}

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: see above.
    life::forked(unsafe { Task::argument(ctx.arg(1)) });
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: see above.
    life::executed(unsafe { Task::argument(ctx.arg(0)) });
    0
}

/// `TP_PROTO(struct task_struct *p)`, from 6.16 on followed by `bool group_dead`, which is not used.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: see above.
    life::exited(unsafe { Task::argument(ctx.arg(0)) });
    0
}

/// `TP_PROTO(struct task_struct *p)`
#[btf_tracepoint(function = "sched_process_free")]
pub fn sched_process_free(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: see above.
    life::freed(unsafe { Task::argument(ctx.arg(0)) });
    0
}

/// `TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`
#[btf_tracepoint(function = "signal_generate")]
pub fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: see above.
    change::generated(ctx.arg(0), ctx.arg(1), unsafe { Task::argument(ctx.arg(2)) });
    0
}

/// `TP_PROTO(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`; current is the receiver.
#[btf_tracepoint(function = "signal_deliver")]
pub fn signal_deliver(ctx: BtfTracePointContext) -> i32 {
    change::delivered(ctx.arg(0), ctx.arg(2));
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn list_processes(context: *const list::Context) -> i32 {
    // SAFETY: the kernel passes the context of this kind of program.
    unsafe { list::list(context) };
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

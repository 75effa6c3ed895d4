//! Stops and continuations.

use ghost_abi::tree::{Change, Changed, Kind};
use ghost_ebpf::kernel::{Address, read};

use crate::{namespace::Namespace, ring, task::Task};

const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
const SIGTSTP: i32 = 20;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

/// `SIG_DFL`.
const HANDLER_DEFAULT: u64 = 0;
/// The largest number that stands for a siginfo instead of its address (include/linux/sched/signal.h, `SEND_SIG_PRIV`).
const PRIVATE: Address = 1;
/// Offsets in `siginfo_t`, which is ABI.
const SI_CODE: u32 = 8;
const SI_STATUS: u32 = 24;
const CLD_STOPPED: i32 = 5;

/// A signal is sent to `task`.
#[inline(always)]
pub fn generated(sig: i32, info: Address, task: Task) {
    match sig {
        // Whatever the task does with it, it has been continued by now (kernel/signal.c, `prepare_signal()`).
        SIGCONT if task.signal().is_continued() => tell(task, Change::Continued, sig),
        // Sent by the child that has stopped to its parent (`do_notify_parent_cldstop()`); no process can send this code
        // to another.
        SIGCHLD if info > PRIVATE && read::<i32>(info, SI_CODE) == CLD_STOPPED => {
            tell(Task::current(), Change::Stopped, read(info, SI_STATUS));
        }
        _ => {}
    }
}

/// Current takes a signal (kernel/signal.c, `get_signal()`), before it acts on it. `action` is a `struct k_sigaction`, whose
/// first field is the handler except on MIPS.
#[inline(always)]
pub fn delivered(sig: i32, action: Address) {
    if matches!(sig, SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU) && read::<u64>(action, 0) == HANDLER_DEFAULT {
        tell(Task::current(), Change::Stopping, sig);
    }
}

#[inline(always)]
fn tell(task: Task, change: Change, sig: i32) {
    let pid = task.signal().process(Namespace::followed());
    if pid == 0 {
        return;
    }
    ring::put(Changed {
        kind: Kind::Changed as u32,
        change: change as u32,
        seq: ring::sequence(),
        key: task.leader().key(),
        pid,
        sig: sig as u32,
    });
}

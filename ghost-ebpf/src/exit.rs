//! The end of a ghost.

use aya_ebpf::bindings::task_struct;
use ghost_abi::{ExitRecord, GhostFlags, Kind};

use crate::{
    config::config,
    ring, storage,
    task::{self, read},
};

/// Fires once per thread, in `do_exit`, after `signal->live` was taken down (kernel/exit.c). Only the thread with storage is
/// looked at: a ghost has no others, and if a user gives it some, `live` says so.
#[inline(always)]
pub fn exited(task: *const task_struct) {
    let state = storage::state_of(task);
    if state.is_null() {
        return;
    }
    // SAFETY: not null, so it is the task's value. The lock is not held here: a SIGKILL at this very moment may set its own
    // bit in the same word, and is then without consequence.
    let (ghost, flags) = unsafe {
        (*state).flags |= GhostFlags::EXITED;
        ((*state).ghost, (*state).flags)
    };
    let record = ExitRecord {
        kind: Kind::Exit as u32,
        live: read(task::signal(task), config!(signal_live)),
        ghost,
        seq: ring::sequence(),
        status: read(task as u64, config!(task_exit_code)),
        flags,
        pid: task::process_id(task),
        reserved: 0,
    };
    if !ring::put(record) {
        ring::count_dropped();
    }
}

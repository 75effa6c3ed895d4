//! The processes that are in the namespace now, for who has lost the thread: an iterator over the tasks that its reader sees.

use aya_ebpf::{bindings::task_struct, cty::c_void, helpers::bpf_seq_write};
use ghost_abi::tree::{Kind, Process};

use crate::{
    members::{self, Member},
    namespace::Namespace,
    task::Task,
};

/// `struct bpf_iter__task` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct Context {
    /// `struct bpf_iter_meta`, whose first field is a `struct seq_file *`.
    meta: *const *mut c_void,
    /// Null at the end.
    task: *const task_struct,
}

/// Writes a process to the reader, and sees to it that its end will be told.
///
/// # Safety
/// `context` is the program's own.
#[inline(always)]
pub unsafe fn list(context: *const Context) {
    // SAFETY: as this function's; the verifier knows the types behind both pointers.
    let (output, task) = unsafe { (*(*context).meta, (*context).task) };
    if task.is_null() {
        return;
    }
    // SAFETY: not null, so a task.
    let task = unsafe { Task::argument(task) };
    if !task.is_leader() {
        return;
    }
    let namespace = Namespace::followed();
    let signal = task.signal();
    // If it has its number in this grace period, it is freed after it: what is inserted now will be removed.
    let pid = signal.process(namespace);
    if pid == 0 {
        return;
    }
    let mut process = task.describe(Kind::Listed, namespace, pid, 0);
    if Member::find(process.key).is_none() {
        members::insert(process.key, pid);
    }
    if signal.is_dead() {
        process.flags = Process::ENDED;
        process.status = signal.status();
    }
    // SAFETY: the record is readable; when the buffer is full the kernel enlarges it and calls anew.
    unsafe { bpf_seq_write(output.cast(), (&raw const process).cast(), Process::SIZE as u32) };
}

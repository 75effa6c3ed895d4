//! Fork, exec, exit, and the task's end.

use ghost_abi::tree::{Exit, Kind, Reaped};

use crate::{
    members::{self, Member},
    namespace::Namespace,
    ring,
    task::{Signal, Task},
};

/// Fires in the parent before the child is woken for the first time (kernel/fork.c, `kernel_clone()`).
#[inline(always)]
pub fn forked(child: Task) {
    if !child.is_leader() {
        return;
    }
    let namespace = Namespace::followed();
    let pid = child.signal().process(namespace);
    if pid == 0 {
        return;
    }
    members::insert(child.key(), pid);
    let mut process = child.describe(Kind::Fork, namespace, pid, ring::sequence());
    let creator = Task::current();
    // Who enters the namespace to make a child there is not of it (setns(2)).
    if creator.signal().process(namespace) != 0 {
        let creator = creator.leader().key();
        process.creator_key = if creator == process.parent_key { 0 } else { creator };
    }
    ring::put(process);
}

/// Fires in the task that now runs the program, alone in its process and its leader (fs/exec.c, `de_thread()`).
#[inline(always)]
pub fn executed(task: Task) {
    let namespace = Namespace::followed();
    let pid = task.signal().process(namespace);
    if pid == 0 {
        return;
    }
    // Older than the programs here, or there was no room.
    if Member::find(task.key()).is_none() {
        members::insert(task.key(), pid);
    }
    ring::put(task.describe(Kind::Exec, namespace, pid, ring::sequence()));
}

/// Fires in each thread, after it has been taken off `signal->live` (kernel/exit.c, `do_exit()`).
#[inline(always)]
pub fn exited(task: Task) {
    let signal = task.signal();
    let namespace = Namespace::followed();
    let pid = signal.process(namespace);
    if pid == 0 || !signal.is_dead() {
        return;
    }
    let key = task.leader().key();
    if let Some(member) = Member::find(key)
        && !member.may_tell()
    {
        return;
    }
    let (pgid, sid) = signal.standing(namespace);
    let (kind, seq) = (Kind::Exit as u32, ring::sequence());
    let heir_key = heir(task, signal, namespace);
    ring::put(Exit { kind, status: signal.status(), seq, key, pid, pgid, sid, reserved: 0, heir_key });
}

/// Who inherits the children of a process without threads, as kernel/exit.c, `find_new_reaper()`, finds it: the nearest ancestor of
/// its own namespace that reaps and lives. 0 if there is none.
#[inline(always)]
fn heir(task: Task, signal: Signal, namespace: Namespace) -> u64 {
    if !signal.has_subreaper() {
        return 0;
    }
    let level = signal.level();
    let mut ancestor = task;
    for _ in 0..Exit::ANCESTORS {
        ancestor = ancestor.real_parent();
        let signal = ancestor.signal();
        if signal.process(namespace) == 0 || signal.level() != level {
            break;
        }
        if signal.is_subreaper() && !signal.is_dead() {
            return ancestor.leader().key();
        }
    }
    0
}

/// Fires for each task a grace period after it was released (kernel/exit.c, `delayed_put_task_struct()`), in whatever task
/// the callback interrupts. The leader that a thread has replaced by exec has the thread's number by then.
#[inline(always)]
pub fn freed(task: Task) {
    if !task.is_leader() {
        return;
    }
    let key = task.key();
    let Some(member) = Member::find(key) else { return };
    let pid = member.pid();
    // Who takes it out tells: user space may have, if this came late.
    if members::remove(key) {
        ring::put(Reaped { kind: Kind::Reaped as u32, pid, seq: ring::sequence(), key });
    }
}

//! What the kernel says of a task.

use aya_ebpf::{bindings::task_struct, cty::c_void, helpers::bpf_get_current_task_btf};
use ghost_abi::tree::{Kind, Process};
use ghost_ebpf::kernel::{Address, field, read};

use crate::{config::config, namespace::Namespace};

/// A task that the verifier knows the type of.
#[derive(Clone, Copy)]
pub struct Task(*const c_void);

impl Task {
    /// An argument of a tracepoint.
    ///
    /// # Safety
    /// The argument is a `struct task_struct *`.
    #[inline(always)]
    pub unsafe fn argument(task: *const task_struct) -> Self {
        Self(task.cast())
    }

    /// The task that is running.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast::<c_void>())
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier knows the type (`argument`, `current`, `leader`, `real_parent`); offsets are configured.
        unsafe { field(self.0, offset) }
    }

    /// `task->signal`, what the threads of a process share.
    #[inline(always)]
    pub fn signal(self) -> Signal {
        Signal(self.get(config!(task_signal)))
    }

    #[inline(always)]
    pub fn leader(self) -> Self {
        Self(self.get(config!(task_group_leader)))
    }

    #[inline(always)]
    pub fn real_parent(self) -> Self {
        Self(self.get(config!(task_real_parent)))
    }

    #[inline(always)]
    pub fn is_leader(self) -> bool {
        self.get::<u32>(config!(task_pid)) == self.get::<u32>(config!(task_tgid))
    }

    /// The name of the process that this task leads ([`ghost_abi::tree`]).
    #[inline(always)]
    pub fn key(self) -> u64 {
        let micros = self.get::<u64>(config!(task_start_boottime)) / 1000;
        micros << 32 | u64::from(self.get::<u32>(config!(task_tgid)))
    }

    /// Describes the process that this task leads, `pid` in the namespace.
    #[inline(always)]
    pub fn describe(self, kind: Kind, namespace: Namespace, pid: i32, seq: u64) -> Process {
        let parent_task = self.real_parent();
        let parent = parent_task.signal().process(namespace);
        let parent_key = if parent == 0 { 0 } else { parent_task.leader().key() };
        let signal = self.signal();
        let cred: *const c_void = self.get(config!(task_real_cred));
        // SAFETY: the verifier knows the type of `cred`, read from a task.
        let (uid, euid, gid) = unsafe {
            (field(cred, config!(cred_uid)), field(cred, config!(cred_euid)), field(cred, config!(cred_gid)))
        };
        Process {
            kind: kind as u32,
            parent,
            seq,
            key: self.key(),
            parent_key,
            creator_key: 0,
            pid,
            pgid: signal.group(namespace),
            sid: signal.session(namespace),
            uid,
            euid,
            gid,
            status: 0,
            flags: 0,
            comm: read(self.0 as Address, config!(task_comm)),
        }
    }
}

/// A `struct signal_struct` that the verifier knows the type of.
#[derive(Clone, Copy)]
pub struct Signal(*const c_void);

impl Signal {
    /// `SIGNAL_STOP_CONTINUED | SIGNAL_CLD_MASK` of include/linux/sched/signal.h: SIGCONT has found something to continue.
    const CONTINUED: u32 = 0x02 | 0x30;

    /// Process id in the namespace; 0 if it is not there.
    #[inline(always)]
    pub fn process(self, namespace: Namespace) -> i32 {
        // SAFETY: this type's invariant.
        unsafe { namespace.process(self.0) }
    }

    #[inline(always)]
    fn group(self, namespace: Namespace) -> i32 {
        // SAFETY: this type's invariant.
        unsafe { namespace.group(self.0) }
    }

    #[inline(always)]
    fn session(self, namespace: Namespace) -> i32 {
        // SAFETY: this type's invariant.
        unsafe { namespace.session(self.0) }
    }

    /// Process group and session in the namespace.
    #[inline(always)]
    pub fn standing(self, namespace: Namespace) -> (i32, i32) {
        (self.group(namespace), self.session(namespace))
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: u32) -> T {
        // SAFETY: this type's invariant; offsets are configured.
        unsafe { field(self.0, offset) }
    }

    /// No thread lives any more.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        self.get::<u32>(config!(signal_live)) == 0
    }

    /// The wait status of a dead process: also if its threads have ended one by one, the last of them has set it
    /// (kernel/exit.c, `synchronize_group_exit()`, since 6.0).
    #[inline(always)]
    pub fn status(self) -> u32 {
        self.get(config!(signal_group_exit_code))
    }

    /// It is to inherit what its descendants leave (PR_SET_CHILD_SUBREAPER).
    #[inline(always)]
    pub fn is_subreaper(self) -> bool {
        self.bit(config!(signal_is_child_subreaper_bit))
    }

    /// An ancestor of it is such a one, or was when it was forked.
    #[inline(always)]
    pub fn has_subreaper(self) -> bool {
        self.bit(config!(signal_has_child_subreaper_bit))
    }

    /// A bit field, by a load of the byte that it is in: the verifier takes the access if it covers the field
    /// (kernel/bpf/btf.c, `btf_struct_walk()`).
    #[inline(always)]
    fn bit(self, offset: u32) -> bool {
        self.get::<u8>(offset / 8) & 1 << (offset % 8) != 0
    }

    /// How deep the namespace is nested that the process is an inhabitant of.
    #[inline(always)]
    pub fn level(self) -> u32 {
        // SAFETY: this type's invariant.
        unsafe { Namespace::level_of(self.0) }
    }

    #[inline(always)]
    pub fn is_continued(self) -> bool {
        self.get::<u32>(config!(signal_flags)) & Self::CONTINUED != 0
    }
}

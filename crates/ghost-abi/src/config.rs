//! What the loader finds out about the running kernel and about itself, and writes into an object before loading it: one
//! struct for each object. In the object it is the read-only global `CONFIG`, an array of 32-bit words.

macro_rules! config {
    ($(#[$what:meta])* $name:ident, $($(#[$doc:meta])* $field:ident,)+) => {
        $(#[$what])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u32,)+
        }

        impl $name {
            /// Number of words.
            pub const WORDS: usize = size_of::<Self>() / 4;

            /// The words in the order of the fields, which is the order of the array in the object.
            pub const fn to_words(&self) -> [u32; Self::WORDS] {
                [$(self.$field,)+]
            }
        }
    };
}

config! {
    /// What the programs that watch ghosts cannot know when they are compiled. Offsets are in bytes and come from the
    /// running kernel's BTF.
    Config,
    /// Inode number of the loader's PID namespace; 0 in an object that nobody has configured.
    pid_namespace,
    /// Inode number of the loader's user namespace.
    user_namespace,
    /// A PID in the loader's namespace: what it sends to ghosts is not reported. `u32::MAX`: nobody's.
    own_pid,
    /// `task_struct.signal`.
    task_signal,
    /// `task_struct.cred`.
    task_cred,
    /// `task_struct.exit_code`.
    task_exit_code,
    /// `signal_struct.pids[PIDTYPE_TGID]`.
    signal_tgid,
    /// `signal_struct.pids[PIDTYPE_PGID]`.
    signal_pgid,
    /// `signal_struct.live`.
    signal_live,
    /// `pid.level`.
    pid_level,
    /// `pid.numbers`.
    pid_numbers,
    /// Size of `struct upid`.
    upid_size,
    /// `upid.nr`.
    upid_nr,
    /// `upid.ns`.
    upid_ns,
    /// `pid_namespace.ns.inum`.
    pid_namespace_inum,
    /// `cred.euid`.
    cred_euid,
    /// `cred.cap_effective`.
    cred_cap_effective,
    /// `cred.user_ns`.
    cred_user_ns,
    /// `user_namespace.ns.inum`.
    user_namespace_inum,
    /// Where `struct pt_regs` keeps the number of the system call.
    regs_syscall,
    /// Where `struct pt_regs` keeps the first argument of a system call.
    regs_first,
    /// Where `struct pt_regs` keeps the fourth argument of a system call.
    regs_fourth,
    /// Number of `kill(2)`.
    syscall_kill,
    /// Number of `pidfd_send_signal(2)`.
    syscall_pidfd_send_signal,
}

config! {
    /// What the programs that follow the tree cannot know when they are compiled: offsets in bytes, from the running
    /// kernel's BTF.
    TreeConfig,
    /// `task_struct.signal`.
    task_signal,
    /// `task_struct.group_leader`.
    task_group_leader,
    /// `task_struct.real_parent`.
    task_real_parent,
    /// `task_struct.real_cred`.
    task_real_cred,
    /// `task_struct.nsproxy`.
    task_nsproxy,
    /// `task_struct.pid`.
    task_pid,
    /// `task_struct.tgid`.
    task_tgid,
    /// `task_struct.start_boottime`.
    task_start_boottime,
    /// `task_struct.comm`.
    task_comm,
    /// `signal_struct.pids[PIDTYPE_TGID]`.
    signal_tgid,
    /// `signal_struct.pids[PIDTYPE_PGID]`.
    signal_pgid,
    /// `signal_struct.pids[PIDTYPE_SID]`.
    signal_sid,
    /// `signal_struct.live`.
    signal_live,
    /// `signal_struct.flags`.
    signal_flags,
    /// `signal_struct.group_exit_code`.
    signal_group_exit_code,
    /// In bits: `is_child_subreaper` and `has_child_subreaper`, each one bit wide.
    signal_is_child_subreaper_bit,
    signal_has_child_subreaper_bit,
    /// `pid.level`.
    pid_level,
    /// `pid.numbers`.
    pid_numbers,
    /// Size of `struct upid`.
    upid_size,
    /// `upid.nr`.
    upid_nr,
    /// `upid.ns`.
    upid_ns,
    /// `nsproxy.pid_ns_for_children`.
    nsproxy_pid_namespace,
    /// `pid_namespace.level`.
    pid_namespace_level,
    /// `pid_namespace.ns.inum`.
    pid_namespace_inum,
    /// `cred.uid`.
    cred_uid,
    /// `cred.euid`.
    cred_euid,
    /// `cred.gid`.
    cred_gid,
}

//! What the loader finds out about the running kernel and about itself, and writes into the object before loading it.

macro_rules! config {
    ($($(#[$doc:meta])* $field:ident,)+) => {
        /// Values that the kernel programs cannot know when they are compiled. Offsets are in bytes and come from the
        /// running kernel's BTF. In the object it is the read-only global `CONFIG`, an array of 32-bit words.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Config {
            $($(#[$doc])* pub $field: u32,)+
        }

        /// Number of words of [`Config`].
        pub const CONFIG_WORDS: usize = size_of::<Config>() / 4;

        impl Config {
            /// The words in the order of the fields, which is the order of the array in the object.
            pub const fn to_words(&self) -> [u32; CONFIG_WORDS] {
                [$(self.$field,)+]
            }
        }
    };
}

config! {
    /// Inode number of the loader's PID namespace; 0 in an object that nobody has configured.
    pid_namespace,
    /// Inode number of the loader's user namespace.
    user_namespace,
    /// The loader's PID in its own namespace: what it sends to ghosts is not reported.
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

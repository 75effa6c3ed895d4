//! What a new process does between clone and exec, in the memory of its parent.
//!
//! Invariant: raw system calls and reads of the [`Plan`] only. No allocation, no lock, no panic, no thread-local: the
//! parent runs on in the same memory at the same time. It ends in exec or exit and leaves the memory by that.
//!
//! Order: everything that the parent had open is closed *before* the process belongs to its user, who can stop it from
//! then on for as long as he likes; limits come before that as well (they may only be lowered), while directory, negative
//! nice values, scheduling policy and exec come after, so that they succeed exactly if the user may do them.

use std::cell::Cell;
use std::ffi::{c_char, c_void};

use super::raw::syscall;

/// Where the report of a failure goes in the child.
const REPORT_FD: usize = 3;

/// How far the child came; the first word of a report.
pub(super) const NOTE_DIRECTORY: u32 = 1;
pub(super) const FAILED_PREPARE: u32 = 2;
pub(super) const FAILED_EXEC: u32 = 3;
pub(super) const FAILED_DIRECTORY: u32 = 4;
/// This and the two behind it: the file that was to be descriptor 0, 1 or 2.
pub(super) const FAILED_FILE: u32 = 5;
pub(super) const FAILED_ROOT: u32 = 8;

/// Everything the child needs, made ready by the parent.
pub(super) struct Plan {
    pub stdio: [i32; 3],
    pub report: i32,
    /// It leads a group of its own; else it stays in the group of whoever makes it.
    pub own_group: bool,
    /// Its group is the foreground one of its terminal, descriptor 0.
    pub foreground: bool,
    /// A stand-in has made it.
    pub below: bool,
    /// Descriptors of namespaces to enter.
    pub namespaces: Vec<i32>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    /// Resource, and its soft and hard limit.
    pub limits: Vec<(u32, [u64; 2])>,
    pub nice: i32,
    pub policy: i32,
    pub priority: i32,
    pub ignored: u64,
    pub blocked: u64,
    /// Null: it keeps the one it has.
    pub root: *const c_char,
    pub directory: *const c_char,
    /// Without it there is no start.
    pub directory_required: bool,
    /// Files that become descriptors 0, 1, 2; null: what `stdio` says.
    pub files: [*const c_char; 3],
    /// Standard error is the same open file as standard output.
    pub errors_to_output: bool,
    /// Files to try, in order.
    pub candidates: Vec<*const c_char>,
    /// `/bin/sh`, then the program's argument vector, then a null pointer: with its second entry replaced by the file it
    /// is the vector for a script that has no `#!`.
    pub argv: Vec<Cell<*const c_char>>,
    /// Ends with a null pointer.
    pub environment: Vec<*const c_char>,
}

/// The kernel's struct of rt_sigaction(2) (include/linux/signal_types.h, struct sigaction; x86 and arm64 have a restorer).
#[repr(C)]
struct KernelSigaction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// # Safety
/// `plan` points to a [`Plan`] whose pointers are valid until this process has executed a program or ended; to be called
/// in a fresh child only.
pub(super) unsafe extern "C" fn run(plan: *const c_void) -> ! {
    // SAFETY: the caller's contract.
    let plan = unsafe { &*plan.cast::<Plan>() };
    // SAFETY: this is the fresh child.
    unsafe {
        let (stage, errno) = match prepare(plan) {
            Err(Failure(stage, errno)) => (stage, errno),
            Ok(()) => (FAILED_EXEC, execute(plan)),
        };
        report(stage, errno);
        loop {
            syscall(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]);
        }
    }
}

/// A system call whose failure ends the start.
unsafe fn must(number: i64, arguments: [usize; 6]) -> Result<usize, i32> {
    // SAFETY: the caller passes what the system call asks for.
    let result = unsafe { syscall(number, arguments) };
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

/// The stage and the errno of a failure on the way to exec.
struct Failure(u32, i32);

impl From<i32> for Failure {
    fn from(errno: i32) -> Failure {
        Failure(FAILED_PREPARE, errno)
    }
}

unsafe fn prepare(plan: &Plan) -> Result<(), Failure> {
    // SAFETY: every pointer is to the plan's own memory, every length is that memory's; descriptors are this process's own
    // copies, so closing them takes nothing from the parent (no CLONE_FILES).
    unsafe {
        if plan.own_group {
            must(libc::SYS_setpgid, [0, 0, 0, 0, 0, 0])?;
        }
        if plan.below {
            // A stand-in's priority is not for its children.
            let priority = 0i32;
            let at = (&raw const priority) as usize;
            must(libc::SYS_sched_setscheduler, [0, libc::SCHED_OTHER as usize, at, 0, 0, 0])?;
        }
        // Before the descriptors are closed, and the rights for it are gone.
        for namespace in &plan.namespaces {
            must(libc::SYS_setns, [*namespace as usize, 0, 0, 0, 0, 0])?;
        }
        descriptors(plan)?;
        if plan.foreground {
            // A stand-in ignores SIGTTOU, and so does this process still: it may do so from the background.
            let group = must(libc::SYS_getpid, [0; 6])? as i32;
            must(libc::SYS_ioctl, [0, libc::TIOCSPGRP as usize, (&raw const group) as usize, 0, 0, 0])?;
        }
        syscall(libc::SYS_umask, [plan.umask as usize, 0, 0, 0, 0, 0]);
        syscall(libc::SYS_personality, [0, 0, 0, 0, 0, 0]);
        // The node's default, whatever the holder itself has; only what is above it is for everybody to choose.
        syscall(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, plan.nice.max(0) as usize, 0, 0, 0]);
        for (resource, values) in &plan.limits {
            // EPERM: above the hard limit of the holder; what it has then stays.
            syscall(libc::SYS_prlimit64, [0, *resource as usize, values.as_ptr() as usize, 0, 0, 0]);
        }
        if !plan.root.is_null() {
            // The directory is entered below, in there.
            must(libc::SYS_chroot, [plan.root as usize, 0, 0, 0, 0, 0]).map_err(|errno| Failure(FAILED_ROOT, errno))?;
        }
        must(libc::SYS_setgroups, [plan.groups.len(), plan.groups.as_ptr() as usize, 0, 0, 0, 0])?;
        let gid = plan.gid as usize;
        must(libc::SYS_setresgid, [gid, gid, gid, 0, 0, 0])?;
        let uid = plan.uid as usize;
        must(libc::SYS_setresuid, [uid, uid, uid, 0, 0, 0])?;
        // Before exec this is still the parent's memory, and a change of user sets its dumpable flag to the sysctl
        // fs.suid_dumpable (kernel/cred.c, commit_creds): with 1 the user could read it.
        syscall(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0, 0]);

        if plan.nice < 0 {
            syscall(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, plan.nice as isize as usize, 0, 0, 0]);
        }
        if plan.policy != 0 {
            let priority = plan.priority;
            syscall(libc::SYS_sched_setscheduler, [0, plan.policy as usize, (&raw const priority) as usize, 0, 0, 0]);
        }
        if let Err(errno) = must(libc::SYS_chdir, [plan.directory as usize, 0, 0, 0, 0, 0]) {
            if plan.directory_required {
                return Err(Failure(FAILED_DIRECTORY, errno));
            }
            must(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0])?;
            report(NOTE_DIRECTORY, errno);
        }
        files(plan)?;
        signals(plan);
    }
    Ok(())
}

/// Opens files as the user, from his directory, with his umask: as a shell's redirection does.
unsafe fn files(plan: &Plan) -> Result<(), Failure> {
    let write = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    for ((target, flags), stage) in [(0usize, libc::O_RDONLY), (1, write), (2, write)].into_iter().zip(FAILED_FILE..) {
        let path = plan.files[target];
        if path.is_null() {
            continue;
        }
        let fail = |errno| Failure(stage, errno);
        // SAFETY: a string of the plan; descriptors are this process's own copies.
        unsafe {
            if target == 2 && plan.errors_to_output {
                must(libc::SYS_dup3, [1, target, 0, 0, 0, 0]).map_err(fail)?;
                continue;
            }
            let flags = (flags | libc::O_CLOEXEC | libc::O_NOCTTY) as usize;
            let arguments = [libc::AT_FDCWD as usize, path as usize, flags, 0o666, 0, 0];
            let opened = must(libc::SYS_openat, arguments).map_err(fail)?;
            must(libc::SYS_dup3, [opened, target, 0, 0, 0, 0]).map_err(fail)?;
        }
    }
    Ok(())
}

unsafe fn descriptors(plan: &Plan) -> Result<(), i32> {
    // SAFETY: as in prepare(). The sources are all above 2 (the parent keeps 0, 1, 2 open), so none is overwritten before
    // it was copied; descriptor 3 is taken last.
    unsafe {
        let [stdin, stdout, stderr] = plan.stdio;
        for (target, source) in [(0usize, stdin), (1, stdout), (2, stderr)] {
            must(libc::SYS_dup3, [source as usize, target, 0, 0, 0, 0])?;
        }
        if plan.report as usize != REPORT_FD {
            must(libc::SYS_dup3, [plan.report as usize, REPORT_FD, libc::O_CLOEXEC as usize, 0, 0, 0])?;
        }
        must(libc::SYS_close_range, [REPORT_FD + 1, u32::MAX as usize, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// No handler is set (CLONE_CLEAR_SIGHAND), but what the parent ignores is still ignored (kernel/signal.c,
/// flush_signal_handlers()).
unsafe fn signals(plan: &Plan) {
    for signal in 1..=64usize {
        let ignored = plan.ignored >> (signal - 1) & 1 == 1;
        let handler = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        let action = KernelSigaction { handler, flags: 0, restorer: 0, mask: 0 };
        // SAFETY: a valid struct; dispositions are this process's own (no CLONE_SIGHAND). KILL and STOP give EINVAL.
        unsafe { syscall(libc::SYS_rt_sigaction, [signal, (&raw const action) as usize, 0, 8, 0, 0]) };
    }
    // SAFETY: a 64-bit mask, as its length says; the kernel takes KILL and STOP out.
    unsafe {
        let how = libc::SIG_SETMASK as usize;
        syscall(libc::SYS_rt_sigprocmask, [how, (&raw const plan.blocked) as usize, 0, 8, 0, 0]);
    }
}

/// Tries the candidates as execvp(3) does: goes on after "not there", remembers "not allowed", gives a file that is no
/// program to the shell. Returns the errno of the failure.
unsafe fn execute(plan: &Plan) -> i32 {
    let mut refused = 0;
    let mut last = libc::ENOENT;
    for &file in &plan.candidates {
        // SAFETY: strings and null-terminated vectors of the plan; argv has at least three entries.
        let result = unsafe { exec(file, plan.argv.as_ptr().add(1), plan) };
        last = -result as i32;
        match last {
            libc::EACCES => refused = last,
            libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT => {}
            libc::ENOEXEC => {
                // This process is the only one that uses the plan.
                if let Some(first) = plan.argv.get(1) {
                    first.set(file);
                }
                // SAFETY: as above.
                return -unsafe { exec(c"/bin/sh".as_ptr(), plan.argv.as_ptr(), plan) } as i32;
            }
            _ => return last,
        }
    }
    if refused != 0 { refused } else { last }
}

unsafe fn exec(file: *const c_char, argv: *const Cell<*const c_char>, plan: &Plan) -> isize {
    // SAFETY: the caller passes a string and a null-terminated vector; a Cell has the layout of what is in it.
    unsafe { syscall(libc::SYS_execve, [file as usize, argv as usize, plan.environment.as_ptr() as usize, 0, 0, 0]) }
}

unsafe fn report(stage: u32, errno: i32) {
    let words = [stage, errno as u32];
    // SAFETY: eight bytes of this function's own.
    unsafe { syscall(libc::SYS_write, [REPORT_FD, words.as_ptr() as usize, size_of_val(&words), 0, 0, 0]) };
}

//! Children that go on in a copy of this memory.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is odd about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// fork(2).
    Usual,
    /// Its parent is the caller's parent (CLONE_PARENT).
    Sibling,
    /// Its end sends the parent this signal instead of SIGCHLD; 0: none. Only wait(2) with __WCLONE or __WALL finds it.
    EndsWith(u8),
    /// Shares the descriptor table, the directory and the umask (CLONE_FILES, CLONE_FS).
    Shares,
    /// Its parent waits in D, and for no signal but SIGKILL, until it has ended (CLONE_VFORK).
    Suspends,
}

/// fork(2): the child runs `child` and exits with what that returns (99 if it panics).
///
/// # Errors
/// `Unsupported` if this process has more than one thread: the child of such a one may do next to nothing (fork(2)).
/// EAGAIN.
pub fn fork(child: impl FnOnce() -> u8) -> io::Result<i32> {
    fork_of(Kind::Usual, child)
}

/// [`fork`] of a child of this kind. Gives its PID.
///
/// # Errors
/// As [`fork`]; EINVAL for [`Kind::Sibling`] from PID 1 of a namespace.
pub fn fork_of(kind: Kind, child: impl FnOnce() -> u8) -> io::Result<i32> {
    if threads()? != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this process has more than one thread"));
    }
    let (flags, signal) = match kind {
        Kind::Usual => (0, libc::SIGCHLD as u64),
        // The exit signal is the caller's own then (kernel/fork.c, copy_process()).
        Kind::Sibling => (libc::CLONE_PARENT, 0),
        Kind::EndsWith(signal) => (0, u64::from(signal)),
        Kind::Shares => (libc::CLONE_FILES | libc::CLONE_FS, libc::SIGCHLD as u64),
        Kind::Suspends => (libc::CLONE_VFORK, libc::SIGCHLD as u64),
    };
    let pid = if kind == Kind::Usual {
        // SAFETY: there is no other thread that could hold a lock or be in the middle of something in the copy.
        unsafe { libc::fork() }
    } else {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = flags as u64;
        arguments.exit_signal = signal;
        // SAFETY: as above; without CLONE_VM and a stack the child returns here in its own copy of the memory, like fork's.
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) as i32 }
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(99);
            // SAFETY: ends this process without running what the parent has registered for its own end.
            unsafe { libc::_exit(i32::from(code)) }
        }
        pid => Ok(pid),
    }
}

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_has_threads_and_gets_no_fork() {
        let refused = std::thread::spawn(|| fork(|| 0)).join().expect("no panic").expect_err("two threads at least");
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }
}

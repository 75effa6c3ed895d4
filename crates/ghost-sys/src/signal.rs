//! Signals by number, all 64 of them: libc's functions keep 32 and 33 to themselves, and nix's know no real-time ones.
//!
//! Invariant: no handler is ever installed, so nothing here can run code in a signal's context.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Signals that can be ignored, blocked or caught: all but SIGKILL and SIGSTOP.
pub fn catchable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|&sig| sig != libc::SIGKILL && sig != libc::SIGSTOP)
}

/// What a process does with a signal, handlers aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Default,
    Ignore,
}

/// The kernel's `struct sigaction`, which is not libc's.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// `PIDFD_SIGNAL_PROCESS_GROUP` of include/uapi/linux/pidfd.h, from 6.9 on.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Sets the disposition of one signal for the calling process.
///
/// # Errors
/// `EINVAL` if `sig` is not one of [`catchable`].
pub fn set_disposition(sig: i32, disposition: Disposition) -> io::Result<()> {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    let action = KernelAction { handler, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the kernel reads one action; without a handler no code can be called through it.
    check(unsafe { libc::syscall(libc::SYS_rt_sigaction, sig, &raw const action, 0usize, size_of::<u64>()) })
}

/// Blocks the signals of `mask` (bit `n - 1` for signal `n`) in the calling thread, and no others. Returns the mask before.
///
/// # Errors
/// None that the kernel documents.
pub fn set_blocked(mask: u64) -> io::Result<u64> {
    let mut before = 0u64;
    // SAFETY: the kernel reads and writes 8 bytes each.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, size_of::<u64>())
    };
    check(result).map(|()| before)
}

/// `kill(2)`: `target` is a PID, 0, -1 or a negated process group.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH` as there.
pub fn send(target: i32, sig: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_kill, target, sig) })
}

/// `tgkill(2)` at the main thread of a process.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH`, `EAGAIN` as there.
pub fn send_to_thread(process: i32, sig: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_tgkill, process, process, sig) })
}

/// The first fields of `siginfo_t` for `SI_QUEUE`, padded to its 128 bytes.
#[repr(C)]
struct QueueInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

impl QueueInfo {
    fn new(sig: i32, value: u64) -> Self {
        let pid = std::process::id().cast_signed();
        let uid = nix::unistd::getuid().as_raw();
        Self { signo: sig, errno: 0, code: libc::SI_QUEUE, pad: 0, pid, uid, value, rest: [0; 12] }
    }

    /// Hands it to a process.
    fn queue(&self, process: i32) -> io::Result<()> {
        // SAFETY: the kernel reads the 128 bytes of a siginfo, which `self` has.
        let result = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, process, self.signo, std::ptr::from_ref(self)) };
        check(result)
    }
}

/// `sigqueue(3)`.
///
/// # Errors
/// `EAGAIN` if the receiver's user has too many signals queued (`RLIMIT_SIGPENDING`), `EINVAL`, `EPERM`, `ESRCH`.
pub fn queue(process: i32, sig: i32, value: u64) -> io::Result<()> {
    QueueInfo::new(sig, value).queue(process)
}

/// Queues a signal to the calling process that says `code` and `uid` of its origin. To itself, a process may say anything.
///
/// # Errors
/// `EAGAIN`, `EINVAL` as for [`queue`].
pub fn queue_to_self(sig: i32, code: i32, uid: u32) -> io::Result<()> {
    QueueInfo { code, uid, ..QueueInfo::new(sig, 0) }.queue(std::process::id().cast_signed())
}

/// Queues a signal with a value to every member of the process group that `pidfd`'s process is in.
///
/// # Errors
/// `EINVAL` before Linux 6.9; `EPERM`, `ESRCH`, `EAGAIN`.
pub fn queue_to_group(pidfd: BorrowedFd<'_>, sig: i32, value: u64) -> io::Result<()> {
    let info = QueueInfo::new(sig, value);
    // SAFETY: as in `queue`.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), sig, &raw const info, PIDFD_SIGNAL_PROCESS_GROUP)
    };
    check(result)
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<QueueInfo>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_signal_is_pending_not_fatal() {
        let before = set_blocked(1 << 32).expect("block 33");
        send_to_thread(std::process::id().cast_signed(), 0).expect("signal 0");
        assert_eq!(set_blocked(before).expect("restore"), 1 << 32);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for sig in [0, 9, 19, 65, -1] {
            let error = set_disposition(sig, Disposition::Ignore).expect_err("not catchable");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{sig}");
        }
    }

    #[test]
    fn sixty_two() {
        assert_eq!(catchable().count(), 62);
    }
}

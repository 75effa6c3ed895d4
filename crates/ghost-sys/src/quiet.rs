//! Signals of the process that holds ghosts: quiet for its ghosts' sake, read from a descriptor instead.
//!
//! A set of signals is a `u64` in which bit n-1 stands for signal n; all 64 are meant, see [`crate::signal`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::signal::{Disposition, catchable, send, set_blocked, set_disposition};

/// The bit of a signal, 1 to 64, in a set.
pub const fn bit(signal: i32) -> u64 {
    1 << ((signal - 1) & 63)
}

/// What a process has inherited from its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inherited {
    pub blocked: u64,
    pub ignored: u64,
}

static IGNORED: AtomicU64 = AtomicU64::new(0);
static BLOCKED: AtomicU64 = AtomicU64::new(0);

/// Rust's runtime ignores SIGPIPE and catches SIGSEGV and SIGBUS before `main`: what was inherited is to be seen before it.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_inherited;

extern "C" fn note_inherited() {
    let mut ignored = 0;
    for signal in 1..=64 {
        if handler(signal) == libc::SIG_IGN {
            ignored |= bit(signal);
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    BLOCKED.store(blocked(), Ordering::Relaxed);
}

/// What this process had inherited when it was started.
pub fn inherited() -> Inherited {
    // Names the static, so that a linker that takes objects by need takes this one whole.
    std::hint::black_box(&BEFORE_MAIN);
    Inherited { blocked: BLOCKED.load(Ordering::Relaxed), ignored: IGNORED.load(Ordering::Relaxed) }
}

/// A signal read from the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    pub signal: i32,
    /// Who sent it; for SIGCHLD: which child. 0 if unknown.
    pub pid: i32,
    /// `si_code`: not above 0 if a process has sent it.
    pub code: i32,
}

/// All signals blocked, all ignored but SIGCHLD, and a descriptor to read them from. The kernel queues blocked signals
/// though they are ignored (kernel/signal.c `sig_ignored`).
#[derive(Debug)]
pub struct Quiet {
    fd: OwnedFd,
    /// Arrived before they could be ignored.
    early: Vec<Received>,
}

impl Quiet {
    /// Takes over all signals of this process, which must have one thread. [`Quiet::read`] is to be asked once before the
    /// descriptor is waited for: of what came meanwhile only it knows.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM of signalfd(2).
    pub fn begin() -> io::Result<Quiet> {
        set_blocked(u64::MAX)?;
        let all = u64::MAX;
        // SAFETY: the kernel reads 8 bytes and makes a descriptor. (glibc's set has no room for signals 32 and 33.)
        let fd = unsafe {
            let fd =
                libc::syscall(libc::SYS_signalfd4, -1, &raw const all, 8usize, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        let mut early = Vec::new();
        for signal in catchable() {
            let disposition = if signal == libc::SIGCHLD { Disposition::Default } else { Disposition::Ignore };
            // Ignoring a signal throws away what is pending of it (kernel/signal.c `do_sigaction`).
            if pending() & bit(signal) != 0 {
                early.push(Received { signal, pid: 0, code: 0 });
            }
            set_disposition(signal, disposition)?;
        }
        Ok(Quiet { fd, early })
    }

    /// The next signal, `None` if there is none now.
    pub fn read(&mut self) -> Option<Received> {
        if let Some(signal) = self.early.pop() {
            return Some(signal);
        }
        // SAFETY: signalfd_siginfo is plain data; read(2) fills at most its size, and whole records only.
        unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            let n = libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size);
            (n == size as isize).then_some(Received {
                signal: info.ssi_signo as i32,
                pid: info.ssi_pid as i32,
                code: info.ssi_code,
            })
        }
    }
}

impl AsFd for Quiet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Ends this process by a signal, as its parent's wait(2) sees it, without a core. A signal that does not end a process
/// becomes exit code 128 + signal.
pub fn die_by(signal: i32) -> ! {
    // SAFETY: PR_SET_DUMPABLE takes numbers only; not dumpable means no core, also where cores go to a program.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // Fails for SIGKILL and SIGSTOP, whose disposition cannot be another.
    let _ = set_disposition(signal, Disposition::Default);
    if !matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
        raise(signal);
        let _ = set_blocked(!bit(signal));
    }
    std::process::exit(128 + signal)
}

/// Stops this process by SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU, all signals being blocked; returns when it is continued. In
/// an orphaned process group, where a terminal's stop signals do nothing (kernel/signal.c `get_signal`), SIGSTOP stops it.
///
/// `still` looks once more whether there is a reason to stop. A SIGCONT that comes after that look is never lost: the stop
/// signal is pending by then, and SIGCONT takes it away (kernel/signal.c `prepare_signal`). So who takes the reason away
/// and then sends SIGCONT is sure to be followed.
pub fn stop_by(signal: i32, still: impl FnOnce() -> bool) {
    // SIGSTOP cannot be pending here: another stop signal shows whether SIGCONT has come.
    let shown = if signal == libc::SIGSTOP { libc::SIGTSTP } else { signal };
    let _ = set_disposition(shown, Disposition::Default);
    raise(shown);
    if !still() {
        // Ignoring it discards it.
        let _ = set_disposition(shown, Disposition::Ignore);
        return;
    }
    if signal == libc::SIGSTOP {
        if pending() & bit(shown) != 0 {
            raise(libc::SIGSTOP);
        }
        let _ = set_disposition(shown, Disposition::Ignore);
        return;
    }
    let _ = set_blocked(!bit(signal));
    let _ = set_blocked(u64::MAX);
    let _ = set_disposition(signal, Disposition::Ignore);
    // Raising a stop signal has discarded any older SIGCONT: one that is pending now has ended or forestalled the stop.
    if pending() & bit(libc::SIGCONT) == 0 {
        raise(libc::SIGSTOP);
    }
}

fn raise(signal: i32) {
    // To this process itself: cannot be refused.
    let _ = send(std::process::id().cast_signed(), signal);
}

/// The signals that are pending for this process.
pub fn pending() -> u64 {
    let mut mask = 0u64;
    // SAFETY: the kernel writes 8 bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut mask, 8usize) };
    mask
}

fn blocked() -> u64 {
    let mut mask = 0u64;
    // SAFETY: the kernel writes 8 bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, std::ptr::null::<u64>(), &raw mut mask, 8usize) };
    mask
}

/// The handler of a signal as a number: SIG_DFL, SIG_IGN or an address.
fn handler(signal: i32) -> usize {
    let mut action = [0usize; 4];
    // SAFETY: the kernel writes `struct sigaction`: handler, flags, restorer, mask, a word each.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, std::ptr::null::<usize>(), action.as_mut_ptr(), 8usize) };
    action[0]
}

#[cfg(test)]
mod tests;

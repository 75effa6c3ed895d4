//! Signals to a process by its descriptor, with a sender and a value of the caller's choice.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What a handler gets to know of a signal (sigaction(2), siginfo_t).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// 1 to 64.
    pub signal: i32,
    /// Below 0 and not SI_TKILL: the kernel lets nobody else claim the others (kernel/signal.c, do_pidfd_send_signal()).
    pub code: i32,
    pub pid: i32,
    pub uid: u32,
    /// `si_value`, all 64 bits of it.
    pub value: u64,
}

/// The head of the kernel's siginfo_t for a queued signal on 64-bit machines (include/uapi/asm-generic/siginfo.h, _rt).
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub pad: i32,
    pub pid: i32,
    pub uid: u32,
    pub value: u64,
    pub rest: [u64; 12],
}
const _: () = assert!(size_of::<RawInfo>() == size_of::<libc::siginfo_t>());

/// include/uapi/linux/pidfd.h
const PIDFD_SIGNAL_THREAD: u32 = 1;
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Process,
    /// The first thread of the process alone. Linux 6.9.
    Thread,
    /// All members of the process group whose number is the PID that the descriptor names, in one step with respect to
    /// fork. Linux 6.9.
    Group,
}

/// Opens a descriptor of the process (a thread-group leader) with this number.
///
/// # Errors
/// ESRCH: no such process. EINVAL: the number is a thread's.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: two integers; gives a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to exactly the process behind the descriptor, as kill(2) would.
///
/// # Errors
/// ESRCH: it is gone.
pub fn signal(pidfd: &impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal reads no memory of ours when `info` is null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal with everything that its receiver sees of it.
///
/// # Errors
/// ESRCH: it has ended. EAGAIN: a real-time signal, and its user's RLIMIT_SIGPENDING is used up. EPERM. EINVAL: no such
/// signal, or [`Target::Thread`] or [`Target::Group`] on a kernel that does not know it.
pub fn send(process: &impl AsFd, info: SignalInfo, target: Target) -> io::Result<()> {
    let raw = RawInfo {
        signo: info.signal,
        errno: 0,
        code: info.code,
        pad: 0,
        pid: info.pid,
        uid: info.uid,
        value: info.value,
        rest: [0; 12],
    };
    let flags = match target {
        Target::Process => 0,
        Target::Thread => PIDFD_SIGNAL_THREAD,
        Target::Group => PIDFD_SIGNAL_PROCESS_GROUP,
    };
    let fd = process.as_fd().as_raw_fd();
    // SAFETY: the struct has the size of a siginfo_t, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, info.signal, &raw const raw, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// kill(2) with any signal number; negative: a process group; -1: all that may be signalled.
///
/// # Errors
/// ESRCH, EPERM, EINVAL.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: two integers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_signal_reaches_the_process_and_a_dead_one_is_told_apart() {
        let mut child = Command::new("/bin/sleep").arg("100").spawn().expect("sleep");
        let pidfd = open(child.id()).expect("pidfd");
        let info = SignalInfo { signal: 15, code: -1, pid: 7, uid: 8, value: 9 };
        send(&pidfd, SignalInfo { signal: 65, ..info }, Target::Process).expect_err("there is no signal 65");
        let claimed =
            send(&pidfd, SignalInfo { code: 0, ..info }, Target::Process).expect_err("SI_USER cannot be claimed");
        assert_eq!(claimed.raw_os_error(), Some(libc::EPERM));
        send(&pidfd, info, Target::Process).expect("send");
        assert_eq!(child.wait().expect("wait").signal(), Some(15));
        let gone = send(&pidfd, info, Target::Process).expect_err("it is dead");
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }
}

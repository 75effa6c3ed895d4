//! Taking blocked signals one after the other, all 64 of them.

use std::io;

use crate::pidfd::{RawInfo, SignalInfo};

/// Waits for one of the signals of `mask` (bit `n - 1` for signal `n`), which must be blocked (rt_sigtimedwait(2) without
/// a timeout). `pid`, `uid` and `value` say something for signals that were sent by a process.
///
/// # Errors
/// `EINTR` never reaches the caller; there is no other.
pub fn next(mask: u64) -> io::Result<SignalInfo> {
    let mut info = RawInfo::default();
    loop {
        // SAFETY: the kernel reads 8 bytes of mask and writes one siginfo_t, whose size `info` has (asserted there);
        // every bit pattern is a valid `RawInfo`. libc's wrapper would refuse to wait for 32 and 33.
        let signal = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const mask, &raw mut info, 0usize, size_of::<u64>())
        };
        if signal > 0 {
            let RawInfo { signo: signal, code, pid, uid, value, .. } = info;
            return Ok(SignalInfo { signal, code, pid, uid, value });
        }
        let why = io::Error::last_os_error();
        if why.kind() != io::ErrorKind::Interrupted {
            return Err(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal;

    #[test]
    fn queued_signals_come_with_their_values_in_order() {
        // A thread of the test: its mask ends with it, and queued signals are the process's.
        let own = std::process::id().cast_signed();
        let (first, second) = (60, 61);
        let mask = 1 << (first - 1) | 1 << (second - 1);
        // Every other thread would die of them: only this one's mask can be set, so they are sent to the thread.
        let before = signal::set_blocked(mask).expect("mask");
        let tid = nix::unistd::gettid().as_raw();
        for (sig, value) in [(second, 5u64), (first, 7), (first, 8)] {
            queue_to_thread(own, tid, sig, value);
        }
        let seen: Vec<_> =
            (0..3).map(|_| next(mask).expect("a signal")).map(|info| (info.signal, info.value)).collect();
        assert_eq!(seen, [(first, 7), (first, 8), (second, 5)]);
        signal::set_blocked(before).expect("mask");
    }

    fn queue_to_thread(pid: i32, tid: i32, sig: i32, value: u64) {
        let info = RawInfo { signo: sig, code: libc::SI_QUEUE, pid, value, ..RawInfo::default() };
        // SAFETY: the kernel reads one siginfo_t.
        let result = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, sig, &raw const info) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

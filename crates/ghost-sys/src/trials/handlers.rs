//! Handlers that write down what they are called with.
//!
//! Invariant: the handler touches atomics of this file only, and sends a signal at most: it may run at any moment.

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::pidfd::{RawInfo, SignalInfo};

/// How a signal is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// `SA_*` of sigaction(2), besides SA_SIGINFO.
    pub flags: i32,
    /// Blocked while the handler runs; bit n-1 is signal n.
    pub blocked: u64,
    /// A signal that the first call of the handler sends to its own process; 0: none.
    pub sends: i32,
}

/// A call of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub info: SignalInfo,
    /// How many handlers ran when it was called: 0, or more if it interrupted one.
    pub inside: u32,
}

/// Calls after these are not written down.
const MOST: usize = 256;

struct Slot {
    signal: AtomicI32,
    code: AtomicI32,
    pid: AtomicI32,
    uid: AtomicU32,
    value: AtomicU64,
    inside: AtomicU32,
    done: AtomicU32,
}

impl Slot {
    const fn empty() -> Slot {
        Slot {
            signal: AtomicI32::new(0),
            code: AtomicI32::new(0),
            pid: AtomicI32::new(0),
            uid: AtomicU32::new(0),
            value: AtomicU64::new(0),
            inside: AtomicU32::new(0),
            done: AtomicU32::new(0),
        }
    }
}

static SLOTS: [Slot; MOST] = [const { Slot::empty() }; MOST];
static NEXT: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicU32 = AtomicU32::new(0);
static SENDS: AtomicI32 = AtomicI32::new(0);

extern "C" fn write_down(signal: i32, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let inside = INSIDE.fetch_add(1, Ordering::SeqCst);
    if let Some(slot) = SLOTS.get(NEXT.fetch_add(1, Ordering::SeqCst)) {
        // SAFETY: the kernel passes a whole siginfo_t (SA_SIGINFO), whose size RawInfo has; any bits are a valid one.
        let info = unsafe { info.cast::<RawInfo>().read() };
        slot.signal.store(signal, Ordering::SeqCst);
        slot.code.store(info.code, Ordering::SeqCst);
        slot.pid.store(info.pid, Ordering::SeqCst);
        slot.uid.store(info.uid, Ordering::SeqCst);
        slot.value.store(info.value, Ordering::SeqCst);
        slot.inside.store(inside, Ordering::SeqCst);
        slot.done.store(1, Ordering::SeqCst);
    }
    let sends = SENDS.swap(0, Ordering::SeqCst);
    if sends != 0 {
        // SAFETY: kill(2) is async-signal-safe; getpid(2) as well.
        unsafe { libc::kill(libc::getpid(), sends) };
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

/// Has the signal handled from now on; see [`entries`].
///
/// # Errors
/// EINVAL: SIGKILL, SIGSTOP, 32, 33 or no signal.
pub fn handle(signal: i32, how: How) -> io::Result<()> {
    if how.sends != 0 {
        SENDS.store(how.sends, Ordering::SeqCst);
    }
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = write_down;
    // SAFETY: a struct of integers, for which zero is a value; the set is initialised before signals are added.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | how.flags;
        libc::sigemptyset(&raw mut action.sa_mask);
        for blocked in (1..=64).filter(|blocked| how.blocked >> (blocked - 1) & 1 == 1) {
            libc::sigaddset(&raw mut action.sa_mask, blocked);
        }
        action
    };
    // SAFETY: the handler keeps to what a handler may do (see its invariant) and is there as long as the process.
    if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The calls so far, in the order in which they began.
pub fn entries() -> Vec<Entry> {
    let slots = SLOTS.iter().take(NEXT.load(Ordering::SeqCst));
    let written = slots.take_while(|slot| slot.done.load(Ordering::SeqCst) == 1);
    written
        .map(|slot| Entry {
            info: SignalInfo {
                signal: slot.signal.load(Ordering::SeqCst),
                code: slot.code.load(Ordering::SeqCst),
                pid: slot.pid.load(Ordering::SeqCst),
                uid: slot.uid.load(Ordering::SeqCst),
                value: slot.value.load(Ordering::SeqCst),
            },
            inside: slot.inside.load(Ordering::SeqCst),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_written_down() {
        handle(libc::SIGUSR2, How::default()).expect("handler");
        let own = std::process::id().cast_signed();
        crate::signal::queue(own, libc::SIGUSR2, 77).expect("queue");
        let seen = loop {
            if let Some(entry) = entries().first() {
                break *entry;
            }
            std::thread::yield_now();
        };
        assert_eq!((seen.info.signal, seen.info.code, seen.info.pid, seen.info.value), (libc::SIGUSR2, -1, own, 77));
        assert_eq!(seen.inside, 0);
        handle(libc::SIGKILL, How::default()).expect_err("cannot be handled");
    }
}

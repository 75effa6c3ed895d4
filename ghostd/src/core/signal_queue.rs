//! Signals of one process that its node has not confirmed: what is sent again when the node reconnects.
//!
//! ```text
//! push ──(link up: sent)──┬── SignalDone ── gone
//!                         └── link lost, link back ── sent again under the same number
//! ```
//! Invariants:
//! - The order is that in which the signals were sent to the ghost.
//! - At most [`MOST`] wait. While the link is down they merge as the kernel merges what is pending: a standard signal is
//!   there once, SIGCONT and the stop signals take each other away (kernel/signal.c `prepare_signal`, `legacy_queue`).
//! - SIGKILL is always taken, and nothing else matters beside it.

use std::collections::VecDeque;

use ghost_proto::node::Signal;
use nix::libc;

use super::Instant;

/// Signals that may wait for one process; the kernel's own limit (RLIMIT_SIGPENDING) is of this order.
pub(super) const MOST: usize = 16_384;

const KILL: u32 = libc::SIGKILL as u32;
const STOP: u32 = libc::SIGSTOP as u32;
const CONT: u32 = libc::SIGCONT as u32;
/// The first signal that counts (SIGRTMIN of the kernel).
const REAL_TIME: u32 = 32;

const fn is_stop(signal: u32) -> bool {
    matches!(signal as i32, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// With when each was sent to the ghost.
#[derive(Debug, Default)]
pub(super) struct SignalQueue(VecDeque<(Signal, Instant)>);

impl SignalQueue {
    /// Takes a signal; `false`: it is merged with one that waits, or there is no room, and it is not to be sent.
    /// `connected`: it goes out at once, so that what was pushed before it may have been delivered already.
    pub fn push(&mut self, signal: Signal, now: Instant, connected: bool) -> bool {
        let number = signal.signal;
        // What comes behind a kill reaches nobody; unless the kill may be refused, and this may not.
        if self.iter().next().is_some_and(|s| s.signal == KILL && (s.privileged || !signal.privileged)) {
            return false;
        }
        if number == KILL {
            self.0.clear();
            self.0.push_back((signal, now));
            return true;
        }
        if !connected {
            if is_stop(number) {
                self.0.retain(|(s, _)| s.signal != CONT);
            } else if number == CONT {
                self.0.retain(|(s, _)| !is_stop(s.signal));
            }
            if number < REAL_TIME && self.iter().any(|s| s.signal == number) {
                return false;
            }
        }
        if self.0.len() >= MOST {
            return false;
        }
        self.0.push_back((signal, now));
        true
    }

    /// The node has dealt with this one; gives it, if it was still waited for, and when it was sent.
    pub fn confirm(&mut self, seq: u64) -> Option<(Signal, Instant)> {
        // Nearly always the first.
        let index = self.iter().position(|s| s.seq == seq)?;
        self.0.remove(index)
    }

    /// A SIGSTOP is on its way.
    pub fn holds_stop(&self) -> bool {
        self.iter().any(|s| s.signal == STOP)
    }

    /// A SIGCONT is on its way. What the node tells of a stop until it has confirmed it was before it.
    pub fn holds_continue(&self) -> bool {
        self.iter().any(|s| s.signal == CONT)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Signal> {
        self.0.iter().map(|(signal, _)| signal)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(signals: &[u32], connected: bool) -> Vec<u32> {
        let mut queue = SignalQueue::default();
        for (seq, &signal) in (1..).zip(signals) {
            queue.push(Signal { seq, signal, ..Signal::default() }, Instant::ZERO, connected);
        }
        queue.iter().map(|s| s.signal).collect()
    }

    #[test]
    fn signals_merge_only_while_the_node_is_away() {
        for (signals, connected, expected) in [
            (&[15, 15, 40, 40][..], true, &[15, 15, 40, 40][..]),
            (&[15, 15, 40, 40], false, &[15, 40, 40]),
            (&[19, 18, 19], true, &[19, 18, 19]),
            (&[19, 18], false, &[18]),
            (&[20, 21, 1, 18], false, &[1, 18]),
            (&[18, 20], false, &[20]),
            (&[15, 40, 9, 15, 9], true, &[9]),
            (&[15, 40, 9, 15, 9], false, &[9]),
        ] {
            assert_eq!(queue(signals, connected), expected, "{signals:?}, connected: {connected}");
        }
    }

    #[test]
    fn a_flood_is_bounded_and_a_kill_passes_it() {
        let mut flood = vec![40; MOST + 10];
        assert_eq!(queue(&flood, true).len(), MOST);
        flood.push(9);
        assert_eq!(queue(&flood, true), [9]);
    }

    #[test]
    fn what_is_confirmed_is_gone() {
        let mut queue = SignalQueue::default();
        for seq in 1..=3 {
            queue.push(Signal { seq, signal: 19, ..Signal::default() }, Instant::from_secs(seq), true);
        }
        assert_eq!(queue.confirm(2).map(|(_, since)| since), Some(Instant::from_secs(2)));
        assert_eq!(queue.confirm(7), None);
        assert_eq!(queue.iter().map(|s| s.seq).collect::<Vec<_>>(), [1, 3]);
        queue.confirm(1);
        assert!(queue.holds_stop());
        queue.confirm(3);
        assert!(!queue.holds_stop());
    }
}

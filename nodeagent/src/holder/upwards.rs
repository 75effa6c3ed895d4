//! Signals to stand-ins, on their way to the master: each is told until the master has said that it is done, over reconnects and
//! ghostds.
//!
//! ```text
//! seen ──┬── told ── SentDone: forgotten
//!        └── one of its kind is under way: waits until that is done, and stands for all that come meanwhile
//! ```
//! Invariants:
//! - Of a standard signal of one process to one target there are at most two here, as the kernel has at most one pending: a signal
//!   that comes after the first was told is not lost in it. Of real-time ones, which count, at most [`MOST`] of one process.
//! - Before a process's end is told, all that it has sent is.

use std::collections::VecDeque;

use ghost_abi::is_realtime;
use ghost_proto::standin::Sent;

/// Real-time signals of one process.
const MOST: usize = 4096;

#[derive(Debug)]
struct Waiting {
    sent: Sent,
    told: bool,
}

/// All of them, in the order in which they were seen.
#[derive(Debug, Default)]
pub(super) struct Upwards {
    waiting: VecDeque<Waiting>,
    last: u64,
}

impl Upwards {
    /// One was seen. Its numbers are given here.
    pub fn add(&mut self, sent: Sent) {
        let refused = if counts(&sent) {
            self.waiting.iter().filter(|other| other.sent.proc == sent.proc && counts(&other.sent)).count() >= MOST
        } else {
            self.waiting.iter().any(|other| !other.told && alike(&other.sent, &sent))
        };
        if !refused {
            self.last += 1;
            self.waiting.push_back(Waiting { sent: Sent { seq: self.last, ..sent }, told: false });
        }
    }

    /// Those that are to be told now.
    pub fn due(&mut self) -> Vec<Sent> {
        let under_way: Vec<Sent> = self.waiting.iter().filter(|w| w.told).map(|w| w.sent.clone()).collect();
        let free = |sent: &Sent| counts(sent) || !under_way.iter().any(|other| alike(other, sent));
        self.tell(|waiting| !waiting.told && free(&waiting.sent))
    }

    /// Those of a process that ends.
    pub fn last_of(&mut self, proc: u64) -> Vec<Sent> {
        self.tell(|waiting| !waiting.told && waiting.sent.proc == proc)
    }

    /// All of a process, on a new connection.
    pub fn again(&mut self, proc: u64) -> Vec<Sent> {
        self.tell(|waiting| waiting.sent.proc == proc)
    }

    fn tell(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Sent> {
        let settled = self.waiting.front().map_or(0, |first| first.sent.seq);
        let told = self.waiting.iter_mut().filter(|waiting| which(waiting)).map(|waiting| {
            waiting.told = true;
            Sent { settled, ..waiting.sent.clone() }
        });
        told.collect()
    }

    /// The master has dealt with it.
    pub fn done(&mut self, seq: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&seq, |waiting| waiting.sent.seq)
            && self.waiting.get(at).is_some_and(|waiting| waiting.told)
        {
            self.waiting.remove(at);
        }
    }

    /// The master needs nothing more of a process.
    pub fn forget(&mut self, proc: u64) {
        self.waiting.retain(|waiting| waiting.sent.proc != proc);
    }

    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

fn counts(sent: &Sent) -> bool {
    is_realtime(usize::try_from(sent.signal).unwrap_or(0))
}

fn alike(one: &Sent, other: &Sent) -> bool {
    let kind = |sent: &Sent| (sent.proc, sent.target, sent.group, sent.signal);
    kind(one) == kind(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(proc: u64, signal: u32) -> Sent {
        Sent { proc, target: 50, signal, ..Sent::default() }
    }

    fn numbers(sent: &[Sent]) -> Vec<(u64, u64)> {
        sent.iter().map(|sent| (sent.seq, sent.settled)).collect()
    }

    #[test]
    fn a_standard_signal_waits_for_the_one_before_and_stands_for_all_after() {
        let mut upwards = Upwards::default();
        upwards.add(sent(1, 10));
        assert_eq!(numbers(&upwards.due()), [(1, 1)]);
        for _ in 0..1000 {
            upwards.add(sent(1, 10));
        }
        upwards.add(sent(1, 12));
        upwards.add(sent(2, 10));
        assert_eq!(numbers(&upwards.due()), [(3, 1), (4, 1)], "another signal, another sender");
        upwards.done(1);
        assert_eq!(numbers(&upwards.due()), [(2, 2)]);
        upwards.done(2);
        upwards.done(2);
        assert_eq!(numbers(&upwards.due()), []);
        assert_eq!(numbers(&upwards.again(2)), [(4, 3)]);
    }

    #[test]
    fn real_time_ones_count_up_to_a_limit() {
        let mut upwards = Upwards::default();
        for _ in 0..MOST + 10 {
            upwards.add(sent(1, 40));
            upwards.add(sent(2, 40));
        }
        assert_eq!(upwards.due().len(), 2 * MOST);
        upwards.done(1);
        upwards.add(sent(1, 40));
        upwards.add(sent(1, 40));
        assert_eq!(upwards.due().len(), 1);
        upwards.forget(1);
        assert_eq!(upwards.again(1).len(), 0);
        assert_eq!(upwards.again(2).len(), MOST);
    }

    #[test]
    fn all_of_a_process_is_told_before_its_end_and_again_on_the_next_connection() {
        let mut upwards = Upwards::default();
        upwards.add(sent(1, 10));
        upwards.due();
        upwards.add(sent(1, 10));
        assert_eq!(numbers(&upwards.due()), []);
        assert_eq!(numbers(&upwards.last_of(1)), [(2, 1)]);
        assert_eq!(numbers(&upwards.again(1)), [(1, 1), (2, 1)]);
        // What was not told cannot be done.
        upwards.add(sent(1, 10));
        upwards.done(3);
        assert_eq!(numbers(&upwards.again(1)), [(1, 1), (2, 1), (3, 1)]);
    }
}

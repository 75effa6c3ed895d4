//! How many commands may be connected: each costs descriptors, of which ghostd needs some for its nodes at any time, or their
//! leases would run out and everything that runs there would end.
//!
//! Invariant: dozens of users who hold as many connections as they get leave some for the next one: nobody may hold more than a
//! quarter of what is free.

use std::collections::HashMap;

/// Which part of what is free one user may hold.
const PART: usize = 4;
/// Connections that one user other than root may hold in any case.
const MOST_PER_USER: usize = 2_000;
/// Descriptors of a command's connection: the socket, its process, the pin's file on its way to it.
const DESCRIPTORS_EACH: u64 = 3;
/// Descriptors that are for nodes, root and ghostd itself; at least half of all are where there are few.
const DESCRIPTORS_KEPT: u64 = 8_192;

#[derive(Debug)]
pub(super) struct Seats {
    all: usize,
    taken: usize,
    by_user: HashMap<u32, usize>,
    refused: u64,
}

/// Why somebody gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("uid {uid} has {count} connections already, which is the most allowed")]
    User { uid: u32, count: usize },
    #[error("uid {uid} has {count} connections already, and there are {free} left for all (descriptors of ghostd)")]
    Shared { uid: u32, count: usize, free: usize },
}

impl Seats {
    /// For a process that may have so many descriptors.
    pub(super) fn new(descriptors: u64) -> Seats {
        let kept = DESCRIPTORS_KEPT.min(descriptors / 2);
        let all = usize::try_from((descriptors - kept) / DESCRIPTORS_EACH).unwrap_or(usize::MAX);
        Seats { all, taken: 0, by_user: HashMap::new(), refused: 0 }
    }

    /// Root takes what it wants: it administers, and what is kept is for it too.
    pub(super) fn take(&mut self, uid: u32) -> Result<(), Full> {
        let count = self.by_user.get(&uid).copied().unwrap_or(0);
        let free = self.all.saturating_sub(self.taken);
        if uid != 0 && count >= MOST_PER_USER {
            self.refused += 1;
            return Err(Full::User { uid, count });
        }
        if uid != 0 && count >= free.div_ceil(PART) {
            self.refused += 1;
            return Err(Full::Shared { uid, count, free });
        }
        *self.by_user.entry(uid).or_default() += 1;
        self.taken += 1;
        Ok(())
    }

    /// How many got none so far.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn leave(&mut self, uid: u32) {
        let Some(count) = self.by_user.get_mut(&uid) else { return };
        *count -= 1;
        if *count == 0 {
            self.by_user.remove(&uid);
        }
        self.taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `wanted` a user gets.
    fn fill(seats: &mut Seats, uid: u32, wanted: usize) -> usize {
        (0..wanted).take_while(|_| seats.take(uid).is_ok()).count()
    }

    #[test]
    fn one_user_has_his_share_and_root_has_more() {
        let mut seats = Seats::new(1 << 20);
        assert_eq!(fill(&mut seats, 1000, 10_000), MOST_PER_USER);
        assert_eq!(seats.take(1000), Err(Full::User { uid: 1000, count: MOST_PER_USER }));
        assert_eq!(fill(&mut seats, 0, 10_000), 10_000);
        seats.leave(1000);
        assert_eq!(fill(&mut seats, 1000, 10_000), 1);
    }

    #[test]
    fn many_users_leave_some_for_the_next_and_for_nodes() {
        for descriptors in [1024, 4096, 20_000, 1 << 19] {
            let mut seats = Seats::new(descriptors);
            for uid in 1..=15 {
                assert!(fill(&mut seats, uid, 10_000) >= 1, "{descriptors}: user {uid} gets none");
            }
            let used = seats.taken as u64 * DESCRIPTORS_EACH;
            assert!(used + DESCRIPTORS_KEPT.min(descriptors / 2) <= descriptors, "{descriptors}: {used} are used");
            assert!(seats.take(0).is_ok());
            // When all have left it is as in the beginning.
            seats.leave(0);
            for uid in 1..=15 {
                while seats.by_user.contains_key(&uid) {
                    seats.leave(uid);
                }
            }
            assert_eq!(seats.taken, 0);
        }
        assert_eq!(fill(&mut Seats::new(0), 1, 5), 0);
        assert_eq!(fill(&mut Seats::new(20_000), 1, 10_000), 788, "one alone, where there are few");
    }
}

//! Which signals have come: one that comes again, because its confirmation was lost with a connection or with the master's
//! memory, is confirmed again and not sent again.
//!
//! Invariant: at most [`MOST`] are remembered. The master says below which number none comes again; what it numbers outside of
//! that order (from [`UNORDERED`] on) is few, and only the last of it is remembered.

use std::collections::BTreeMap;

use ghost_proto::ids::ProcId;
use ghost_proto::node::{Scope, Signal};

const MOST: usize = 200_000;
const MOST_UNORDERED: usize = 1_000;
const UNORDERED: u64 = 1 << 63;
/// Of a signal that does not come again.
const UNNAMED: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Process(ProcId),
    Group(u32),
}

/// Tells one signal from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    number: u64,
    target: Target,
}

impl Name {
    /// `group`: of a signal to a group, which one; 0: not known.
    pub fn of(signal: &Signal, group: u32) -> Name {
        let target = match signal.scope() {
            // One call reaches each group once, whichever member's ghost has told of it.
            Scope::Group if group != 0 => Target::Group(group),
            _ => Target::Process(ProcId(signal.proc)),
        };
        Name { number: signal.seq, target }
    }

    /// A call's, as one of the group's members has got it.
    pub fn of_member(signal: &Signal, member: ProcId) -> Name {
        Name { number: signal.seq, target: Target::Process(member) }
    }

    pub const fn number(&self) -> u64 {
        self.number
    }
}

/// What became of each: `None` while it waits, then 0 or an errno.
#[derive(Debug, Default)]
pub(super) struct Heard {
    signals: BTreeMap<Name, Option<i32>>,
    unordered: usize,
}

impl Heard {
    /// Whether this one has come before, and what became of it. Forgets those below `settled`.
    pub fn before(&mut self, name: &Name, settled: u64) -> Option<Option<i32>> {
        if name.number == UNNAMED {
            return None;
        }
        while let Some(first) = self.signals.first_entry()
            && first.key().number < settled.min(UNORDERED)
        {
            first.remove();
        }
        self.signals.get(name).copied()
    }

    pub fn wait(&mut self, name: Name) {
        if name.number == UNNAMED {
            return;
        }
        self.signals.insert(name, None);
        if name.number >= UNORDERED {
            self.unordered += 1;
            if self.unordered > MOST_UNORDERED {
                let from = Name { number: UNORDERED, target: Target::Process(ProcId(0)) };
                if let Some(oldest) = self.signals.range(from..).next().map(|(name, _)| *name) {
                    self.signals.remove(&oldest);
                    self.unordered -= 1;
                }
            }
        } else if self.signals.len() > MOST {
            self.signals.pop_first();
        }
    }

    /// A process gets it as one of a group: should it be named to it again when it is in another group.
    pub fn borne(&mut self, name: Name) {
        if name.number < UNORDERED {
            self.wait(name);
            self.done(name, 0);
        }
    }

    /// It has been dealt with.
    pub fn done(&mut self, name: Name, errno: i32) {
        if let Some(state) = self.signals.get_mut(&name) {
            *state = Some(errno);
        }
    }

    pub fn clear(&mut self) {
        self.signals.clear();
        self.unordered = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(seq: u64, proc: u64, group: u32) -> Name {
        let scope = if group == 0 { Scope::Process } else { Scope::Group } as i32;
        Name::of(&Signal { seq, proc, group, scope, ..Signal::default() }, group)
    }

    #[test]
    fn a_signal_is_known_by_its_number_and_its_process_or_group() {
        let mut heard = Heard::default();
        heard.wait(name(5, 1, 0));
        heard.wait(name(5, 1, 70));
        assert_eq!(heard.before(&name(5, 1, 0), 0), Some(None));
        heard.done(name(5, 1, 0), 3);
        assert_eq!(heard.before(&name(5, 1, 0), 5), Some(Some(3)));
        assert_eq!(heard.before(&name(5, 2, 0), 0), None, "another process");
        assert_eq!(heard.before(&name(5, 2, 70), 0), Some(None), "another member of the group");
        assert_eq!(heard.before(&name(5, 1, 71), 0), None, "another group");
        assert_eq!(heard.before(&name(5, 1, 0), 6), None, "settled");
        heard.wait(name(0, 1, 0));
        assert_eq!(heard.before(&name(0, 1, 0), 0), None, "it has no name");
    }

    #[test]
    fn memory_is_bounded() {
        let mut heard = Heard::default();
        for number in 1..MOST as u64 + 10 {
            heard.wait(name(number, 1, 0));
        }
        assert_eq!(heard.signals.len(), MOST);
        for number in 0..MOST_UNORDERED as u64 + 10 {
            heard.wait(name(UNORDERED + number, 1, 0));
        }
        assert_eq!(heard.before(&name(UNORDERED, 1, 0), u64::MAX), None);
        assert_eq!(heard.signals.len(), MOST_UNORDERED);
    }
}

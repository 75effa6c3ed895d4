//! Changes of groups, sessions and names, for which the kernel has no event: found by looking, while something runs.
//!
//! What a process changes of itself costs it processor time. So while the cgroups of the launches have used none since the last
//! look there is nothing to see, and a look at those figures is all that is spent.
//!
//! A look at all processes takes some 20 us, and about one more for each process: so that it never costs more than a few
//! hundredths of one processor, the pause after it grows with what it took.

use std::time::{Duration, Instant};

use super::{Driver, now};
use crate::holder::event::{Event, TreeEvent};
use crate::holder::setup::log;

/// While processes run.
const BUSY: Duration = Duration::from_millis(25);
/// While all sleep.
const IDLE: Duration = Duration::from_millis(40);
/// A pause is at least so many times what the look before it took.
const SPARING: u32 = 40;

/// When to look, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Standing {
    due: Option<Duration>,
    /// Processor time of all launches, in microseconds.
    used: Option<u64>,
}

impl Driver {
    /// A record tells of a fork or an exec. It may be older than the last look, which did not know that process yet, or younger than
    /// what it has done since: there is to be another look.
    pub(super) fn look_again(&mut self) {
        self.standing.used = None;
    }

    pub(super) fn next_look_at_standing(&self) -> Option<Duration> {
        self.standing.due
    }

    /// Looks whether processes have changed themselves.
    pub(super) fn look_at_standing(&mut self) {
        if !self.core.tree().is_told_of_any() {
            self.standing = Standing::default();
            return;
        }
        let now = now();
        match self.standing.due {
            Some(due) if due <= now => {}
            Some(_) => return,
            None => {
                self.standing.due = Some(now + BUSY);
                return;
            }
        }
        let used = self.cgroups.processor_time();
        if used.is_some() && used == self.standing.used {
            self.standing.due = Some(now + IDLE);
            return;
        }
        // Read before the list: what changes from here on is seen the next time.
        self.standing.used = used;
        let began = Instant::now();
        let seen = self.programs.as_ref().map_or(0, |programs| programs.records());
        match self.programs.as_mut().map(|programs| programs.list()) {
            Some(Ok(all)) => self.handle(Event::Tree(TreeEvent::Compared { all, seen })),
            Some(Err(why)) => log(&format!("the namespace's processes cannot be listed: {why}")),
            None => {}
        }
        self.standing.due = Some(now + BUSY.max(began.elapsed() * SPARING));
    }
}

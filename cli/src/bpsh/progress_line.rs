//! Which nodes the others wait for, in one line on a terminal. Pure: ranks, what was shown, and time go in; when to look comes out,
//! and the line.
//!
//! ```text
//! nothing shown for 2 s --> look --(something has happened, 250 ms later)--> look ...
//!          ^------------------ something is shown: the line has gone ---------/
//! ```
//! Invariant: without anything happening there is one look, so nothing wakes bpsh while all wait.

use std::time::{Duration, Instant};

use ghost_proto::nodeset::fold_set;

/// Nothing has been shown for so long.
const QUIET: Duration = Duration::from_secs(2);
/// The line is drawn anew so often at most.
const EACH: Duration = Duration::from_millis(250);

/// How far a rank is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Its turn has not come (`--fanout`).
    Waiting,
    Starting,
    Running,
    /// Or it never ran, which has been said.
    Ended,
}

/// When the line is to be looked at.
#[derive(Debug)]
pub struct Pace {
    /// What had been shown, and since when nothing more.
    shown: u64,
    since: Instant,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Pace {
    pub fn new(now: Instant) -> Pace {
        Pace { shown: 0, since: now, last: None, next: Some(now + QUIET) }
    }

    /// Something may have happened, and so much has been shown: whether to look now.
    pub fn is_due(&mut self, now: Instant, shown: u64) -> bool {
        if shown != self.shown {
            (self.shown, self.since) = (shown, now);
        }
        let quiet = self.since + QUIET;
        let at = self.last.map_or(quiet, |last| quiet.max(last + EACH));
        let is_due = now >= at;
        if is_due {
            self.last = Some(now);
        }
        self.next = (!is_due).then_some(at);
        is_due
    }

    /// When to ask again, if nothing happens before.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// The line, if there is anything to tell: of one rank there is not, nor while all alike are running.
pub fn line(ranks: impl IntoIterator<Item = (i32, Stage)>) -> Option<String> {
    let ranks: Vec<(i32, Stage)> = ranks.into_iter().collect();
    let all = ranks.len();
    let count = |stage| ranks.iter().filter(|(_, other)| *other == stage).count();
    let (starting, ended) = (count(Stage::Starting), count(Stage::Ended));
    if all < 2 || ended == all {
        return None;
    }
    let (done, word, late): (usize, &str, &[Stage]) = if starting > 0 {
        (all - starting - count(Stage::Waiting), "started", &[Stage::Starting])
    } else if ended > 0 {
        (ended, "ended", &[Stage::Running, Stage::Waiting])
    } else {
        return None;
    };
    let late = ranks.iter().filter(|(_, stage)| late.contains(stage)).map(|(node, _)| *node);
    Some(format!("bpsh: {done} of {all} {word}, not yet {}", fold_set(late)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stage::{Ended, Running, Starting, Waiting};

    fn told(stages: &[Stage]) -> Option<String> {
        line((0i32..).zip(stages.iter().copied()))
    }

    #[test]
    fn the_line_tells_who_is_waited_for() {
        for (stages, expected) in [
            (&[Running, Starting, Starting, Ended][..], Some("bpsh: 2 of 4 started, not yet 1-2")),
            (&[Ended, Running, Ended, Running], Some("bpsh: 2 of 4 ended, not yet 1,3")),
            (&[Starting, Waiting, Ended], Some("bpsh: 1 of 3 started, not yet 0")),
            (&[Ended, Running, Waiting], Some("bpsh: 1 of 3 ended, not yet 1-2")),
            (&[Starting, Starting], Some("bpsh: 0 of 2 started, not yet 0-1")),
            // Nobody is later than the others.
            (&[Running, Running], None),
            (&[Ended, Ended], None),
            (&[Starting], None),
            (&[Running], None),
            (&[], None),
        ] {
            assert_eq!(told(stages).as_deref(), expected, "{stages:?}");
        }
    }

    #[test]
    fn it_is_looked_at_after_two_quiet_seconds_and_at_most_four_times_a_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(start);
        assert!(!pace.is_due(at(1999), 0));
        assert_eq!(pace.next(), Some(at(2000)));
        assert!(pace.is_due(at(2000), 0));
        assert_eq!(pace.next(), None, "until something happens");
        assert!(!pace.is_due(at(2100), 0));
        assert_eq!(pace.next(), Some(at(2250)));
        assert!(pace.is_due(at(2250), 0));
        assert!(pace.is_due(at(9000), 0));
        // Something is shown: two seconds without the line.
        assert!(!pace.is_due(at(9300), 7));
        assert_eq!(pace.next(), Some(at(11300)));
        assert!(!pace.is_due(at(11299), 7));
        assert!(pace.is_due(at(11300), 7));
        let looks = (0..2000u64).filter(|ms| pace.is_due(at(12000 + ms), 7)).count();
        assert_eq!(looks, 8);
    }
}

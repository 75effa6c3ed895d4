//! When the server is given up: pure.

use std::time::{Duration, Instant};

/// Silence after which it is killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two questions.
pub(super) const INTERVAL: Duration = Duration::from_millis(400);

#[derive(Debug)]
pub(super) struct Watch {
    heard: Instant,
    asked: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Ask,
    GiveUp,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Watch {
        Watch { heard: now, asked: now }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// To be called at each turn.
    pub(super) fn look(&mut self, now: Instant) -> Verdict {
        let since_asked = now.saturating_duration_since(self.asked);
        if since_asked < INTERVAL {
            return Verdict::Fine;
        }
        if since_asked > 2 * INTERVAL {
            // It was ourselves who did not run: the other side has not been asked.
            self.heard = now;
        }
        self.asked = now;
        if now.saturating_duration_since(self.heard) >= PATIENCE { Verdict::GiveUp } else { Verdict::Ask }
    }

    /// How long until the next look.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        (self.asked + INTERVAL).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_ended_and_our_own_sleep_is_not_held_against_it() {
        let begin = Instant::now();
        let mut watch = Watch::new(begin);
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(watch.look(at(100)), Verdict::Fine);
        for turn in 1..=4 {
            assert_eq!(watch.look(at(turn * 400)), Verdict::Ask);
        }
        watch.heard(at(1700));
        for turn in 5..=9 {
            assert_eq!(watch.look(at(turn * 400)), Verdict::Ask, "{turn}");
        }
        assert_eq!(watch.look(at(4000)), Verdict::GiveUp);
        // Stopped for an hour.
        assert_eq!(watch.look(at(3_600_000)), Verdict::Ask);
        assert_eq!(watch.look(at(3_600_400)), Verdict::Ask);
    }
}

//! How ranks are ended before their time (`--timeout`, `--halt`): asked, then killed, then left. Pure.
//!
//! ```text
//! begin: SIGTERM --1 s, or all have ended--> SIGKILL for the whole tree --1 s--> leave what does not end
//! ```

use std::time::{Duration, Instant};

/// How long programs may take to end when asked, and when killed.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be done to those that have not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Ask,
    /// Also what those that have ended have left behind.
    Kill,
    Leave,
}

#[derive(Clone, Copy, Debug)]
pub struct WindingDown {
    next: Step,
    at: Instant,
}

impl WindingDown {
    pub fn begin(now: Instant) -> WindingDown {
        WindingDown { next: Step::Ask, at: now }
    }

    /// What is due, if anything is; `running`: how many ranks have not ended.
    pub fn due(&mut self, now: Instant, running: usize) -> Option<Step> {
        if running == 0 && self.next != Step::Leave {
            *self = WindingDown { next: Step::Kill, at: now };
        }
        if now < self.at {
            return None;
        }
        let step = self.next;
        self.next = match step {
            Step::Ask => Step::Kill,
            Step::Kill | Step::Leave => Step::Leave,
        };
        self.at = now + PATIENCE;
        Some(step)
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        self.at
    }

    /// Nobody is to be killed any more.
    pub fn has_killed(&self) -> bool {
        self.next == Step::Leave
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_then_killed_then_left() {
        let start = Instant::now();
        let after = |ms: u64| start + Duration::from_millis(ms);
        let mut down = WindingDown::begin(start);
        for (ms, running, step) in [
            (0, 2, Some(Step::Ask)),
            (500, 2, None),
            (1000, 1, Some(Step::Kill)),
            (1500, 1, None),
            (2000, 1, Some(Step::Leave)),
        ] {
            assert_eq!(down.due(after(ms), running), step, "{ms}");
        }
    }

    #[test]
    fn when_all_have_ended_what_they_left_behind_is_killed_at_once() {
        let start = Instant::now();
        let after = |ms: u64| start + Duration::from_millis(ms);
        let mut down = WindingDown::begin(start);
        assert_eq!(down.due(after(0), 1), Some(Step::Ask));
        assert!(!down.has_killed());
        assert_eq!(down.due(after(100), 0), Some(Step::Kill));
        assert!(down.has_killed());
        assert_eq!(down.due(after(200), 0), None);
        assert_eq!(down.due(after(1100), 0), Some(Step::Leave));
        // Nobody ran when it began: a daemon holds output.
        assert_eq!(WindingDown::begin(start).due(after(0), 0), Some(Step::Kill));
    }
}

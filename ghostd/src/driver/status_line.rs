//! The line that `systemctl status ghostd` shows: how many nodes are up, how many ghosts there are.
//!
//! Told when it changes, but not more often than every [`PERIOD`]: a service manager tells others of each change.

use std::time::Duration;

use sd_notify::NotifyState;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct StatusLine {
    said: String,
    looked: Option<Duration>,
}

impl StatusLine {
    /// The line, if it is to be told now. To be asked again and again: a change is told with the next look. `figures`: nodes that are
    /// up, all nodes, ghosts.
    fn next(&mut self, now: Duration, figures: impl FnOnce() -> (usize, usize, usize)) -> Option<&str> {
        if self.looked.is_some_and(|looked| now.saturating_sub(looked) < PERIOD) {
            return None;
        }
        self.looked = Some(now);
        let text = text(figures());
        if text == self.said {
            return None;
        }
        self.said = text;
        Some(&self.said)
    }

    pub fn tell(&mut self, now: Duration, figures: impl FnOnce() -> (usize, usize, usize)) {
        if let Some(text) = self.next(now, figures)
            // A service manager that stands still is not waited for.
            && ghost_sys::notify::tell(&NotifyState::Status(text).to_string()).is_err()
        {
            self.said.clear();
        }
    }
}

fn text((up, all, ghosts): (usize, usize, usize)) -> String {
    let node = if all == 1 { "node" } else { "nodes" };
    let ghost = if ghosts == 1 { "ghost" } else { "ghosts" };
    format!("{up} of {all} {node} up, {ghosts} {ghost}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_well() {
        assert_eq!(text((4, 5, 12)), "4 of 5 nodes up, 12 ghosts");
        assert_eq!(text((0, 1, 1)), "0 of 1 node up, 1 ghost");
        assert_eq!(text((0, 0, 0)), "0 of 0 nodes up, 0 ghosts");
    }

    #[test]
    fn a_storm_of_changes_is_told_twice_a_second_and_the_last_one_is_told() {
        let mut line = StatusLine::default();
        // A change every millisecond for ten seconds.
        let told = (0..10_000).filter(|ms| line.next(Duration::from_millis(*ms), || (1, 1, *ms as usize)).is_some());
        assert_eq!(told.count(), 20);
        let after = Duration::from_secs(11);
        assert_eq!(line.next(after, || (1, 1, 7)), Some("1 of 1 node up, 7 ghosts"));
        assert_eq!(line.next(after * 2, || (1, 1, 7)), None, "nothing has changed");
    }
}

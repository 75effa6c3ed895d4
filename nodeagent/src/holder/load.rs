//! The node's load, as it goes to the master with the answer to a lease: only when it is another than what was said last, and looked
//! at only every few seconds, so that an answer costs next to nothing.

use std::time::Duration;

use ghost_proto::node::LeaseAck;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// A load average that differs by less (in hundredths, and in hundredths of what it was) is the same; so is memory in hundredths of all.
const LOAD: u32 = 5;
const LOAD_SHARE: u32 = 5;
const MEMORY_SHARE: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    /// 1-minute load average times 100.
    load: u32,
    /// In KiB.
    available: u64,
    total: u64,
}

/// What was said, and when it was looked last.
#[derive(Debug, Default)]
pub struct Load {
    said: Option<Figures>,
    looked: Option<Duration>,
}

impl Load {
    /// Somebody else is there who has heard nothing yet.
    pub fn begin_anew(&mut self) {
        *self = Load::default();
    }

    /// The answer to a lease, with figures if they are news.
    pub fn answer(&mut self, seq: u64, now: Duration) -> LeaseAck {
        let rests = self.looked.is_some_and(|looked| now.saturating_sub(looked) < PAUSE);
        let figures = if rests {
            None
        } else {
            self.looked = Some(now);
            look().filter(|figures| self.said.is_none_or(|said| figures.are_news(said)))
        };
        let Some(figures) = figures else { return LeaseAck { seq, ..LeaseAck::default() } };
        self.said = Some(figures);
        LeaseAck { seq, load_centi: figures.load, mem_available_kib: figures.available, mem_total_kib: figures.total }
    }
}

impl Figures {
    fn are_news(self, said: Figures) -> bool {
        let load = self.load.abs_diff(said.load);
        load > LOAD.max(said.load * LOAD_SHARE / 100)
            || self.total != said.total
            || self.available.abs_diff(said.available) * 100 > self.total * MEMORY_SHARE
    }
}

fn look() -> Option<Figures> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    understand(&load, &memory)
}

/// `None`: these are not the kernel's words.
fn understand(load: &str, memory: &str) -> Option<Figures> {
    let value = |name: &str| {
        memory.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    let load: f64 = load.split(' ').next()?.parse().ok()?;
    Some(Figures { load: (load * 100.0) as u32, available: value("MemAvailable:")?, total: value("MemTotal:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let memory = "MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:   6000000 kB\n";
        let figures = Figures { load: 150, available: 6_000_000, total: 8_000_000 };
        assert_eq!(understand("1.50 0.20 0.10 1/100 7\n", memory), Some(figures));
        assert_eq!(understand("", memory), None);
        assert_eq!(understand("1.50", "MemTotal: 1 kB"), None);
    }

    #[test]
    fn only_news_are_told() {
        let said = Figures { load: 100, available: 5_000, total: 10_000 };
        assert!(!said.are_news(said));
        assert!(!Figures { load: 105, available: 5_100, ..said }.are_news(said));
        assert!(Figures { load: 106, ..said }.are_news(said));
        assert!(Figures { load: 94, ..said }.are_news(said));
        assert!(Figures { available: 4_899, ..said }.are_news(said));
        let high = Figures { load: 4_000, ..said };
        assert!(!Figures { load: 4_200, ..said }.are_news(high));
    }

    #[test]
    fn an_answer_right_behind_another_has_no_figures_and_a_new_listener_gets_them() {
        let mut load = Load::default();
        let at = Duration::from_secs;
        assert!(load.answer(1, at(100)).mem_total_kib > 0);
        assert_eq!(load.answer(2, at(100)), LeaseAck { seq: 2, ..LeaseAck::default() });
        load.begin_anew();
        assert!(load.answer(3, at(101)).mem_total_kib > 0);
    }
}

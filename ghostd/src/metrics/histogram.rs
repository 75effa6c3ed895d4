//! How long things took: counted in fixed buckets, so that one more costs a look at a few numbers and no memory.

use std::time::Duration;

/// Upper bounds of the buckets but the last, which has none: from a tenth of a millisecond, below which nothing goes over a
/// network and back, to what a lease and its margin can be.
pub const BOUNDS: [Duration; 18] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Durations by size, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Not cumulative; the last: longer than all bounds.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    pub fn observe(&mut self, duration: Duration) {
        let bucket = BOUNDS.iter().position(|bound| duration <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// For each bound how many were not longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        BOUNDS.into_iter().zip(self.counts).scan(0, |so_far, (bound, count)| {
            *so_far += count;
            Some((bound, *so_far))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_its_bucket_and_in_all_larger_ones() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 3_000, 90_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let cumulative: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(cumulative[..6], [2, 3, 3, 3, 3, 4]);
        assert_eq!(cumulative.last(), Some(&4), "90 s is longer than all bounds");
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_micros(90_003_201));
        assert!(BOUNDS.is_sorted());
    }
}

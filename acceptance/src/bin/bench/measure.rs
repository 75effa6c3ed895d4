//! Medians, ratios and the table.

use std::fmt;
use std::time::Duration;

pub use acceptance::measure::median;

/// Runs two things in turn and gives both medians in seconds: what disturbs the machine disturbs both.
pub fn in_turn(
    rounds: usize,
    mut a: impl FnMut() -> anyhow::Result<Duration>,
    mut b: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<(f64, f64)> {
    let (mut times_a, mut times_b) = (Vec::new(), Vec::new());
    a()?;
    b()?;
    for _ in 0..rounds {
        times_a.push(a()?.as_secs_f64());
        times_b.push(b()?.as_secs_f64());
    }
    Ok((median(&mut times_a), median(&mut times_b)))
}

/// CLOCK_MONOTONIC in nanoseconds: the same clock in all members of a test cluster.
pub fn now_ns() -> i64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(|t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
        .unwrap_or_default()
}

/// Rows of what was measured.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// `bound` is what was promised, as text; `met` whether the ratio or figure keeps it.
    pub fn row(&mut self, what: &str, ours: String, other: String, ratio: String, promise: &str) {
        eprintln!("bench: {what}: {ours} | {other} | {ratio} | {promise}");
        self.rows.push([what.to_owned(), ours, other, ratio, promise.to_owned()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | ghostproc | compared with | ratio | promise |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for [what, ours, other, ratio, promise] in &self.rows {
            writeln!(f, "| {what} | {ours} | {other} | {ratio} | {promise} |")?;
        }
        Ok(())
    }
}

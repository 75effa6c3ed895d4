//! One line on a terminal that says how far it is.

use std::time::{Duration, Instant};

use crate::terminal_line;

/// Nothing is shown before, and anew after so long.
const FIRST: Duration = Duration::from_millis(500);
const EACH: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Progress {
    start: Instant,
    next: Instant,
    shown: bool,
    active: bool,
    name: String,
    size: u64,
    /// Of this file, and of all.
    position: u64,
    total: u64,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let now = Instant::now();
        Progress {
            start: now,
            next: now + FIRST,
            shown: false,
            active: !quiet && terminal_line::is_possible(),
            name: String::new(),
            size: 0,
            position: 0,
            total: 0,
        }
    }

    pub fn file(&mut self, name: &[u8], size: u64) {
        if self.active {
            self.name = super::shown(name);
        }
        (self.size, self.position) = (size, 0);
    }

    /// So many bytes more.
    pub fn bytes(&mut self, n: u64) {
        self.position += n;
        self.total += n;
        if self.active {
            let now = Instant::now();
            if now >= self.next {
                self.next = now + EACH;
                let line = line(&self.name, self.position, self.size, self.total, now - self.start);
                // In the background nobody is told.
                self.shown |= terminal_line::in_foreground() && terminal_line::draw(&line);
            }
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            terminal_line::draw("");
        }
    }
}

fn line(name: &str, position: u64, size: u64, total: u64, elapsed: Duration) -> String {
    let mut name: String = name.chars().take(30).collect();
    if name.is_empty() {
        name.push('.');
    }
    let percent = if size == 0 { 100 } else { (u128::from(position) * 100 / u128::from(size)).min(100) };
    let rate = total as f64 / elapsed.as_secs_f64().max(0.001);
    let left = size.saturating_sub(position) as f64 / rate.max(1.0);
    let left = if left < 360_000.0 { left as u64 } else { 360_000 };
    let bar: String = (0..20).map(|at| if at * 5 < percent { '#' } else { '.' }).collect();
    format!(
        "{name:30} {bar} {percent:3} % {:>9} {:>9}/s {}:{:02}",
        amount(total as f64),
        amount(rate),
        left / 60,
        left % 60
    )
}

fn amount(bytes: f64) -> String {
    let mut value = bytes / 1024.0;
    for unit in ["KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_in_80_columns_mostly_and_says_it_all() {
        let shown = line("data", 50 << 20, 100 << 20, 50 << 20, Duration::from_secs(2));
        assert_eq!(
            shown.trim(),
            "data                           ##########..........  50 %  50.0 MiB  25.0 MiB/s 0:02"
        );
        assert!(line("", 0, 0, 0, Duration::ZERO).contains("100 %"));
        assert_eq!(amount(5e12), "4.5 TiB");
    }
}

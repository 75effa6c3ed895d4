//! Waiting for a condition: polled, never for a fixed time, never without a limit.

use std::time::{Duration, Instant};

/// Time between two looks.
const STEP: Duration = Duration::from_millis(2);
/// Looks that are taken at least: a machine that stands still for a while is not what is waited for.
const LOOKS: u32 = 10;

/// Looks again and again until `look` gives a value; None after `within`, and after [`LOOKS`] looks.
pub fn poll_until<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut left = within;
    let mut last = Instant::now();
    loop {
        // The time is taken before the look: a look that began in time counts.
        let late = left.is_zero();
        if let Some(found) = look() {
            return Some(found);
        }
        if late {
            return None;
        }
        std::thread::sleep(STEP);
        let now = Instant::now();
        left = left.saturating_sub((now - last).min(within / LOOKS));
        last = now;
    }
}

/// As [`poll_until`], but not getting there fails the test with `what`.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, look: impl FnMut() -> Option<T>) -> T {
    match poll_until(within, look) {
        Some(found) => found,
        None => panic!("not within {} ms: {what}", within.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_ends_the_waiting() {
        assert_eq!(poll_until(Duration::from_millis(20), || None::<()>), None);
        let mut looks = 0;
        let third = poll_until(Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(third, Some(3));
    }

    #[test]
    fn a_machine_that_stands_still_does_not_use_up_the_time() {
        let mut looks = 0;
        let late = poll_until(Duration::from_millis(20), || {
            if looks == 0 {
                std::thread::sleep(Duration::from_millis(40));
            }
            looks += 1;
            (looks == 5).then_some(())
        });
        assert_eq!(late, Some(()));
    }
}

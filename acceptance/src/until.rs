//! Waiting for a condition: polled, never for a fixed time, never without a limit.

use std::time::{Duration, Instant};

/// Time between two looks.
const STEP: Duration = Duration::from_millis(2);

/// Looks again and again until `look` gives a value; None after `within`.
pub fn poll_until<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + within;
    loop {
        // The time is taken before the look: a look that began in time counts.
        let late = Instant::now() >= until;
        if let Some(found) = look() {
            return Some(found);
        }
        if late {
            return None;
        }
        std::thread::sleep(STEP);
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
}

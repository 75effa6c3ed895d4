//! A limit on how often one place of the program may write to the log, so that whoever can cause a line cannot fill a disk.
//!
//! Each place has [`BURST`] lines to spend and gets another one every [`PERIOD`]. What was left out is said when it may write
//! again. `debug` and `trace` are without a limit: who asks for them wants them all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines that a place may write at once. More than the nodes of most clusters, which may all come or go at the same time.
pub const BURST: u32 = 500;
/// After which time it may write another one: below 3 MB a day.
pub const PERIOD: Duration = Duration::from_secs(5);

/// What one place may write.
#[derive(Clone, Copy, Debug)]
struct Purse {
    lines: u32,
    /// Up to when lines have been added.
    counted: Instant,
    left_out: u64,
}

impl Purse {
    fn new(now: Instant) -> Purse {
        Purse { lines: BURST, counted: now, left_out: 0 }
    }

    /// Whether a line may be written now; with how many were left out before it.
    fn spend(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.counted).as_nanos() / PERIOD.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.lines = self.lines.saturating_add(earned).min(BURST);
        self.counted = if self.lines == BURST { now } else { self.counted + PERIOD * earned };
        if self.lines == 0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The limit as a layer: an event that is over it goes nowhere.
#[derive(Debug, Default)]
pub struct Limit {
    purses: Mutex<HashMap<Identifier, Purse>>,
}

impl Limit {
    fn spend(&self, place: Identifier, now: Instant) -> Option<u64> {
        let mut purses = self.purses.lock().unwrap_or_else(PoisonError::into_inner);
        purses.entry(place).or_insert_with(|| Purse::new(now)).spend(now)
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // What this layer says itself comes at most as often as what it speaks of.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        match self.spend(metadata.callsite(), Instant::now()) {
            None => false,
            Some(0) => true,
            Some(left_out) => {
                tracing::warn!(left_out, of = metadata.target(), "lines like the next were left out: too many");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted_and_what_is_rare_is_written() {
        let begin = Instant::now();
        let mut purse = Purse::new(begin);
        let mut written = (0..100_000).filter(|_| purse.spend(begin).is_some()).count();
        assert_eq!(written, BURST as usize);
        // A flood that goes on for a day, fifty lines a second.
        let day = 24 * 3600u32;
        for second in 1..=day {
            let now = begin + Duration::from_secs(second.into());
            written += (0..50).filter(|_| purse.spend(now).is_some()).count();
        }
        assert_eq!(written, (BURST + day / PERIOD.as_secs() as u32) as usize);
        assert_eq!(purse.left_out, 49, "counted since the last that was written");
        // When it is over there is as much to spend as in the beginning.
        let later = begin + Duration::from_secs(2 * u64::from(day));
        assert_eq!(purse.spend(later), Some(49));
        assert!((1..BURST).all(|_| purse.spend(later) == Some(0)));
        assert_eq!(purse.spend(later), None);
        let mut rare = Purse::new(begin);
        assert!((0..10_000).all(|at| rare.spend(begin + PERIOD * at) == Some(0)));
    }

    /// Counts what comes through.
    struct Counter(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Counter {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_place_has_its_own_and_debug_has_none() {
        let count = Arc::new(AtomicUsize::new(0));
        let subscriber = tracing_subscriber::registry().with(Counter(Arc::clone(&count))).with(Limit::default());
        let began = Instant::now();
        let counted = |work: &dyn Fn()| {
            let before = count.load(Ordering::Relaxed);
            work();
            count.load(Ordering::Relaxed) - before
        };
        tracing::subscriber::with_default(subscriber, || {
            let burst = BURST as usize;
            let flood = counted(&|| (0..10 * burst).for_each(|_| tracing::warn!("somebody was refused")));
            // On a slow machine some more have become due meanwhile, each with a line about those before it.
            let due = (began.elapsed().as_secs() / PERIOD.as_secs() + 1) as usize;
            assert!((burst..=burst + 2 * due).contains(&flood), "{flood} lines");
            assert_eq!(counted(&|| tracing::info!("something else")), 1);
            let all = counted(&|| (0..2 * burst).for_each(|_| tracing::debug!("as asked for")));
            assert_eq!(all, 2 * burst);
        });
    }
}

//! How much memory a process gives to rings, all of them together.
//!
//! Invariant: the shares that are out never exceed the budget; who gets none sends its bytes in the frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for rings, in bytes.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

/// A part of a [`Budget`]; goes back to it when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Budget {
        Budget { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// This many bytes of it, if they are left.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let take = |left: usize| left.checked_sub(bytes);
        self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Share { budget: self.clone(), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back() {
        let budget = Budget::new(10);
        let first = budget.take(7).expect("10 are left");
        assert!(budget.take(4).is_none());
        let second = budget.take(3).expect("3 are left");
        drop(first);
        assert!(budget.take(8).is_none());
        let third = budget.take(7);
        assert!(third.is_some() && budget.take(1).is_none());
        drop(second);
        assert!(budget.take(3).is_some());
    }
}

//! Stops and continuations.

use ghost_host::programs::tree::Change::{self, Continued, Stopped, Stopping};

use super::space::{Life, Space};

const CONT: u32 = 18;
const STOPS: [u32; 4] = [19, 20, 21, 22];

fn changes(life: &Life) -> Vec<(Change, u32)> {
    life.changes.iter().map(|changed| (changed.change(), changed.sig)).collect()
}

pub fn stop_and_continue() {
    let lives = Space::new("stops").run();
    assert_eq!(lives.len(), 1);
    let expected: Vec<_> =
        STOPS.into_iter().flat_map(|sig| [(Stopping, sig), (Stopped, sig), (Continued, CONT)]).collect();
    assert_eq!(changes(&lives[0]), expected);
}

/// A parent that does not want to be told of stops is not; who follows the tree still knows that there may be one.
pub fn stop_that_the_parent_does_not_see() {
    let lives = Space::new("stops_unseen").run();
    let expected: Vec<_> = STOPS.into_iter().flat_map(|sig| [(Stopping, sig), (Continued, CONT)]).collect();
    assert_eq!(changes(&lives[0]), expected);
}

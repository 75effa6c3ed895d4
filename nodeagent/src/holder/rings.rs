//! The rings of the processes' outputs: memory that the holder shares with the agent, into which a long stream's pipe is read.
//!
//! Invariant: what is unacknowledged of a stream lies in its ring until it is acknowledged, so that the ring is at the same time
//! what a new connection is served from.

use std::os::fd::OwnedFd;

use ghost_sys::ring::{Budget, RingWriter, Share, WORTH_A_RING};

use super::output::Output;

/// Memory for the rings of all processes, in bytes. A stream without a ring keeps as much on the heap, so that this bounds nothing
/// but shared memory; it is to be more than what streams hold whose reader has stopped.
pub const ALL_RINGS: usize = 64 * 1024 * 1024;

/// The ring of one stream.
#[derive(Debug)]
pub struct Ring {
    pub memory: RingWriter,
    /// For each agent that comes.
    pub descriptor: OwnedFd,
    /// Number of the connection whose agent has it; 0: none.
    pub known_on: u64,
    _share: Share,
}

impl Ring {
    /// A ring for an output that is worth one. `None` as well if there is no memory or descriptor for it: the stream goes the
    /// other way.
    pub fn for_output(output: &Output, budget: &Budget) -> Option<Ring> {
        if output.offset() < WORTH_A_RING {
            return None;
        }
        let share = budget.take(output.window())?;
        let (memory, descriptor) = RingWriter::new(output.window()).ok()?;
        Some(Ring { memory, descriptor, known_on: 0, _share: share })
    }
}

//! The rings of the processes' streams, memory that the holder shares with the agent: a long output's pipe is read into one, and of a
//! long input the agent puts into one what the master sends.
//!
//! Invariants: what is unacknowledged of a stream lies in its ring until it is acknowledged, so that the ring is at the same time
//! what a new connection is served from. What lies in an input's ring is within its window, and nothing there is more than a stream's
//! bytes: who writes it wrongly has spoilt that stream.

use std::os::fd::OwnedFd;

use ghost_sys::ring::{Budget, RingReader, RingWriter, Share, WORTH_A_RING};

use super::input::Input;
use super::output::Output;

/// Memory for the rings of all processes, in bytes. A stream without a ring keeps as much on the heap, so that this bounds nothing
/// but shared memory; it is to be more than what streams hold whose reader has stopped.
pub const ALL_RINGS: usize = 64 * 1024 * 1024;

/// The ring of one stream.
#[derive(Debug)]
pub struct Ring<Memory = RingWriter> {
    pub memory: Memory,
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

impl Ring<RingReader> {
    /// The same for an input that is worth one.
    pub fn for_input(input: &Input, budget: &Budget) -> Option<Ring<RingReader>> {
        if input.consumed() < WORTH_A_RING {
            return None;
        }
        let share = budget.take(input.window())?;
        let (_, descriptor) = RingWriter::new(input.window()).ok()?;
        let memory = RingReader::open(&descriptor).ok()?;
        Some(Ring { memory, descriptor, known_on: 0, _share: share })
    }
}

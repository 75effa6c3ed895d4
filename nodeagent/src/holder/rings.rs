//! The rings of the processes' streams, memory that the holder shares with the agent: a long output's pipe is read into one, and of a
//! long input the agent puts into one what the master sends.
//!
//! Invariants: what is unacknowledged of an output lies in its ring until it is acknowledged, so that the ring is at the same time
//! what a new connection is served from. The ring of an input is one agent's and ends with its connection, whatever that agent does
//! later: what waited in it is taken out.

use std::os::fd::OwnedFd;

use ghost_sys::ring::{Budget, RingReader, RingWriter, Share, WORTH_A_RING};

use super::input::Input;
use super::output::Output;

/// Memory for the rings of all processes, in bytes. A stream without a ring keeps as much on the heap, so that this bounds nothing
/// but shared memory; it is to be more than what streams hold whose reader has stopped.
pub const ALL_RINGS: usize = 64 * 1024 * 1024;

/// The ring of one output.
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

/// The ring of one input.
#[derive(Debug)]
pub struct InputRing {
    pub memory: RingReader,
    _share: Share,
}

impl InputRing {
    /// A ring for an input that is worth one, and the descriptor for its agent; `None` as with [`Ring::for_output`].
    pub fn new(input: &Input, budget: &Budget) -> Option<(InputRing, OwnedFd)> {
        if input.consumed() < WORTH_A_RING {
            return None;
        }
        let share = budget.take(input.window())?;
        let (_, descriptor) = RingWriter::new(input.window()).ok()?;
        let memory = RingReader::open(&descriptor).ok()?;
        Some((InputRing { memory, _share: share }, descriptor))
    }
}

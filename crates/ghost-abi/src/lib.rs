//! What the kernel programs and user space say to each other: the value kept with each ghost's task, the records of the
//! ring buffers, and the configuration that is written into an object before it is loaded. There are two objects: one
//! watches ghosts, the other ([`tree`]) follows the processes of a PID namespace.
//!
//! Invariant: both sides compile these very definitions; there is no second copy. All of it is plain data in native byte
//! order, `#[repr(C)]`, without padding that could carry kernel memory out. User space takes them apart with the
//! `from_bytes` functions, which check the length and need no `unsafe`.
#![no_std]

mod config;
mod record;
mod state;
pub mod tree;

pub use config::{Config, TreeConfig};
pub use record::{
    EXIT_RECORD_SIZE, ExitRecord, Kind, Malformed, Record, SIGNAL_RECORD_SIZE, Scope, SignalFlags, SignalRecord,
};
pub use state::{EXPECTING_SIZE, Expecting, GHOST_STATE_SIZE, GhostFlags, GhostState, SIGNALS, is_realtime};

/// Names of maps and globals in the objects, as the loader looks them up.
pub mod names {
    /// Task storage: [`crate::GhostState`] of each ghost.
    pub const GHOSTS: &str = "GHOSTS";
    /// Task storage: [`crate::Expecting`] of ghosts that make others.
    pub const EXPECTING: &str = "EXPECTING";
    /// Ring buffer of records.
    pub const EVENTS: &str = "EVENTS";
    /// `Array<u64>` of one word, written by user space: how often it has drained the ring ([`crate::GHOST_QUOTA`]).
    pub const DRAINED: &str = "DRAINED";
    /// `Array<u64>` of [`crate::COUNTERS`] words, written by the kernel programs.
    pub const COUNTERS: &str = "COUNTERS";
    /// `Array<[u64; 3]>` of one element, in the object of the tree: [`crate::tree::Namespace`].
    pub const NAMESPACE: &str = "NAMESPACE";
    /// `HashMap<u64, u64>` in the object of the tree: the processes whose end is awaited, by key.
    pub const MEMBERS: &str = "MEMBERS";
    /// Read-only global: [`crate::Config`] or [`crate::TreeConfig`] as words.
    pub const CONFIG: &str = "CONFIG";
}

/// Bytes of the ring buffer; a power of two and a multiple of the page size. Holds over 100,000 records.
pub const RING_BYTES: u32 = 8 << 20;
/// Bytes of the ring that only records of KILL, STOP and of exits may use, so that a flood of others cannot hide them.
pub const RING_RESERVE: u32 = 1 << 20;
/// Records that one ghost may put into the ring between two times that user space has drained it; further ones are
/// counted in [`GhostState::dropped`], so that one flooded ghost cannot crowd out the others.
pub const GHOST_QUOTA: u32 = 16 * 1024;

/// Number of words in the map `COUNTERS`.
pub const COUNTERS: u32 = 2;
/// Word of `COUNTERS`: the sequence number given last.
pub const COUNTER_SEQUENCE: u32 = 0;
/// Word of `COUNTERS`: records that did not go into the ring.
pub const COUNTER_DROPPED: u32 = 1;

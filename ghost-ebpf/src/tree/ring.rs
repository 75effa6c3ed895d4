//! The ring buffer and its counters.

use aya_ebpf::{
    macros::map,
    maps::{Array, RingBuf},
};
use ghost_abi::{COUNTER_DROPPED, COUNTER_SEQUENCE, COUNTERS as COUNTER_WORDS, tree::RING_BYTES};
use ghost_ebpf::atomic;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
static COUNTERS: Array<u64> = Array::with_max_entries(COUNTER_WORDS, 0);

/// Adds one to a counter and returns the new value.
#[inline(always)]
fn count(counter: u32) -> u64 {
    match COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the pointer is to a live, aligned map value, which the programs access atomically only.
        Some(word) => unsafe { atomic::add(word, 1) + 1 },
        None => 0,
    }
}

/// The next sequence number.
#[inline(always)]
pub fn sequence() -> u64 {
    count(COUNTER_SEQUENCE)
}

/// Puts a record into the ring, or counts it as dropped if that is full.
#[inline(always)]
pub fn put<T: 'static>(record: T) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            entry.write(record);
            entry.submit(0);
        }
        None => count_dropped(),
    }
}

/// Counts something that user space will not be told.
#[inline(always)]
pub fn count_dropped() {
    count(COUNTER_DROPPED);
}

//! The ring buffer, its limits, and what is counted when they are reached.

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    macros::map,
    maps::{Array, RingBuf},
};
use ghost_abi::{
    COUNTER_DROPPED, COUNTER_SEQUENCE, COUNTERS as COUNTER_WORDS, GHOST_QUOTA, GhostState, RING_BYTES, RING_RESERVE,
    SIGNALS, SignalRecord,
};
use ghost_ebpf::atomic;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
static DRAINED: Array<u64> = Array::with_max_entries(1, 0);
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

/// Puts a record into the ring; false if it is full.
#[inline(always)]
pub fn put<T: 'static>(record: T) -> bool {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else { return false };
    entry.write(record);
    entry.submit(0);
    true
}

/// Puts a signal of the ghost with `state` into the ring within its quota, or counts it as dropped. An `urgent` one has no
/// quota and may use the reserved part of the ring.
///
/// # Safety
/// `state` is the value of the task whose `siglock` is held.
#[inline(always)]
pub unsafe fn put_signal(state: *mut GhostState, record: SignalRecord, urgent: bool) {
    // SAFETY: as this function's; no reference to the value outlives a statement.
    unsafe {
        let index = (record.sig as usize).wrapping_sub(1) & (SIGNALS - 1);
        if (urgent || within_limits(state)) && put(record) {
            return;
        }
        // The ghost's own counter first: user space reads it after it has seen the common one move.
        (*state).dropped[index] = (*state).dropped[index].wrapping_add(1);
        count(COUNTER_DROPPED);
    }
}

/// # Safety
/// As [`put_signal`].
#[inline(always)]
unsafe fn within_limits(state: *mut GhostState) -> bool {
    // SAFETY: the map has one element, written by user space with one aligned store of 64 bits.
    let window = match DRAINED.get_ptr(0) {
        Some(word) => (unsafe { word.read_volatile() }) as u32,
        None => 0,
    };
    // SAFETY: as this function's.
    unsafe {
        if (*state).window != window {
            (*state).window = window;
            (*state).used = 0;
        }
        if (*state).used >= GHOST_QUOTA || EVENTS.query(BPF_RB_AVAIL_DATA as u64) > (RING_BYTES - RING_RESERVE) as u64 {
            return false;
        }
        (*state).used += 1;
    }
    true
}

/// Counts a record that could not be put and belongs to no signal.
#[inline(always)]
pub fn count_dropped() {
    count(COUNTER_DROPPED);
}

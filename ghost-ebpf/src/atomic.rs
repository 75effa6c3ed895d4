//! Atomic changes of words in map values.
//!
//! By the compiler's intrinsics, since the methods of `AtomicU64` do not exist on a target without compare-and-swap; BPF has
//! these instructions. Not relaxed: LLVM makes of that an instruction that returns nothing, even where the result is used.

use core::intrinsics::{AtomicOrdering, atomic_or, atomic_xadd};

/// Adds to a word and returns what it was.
///
/// # Safety
/// `word` is in a live map value, aligned, and nobody changes it in another way meanwhile.
#[inline(always)]
pub unsafe fn add(word: *mut u64, amount: u64) -> u64 {
    // SAFETY: as this function's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) }
}

/// Sets bits of a word and returns what it was.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn or(word: *mut u64, bits: u64) -> u64 {
    // SAFETY: as this function's.
    unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(word, bits) }
}

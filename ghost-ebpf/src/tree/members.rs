//! The processes whose end is awaited.
//!
//! When a task is freed it has no number in any namespace any more (kernel/exit.c, `__unhash_process()`), so who belonged to
//! the namespace is kept here, by key. And several threads that end at one time may each find that none lives any more:
//! a bit here decides which one tells.

use aya_ebpf::{macros::map, maps::HashMap};
use ghost_abi::tree::MEMBERS as MAXIMUM;
use ghost_ebpf::atomic;

use crate::ring;

/// By key; process id in the low half of the value, a bit in the high one. Room for all is made when the map is.
#[map]
static MEMBERS: HashMap<u64, u64> = HashMap::with_max_entries(MAXIMUM, 0);

/// The end has been told.
const TOLD: u64 = 1 << 32;

/// A process that is in the map. It stays there at least until a grace period after it was reaped, and the programs that
/// find it run in read-side sections: no element is reused under them.
pub struct Member(*mut u64);

impl Member {
    #[inline(always)]
    pub fn find(key: u64) -> Option<Self> {
        MEMBERS.get_ptr_mut(key).map(Self)
    }

    #[inline(always)]
    pub fn pid(&self) -> i32 {
        // SAFETY: a live map value.
        (unsafe { self.0.read_volatile() }) as i32
    }

    /// True for the first who asks.
    #[inline(always)]
    pub fn may_tell(&self) -> bool {
        // SAFETY: a live map value, which after insertion is changed here only.
        unsafe { atomic::or(self.0, TOLD) & TOLD == 0 }
    }
}

/// Awaits the end of a process, which is not reaped before this call returns. Counts it as dropped if there is no room.
#[inline(always)]
pub fn insert(key: u64, pid: i32) {
    if MEMBERS.insert(key, u64::from(pid as u32), 0).is_err() {
        ring::count_dropped();
    }
}

/// True if it was there.
#[inline(always)]
pub fn remove(key: u64) -> bool {
    MEMBERS.remove(key).is_ok()
}

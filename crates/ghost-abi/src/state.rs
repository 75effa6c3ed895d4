//! The value of the task-storage map: what the kernel programs know of one ghost.

use crate::record::{Malformed, u32_at, u64_at};

/// Number of signals of Linux on the supported architectures (`_NSIG`); signal `n` has index `n - 1`.
pub const SIGNALS: usize = 64;

/// Size of [`GhostState`] in bytes.
pub const GHOST_STATE_SIZE: usize = size_of::<GhostState>();

/// True for signals that queue and count (`SIGRTMIN` of the kernel, 32, and above).
pub const fn is_realtime(signal: usize) -> bool {
    signal >= 32 && signal <= SIGNALS
}

/// Bits of [`GhostState::flags`].
pub struct GhostFlags;

impl GhostFlags {
    /// The task is not a ghost but the launcher of ghosts: its own job-control and termination signals are reported.
    pub const LAUNCHER: u32 = 1;
    /// SIGKILL was sent to the task. Set by the kernel program, never cleared.
    pub const KILLED: u32 = 2;
    /// The task has passed `do_exit`. Set by the kernel program, never cleared; visible until the task is reaped.
    pub const EXITED: u32 = 4;
}

/// State of one ghost. User space writes it once, at attachment; from then on only the kernel programs write, one at a
/// time, since all of them run under the target's `sighand->siglock` or in the exiting task itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GhostState {
    /// Identity, chosen by user space.
    pub ghost: u64,
    /// Id of the last group call ([`crate::SignalRecord::call`]) that had this task among its targets.
    pub last_call: u64,
    /// [`GhostFlags`].
    pub flags: u32,
    /// The value of `DRAINED` to which `used` belongs.
    pub window: u32,
    /// Records put into the ring in this window.
    pub used: u32,
    /// User space's own, kept with the ghost: the programs never look at it.
    pub tag: u32,
    /// For each signal, how many of its records did not go into the ring. They only grow (modulo 2^32), so that user
    /// space never has to reset what a program may be writing: it compares with what it saw before.
    pub dropped: [u32; SIGNALS],
}

impl GhostState {
    /// State at attachment.
    pub const fn new(ghost: u64, launcher: bool) -> Self {
        Self::tagged(ghost, launcher, 0)
    }

    /// State at attachment, with a tag.
    pub const fn tagged(ghost: u64, launcher: bool, tag: u32) -> Self {
        Self {
            ghost,
            last_call: 0,
            flags: if launcher { GhostFlags::LAUNCHER } else { 0 },
            window: 0,
            used: 0,
            tag,
            dropped: [0; SIGNALS],
        }
    }

    /// The task is not a ghost but the launcher of ghosts.
    pub const fn launcher(&self) -> bool {
        self.flags & GhostFlags::LAUNCHER != 0
    }

    /// SIGKILL has been sent to the task.
    pub const fn killed(&self) -> bool {
        self.flags & GhostFlags::KILLED != 0
    }

    /// The task has exited.
    pub const fn exited(&self) -> bool {
        self.flags & GhostFlags::EXITED != 0
    }

    /// Signals (bit `n - 1` for signal `n`) of which records were dropped since `earlier`. Standard signals among them
    /// coalesce as in Linux: one is to be sent. Of real-time ones [`Self::dropped_realtime_since`] says how many are lost.
    pub fn dropped_since(&self, earlier: &Self) -> u64 {
        let mut mask = 0;
        for (index, (now, then)) in self.dropped.iter().zip(&earlier.dropped).enumerate() {
            if now != then {
                mask |= 1 << index;
            }
        }
        mask
    }

    /// Number of real-time signals dropped since `earlier`.
    pub fn dropped_realtime_since(&self, earlier: &Self) -> u64 {
        let counts = self.dropped.iter().zip(&earlier.dropped).enumerate();
        counts
            .filter(|(index, _)| is_realtime(index + 1))
            .map(|(_, (now, then))| u64::from(now.wrapping_sub(*then)))
            .sum()
    }

    /// Takes the value apart as the kernel returns it.
    ///
    /// # Errors
    /// [`Malformed`] if the length is not [`GHOST_STATE_SIZE`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != GHOST_STATE_SIZE {
            return Err(Malformed);
        }
        let mut dropped = [0; SIGNALS];
        for (index, count) in dropped.iter_mut().enumerate() {
            *count = u32_at(bytes, 32 + 4 * index)?;
        }
        Ok(Self {
            ghost: u64_at(bytes, 0)?,
            last_call: u64_at(bytes, 8)?,
            flags: u32_at(bytes, 16)?,
            window: u32_at(bytes, 20)?,
            used: u32_at(bytes, 24)?,
            tag: u32_at(bytes, 28)?,
            dropped,
        })
    }

    /// The value as the kernel takes it.
    pub fn to_bytes(&self) -> [u8; GHOST_STATE_SIZE] {
        let mut bytes = [0; GHOST_STATE_SIZE];
        bytes[0..8].copy_from_slice(&self.ghost.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.last_call.to_ne_bytes());
        for (index, word) in [self.flags, self.window, self.used, self.tag].iter().chain(&self.dropped).enumerate() {
            bytes[16 + 4 * index..20 + 4 * index].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// What a ghost that is told to make another one bears meanwhile: whose ghost its next child is. The kernel program gives
/// the child its [`GhostState`] at the fork, so that nothing that is sent to it gets lost, not even the first SIGKILL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expecting {
    /// Identity of the ghost to come; 0: none.
    pub ghost: u64,
    /// 1: the next child is the ghost; more: a descendant of so many generations is, each the only child of the one before.
    pub generations: u32,
    /// [`GhostState::tag`] of the ghost to come.
    pub tag: u32,
}

/// Size of [`Expecting`] in bytes.
pub const EXPECTING_SIZE: usize = size_of::<Expecting>();

impl Expecting {
    /// The value as the kernel takes it.
    pub fn to_bytes(&self) -> [u8; EXPECTING_SIZE] {
        let mut bytes = [0; EXPECTING_SIZE];
        bytes[..8].copy_from_slice(&self.ghost.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.generations.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.tag.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_struct() {
        let mut state = GhostState::new(0x0102_0304_0506_0708, true);
        state.last_call = 77;
        state.window = 3;
        state.used = 4;
        state.dropped[63] = 9;
        state.dropped[0] = 1;
        let bytes = state.to_bytes();
        assert_eq!(GhostState::from_bytes(&bytes), Ok(state));
        assert_eq!(bytes[core::mem::offset_of!(GhostState, used)..][..4], 4u32.to_ne_bytes());
        assert_eq!(bytes[core::mem::offset_of!(GhostState, dropped) + 4 * 63..][..4], 9u32.to_ne_bytes());
        assert_eq!(GhostState::from_bytes(&bytes[1..]), Err(Malformed));
    }

    #[test]
    fn dropped_is_a_difference() {
        let before = GhostState::new(1, false);
        let mut after = before;
        after.dropped[14] = 1;
        after.dropped[40] = 5;
        assert_eq!(after.dropped_since(&before), 1 << 14 | 1 << 40);
        assert_eq!(after.dropped_realtime_since(&before), 5);
        assert_eq!(after.dropped_since(&after), 0);
    }

    #[test]
    fn counters_may_wrap() {
        let mut before = GhostState::new(1, false);
        before.dropped[63] = u32::MAX;
        let mut after = before;
        after.dropped[63] = 1;
        assert_eq!(after.dropped_realtime_since(&before), 2);
    }
}

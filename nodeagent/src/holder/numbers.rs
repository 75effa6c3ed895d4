//! Which numbers the processes get that are forked here: a slice of the upper PID range for each node, so that the ghosts on
//! the master can have the same ones. Pure but for [`set_cursor`].
//!
//! ```text
//! 1 ... 300 ......... 1,048,576 |  node 0  |  node 1  | ...  |  node 63 | 4,194,304
//!       ghosts of launches       49,152 each
//! ```
//! The kernel gives numbers in ascending order from the last one on (kernel/pid.c, `alloc_pid`, idr_alloc_cyclic); near the
//! end of the slice the cursor is set back to its beginning. Numbers in use are passed over by the kernel. Nodes beyond the
//! 64th share slices: a number that is taken on the master costs equality, nothing else.

use std::io;

use ghost_proto::ids::NodeNumber;

const FIRST: u32 = 1 << 20;
const SLICE: u32 = 49_152;
const SLICES: u32 = 64;
/// How many numbers before its end a slice begins anew: far more than are given before the holder looks again.
const MARGIN: u32 = 8_192;

/// The slice of a node, and where in it the kernel is.
#[derive(Debug)]
pub struct Numbers {
    first: u32,
    /// The cursor was set back, and nothing from the slice's lower half has been seen since.
    turning: bool,
}

impl Numbers {
    /// `None`: this kernel gives no numbers that are high enough (`kernel.pid_max`).
    pub fn of(node: NodeNumber, pid_max: u32) -> Option<Numbers> {
        let first = FIRST + node.0.unsigned_abs() % SLICES * SLICE;
        (first + SLICE <= pid_max).then_some(Numbers { first, turning: false })
    }

    /// The cursor to begin with: the number before the first.
    pub const fn begin(&self) -> u32 {
        self.first - 1
    }

    /// A process was forked under this number. Gives the cursor that is to be set, if it is.
    pub fn seen(&mut self, pid: u32) -> Option<u32> {
        let place = pid.checked_sub(self.first).filter(|place| *place < SLICE);
        match place {
            Some(place) if place < SLICE / 2 => {
                self.turning = false;
                None
            }
            Some(place) if place < SLICE - MARGIN => None,
            _ if self.turning => None,
            _ => {
                self.turning = true;
                Some(self.begin())
            }
        }
    }
}

/// Sets the number after which the kernel looks for the next one, in the caller's PID namespace.
///
/// # Errors
/// EPERM; ENOENT: a kernel without CONFIG_CHECKPOINT_RESTORE.
pub fn set_cursor(pid: u32) -> io::Result<()> {
    std::fs::write("/proc/sys/kernel/ns_last_pid", pid.to_string())
}

/// The largest number that the kernel gives, plus one.
pub fn pid_max() -> u32 {
    std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slices_do_not_overlap_and_end_below_the_kernels_largest() {
        for node in 0..64 {
            let one = Numbers::of(NodeNumber(node), 4_194_304).expect("a slice");
            assert_eq!(one.first, FIRST + node.unsigned_abs() * SLICE);
        }
        const { assert!(FIRST + SLICES * SLICE <= 4_194_304) };
        assert!(Numbers::of(NodeNumber(0), 32_768).is_none());
        assert_eq!(Numbers::of(NodeNumber(64), 4_194_304).map(|n| n.first), Some(FIRST));
    }

    proptest! {
        /// A kernel that gives 1 to 5,000 numbers between two looks never leaves the slice.
        #[test]
        fn numbers_stay_in_the_slice(node in 0i32..64, steps in prop::collection::vec(1u32..5000, 1..200)) {
            let mut numbers = Numbers::of(NodeNumber(node), 4_194_304).unwrap();
            let mut cursor = numbers.begin();
            for step in steps {
                let given: Vec<u32> = (1..=step).map(|n| cursor + n).collect();
                cursor += step;
                for pid in given {
                    prop_assert!((numbers.first..numbers.first + SLICE).contains(&pid));
                    if let Some(new) = numbers.seen(pid) {
                        cursor = new;
                    }
                }
            }
        }

        #[test]
        fn what_wanders_off_is_brought_back_once(pid in 1u32..4_194_304) {
            let mut numbers = Numbers::of(NodeNumber(5), 4_194_304).unwrap();
            let first = numbers.seen(pid);
            prop_assert!(first.is_none() || first == Some(numbers.begin()) && numbers.seen(pid).is_none());
            prop_assert!(first.is_some() || (numbers.first..numbers.first + SLICE).contains(&pid));
        }
    }
}

//! Chance that can be repeated, and the contents of streams.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;

/// splitmix64: every seed gives a good sequence.
pub struct Random {
    state: u64,
    /// Nothing takes long.
    pub quick: bool,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed, quick: false }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn micros(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most) + 1)
    }

    /// Usually short, sometimes as long as a busy machine takes.
    pub fn delay(&mut self) -> Duration {
        match self.below(20) {
            _ if self.quick => self.micros(300),
            0 => self.micros(100_000),
            1..=4 => self.micros(5_000),
            _ => self.micros(300),
        }
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const PERIOD: u64 = 65_521;
const LONGEST: usize = 128 * 1024;

/// `len` bytes (at most 128 KiB) of the stream with this name, from `offset` on. Nothing is copied.
pub fn content(stream: u64, offset: u64, len: usize) -> Bytes {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut random = Random::new(1);
        let period: Vec<u8> = (0..PERIOD).map(|_| random.next() as u8).collect();
        period.iter().copied().cycle().take(PERIOD as usize + LONGEST).collect()
    });
    let start = (stream.wrapping_mul(7_919).wrapping_add(offset) % PERIOD) as usize;
    Bytes::from_static(&table[start..start + len])
}

/// The name of a process's stream for [`content`]; a launch's input has process 0.
pub fn stream_name(proc_or_launch: u64, fd: u8) -> u64 {
    proc_or_launch * 4 + u64::from(fd)
}

//! Numbers that look random and come again with the same seed: a failure can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names the seed to use instead of a new one.
pub const VARIABLE: &str = "GHOSTPROC_SEED";

/// Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `limit` - 1; `limit` must not be 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// One of these; there must be one.
    pub const fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// The seed of this run, printed: the one that the environment names, else a new one.
pub fn seed() -> u64 {
    let named = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    let seed = named.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Random::new(now.as_nanos() as u64).next()
    });
    println!("seed {seed} (to repeat: {VARIABLE}={seed})");
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_another_seed_something_else() {
        let all = |seed| Random::new(seed).bytes(1000);
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let mut mixed: Vec<u32> = (0..100).collect();
        Random::new(3).shuffle(&mut mixed);
        assert_ne!(mixed, (0..100).collect::<Vec<_>>());
        mixed.sort_unstable();
        assert_eq!(mixed, (0..100).collect::<Vec<_>>());
    }
}

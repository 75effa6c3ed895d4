//! Bulk data whose every word tells its place: what is lost, doubled, moved or changed is found, and where.

use std::fmt;
use std::io::{self, Read, Write};

/// The 8 bytes at word `index` (splitmix64 of Steele, Lea, Flood: a bijection of the index, so no two words of a stream
/// are equal).
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fill(seed: u64, position: u64, buffer: &mut [u8]) {
    let lead = (position % 8) as usize;
    let mut index = position / 8;
    let mut filled = 0;
    if lead != 0 {
        let bytes = word(seed, index).to_le_bytes();
        filled = (8 - lead).min(buffer.len());
        buffer[..filled].copy_from_slice(&bytes[lead..lead + filled]);
        index += 1;
    }
    for chunk in buffer[filled..].chunks_mut(8) {
        let bytes = word(seed, index).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
        index += 1;
    }
}

/// Gives `length` bytes of the stream of `seed`.
#[derive(Debug, Clone)]
pub struct Source {
    seed: u64,
    position: u64,
    length: u64,
}

impl Source {
    pub fn new(seed: u64, length: u64) -> Self {
        Self { seed, position: 0, length }
    }

    /// All of it: for small ones.
    pub fn all(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        fill(seed, 0, &mut bytes);
        bytes
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.length - self.position).unwrap_or(usize::MAX));
        fill(self.seed, self.position, &mut buffer[..most]);
        self.position += most as u64;
        Ok(most)
    }
}

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// The first byte that is not the one that belongs here.
    Changed {
        at: u64,
    },
    /// As above, and from there on stands what belongs at another place: so much is missing (or doubled, if `from` < `at`).
    Moved {
        at: u64,
        from: u64,
    },
    TooShort {
        at: u64,
        wanted: u64,
    },
    TooLong {
        wanted: u64,
    },
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { at } => write!(f, "byte {at} was changed"),
            Self::Moved { at, from } if from > at => write!(f, "at {at}, {} bytes are missing", from - at),
            Self::Moved { at, from } => write!(f, "at {at}, {} bytes come again", at - from),
            Self::TooShort { at, wanted } => write!(f, "ended at {at} instead of {wanted}"),
            Self::TooLong { wanted } => write!(f, "goes on after {wanted} bytes"),
        }
    }
}

/// Takes a stream and compares it with the one of `seed`. Only the first harm counts.
#[derive(Debug)]
pub struct Check {
    seed: u64,
    position: u64,
    wanted: u64,
    harm: Option<Harm>,
    expected: Vec<u8>,
}

impl Check {
    pub fn new(seed: u64, length: u64) -> Self {
        Self { seed, position: 0, wanted: length, harm: None, expected: Vec::new() }
    }

    /// How much has come.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// To be called at the end of the stream.
    pub fn finish(self) -> Result<(), Harm> {
        match self.harm {
            Some(harm) => Err(harm),
            None if self.position < self.wanted => Err(Harm::TooShort { at: self.position, wanted: self.wanted }),
            None => Ok(()),
        }
    }

    fn examine(&self, bytes: &[u8], first: usize) -> Harm {
        let at = self.position + first as u64;
        if at >= self.wanted {
            return Harm::TooLong { wanted: self.wanted };
        }
        // Where in the stream would the next bytes be right? Looked for within 2 MiB on both sides.
        let sample = &bytes[first..(first + 16).min(bytes.len())];
        if sample.len() == 16 {
            const FAR: u64 = 2 << 20;
            let from = at.saturating_sub(FAR);
            let mut around = vec![0; (2 * FAR) as usize];
            fill(self.seed, from, &mut around);
            if let Some(place) = around.windows(16).position(|window| window == sample) {
                return Harm::Moved { at, from: from + place as u64 };
            }
        }
        Harm::Changed { at }
    }
}

impl Write for Check {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.harm.is_none() {
            self.expected.resize(bytes.len(), 0);
            fill(self.seed, self.position, &mut self.expected);
            let room = usize::try_from(self.wanted.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let differs = if self.expected == bytes {
                None
            } else {
                bytes.iter().zip(&self.expected).position(|(have, wanted)| have != wanted)
            };
            let first = differs.or((bytes.len() > room).then_some(room));
            if let Some(first) = first {
                self.harm = Some(self.examine(bytes, first.min(room)));
            }
        }
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 300_001;

    fn check(pieces: &[&[u8]]) -> Result<(), Harm> {
        let mut check = Check::new(7, LENGTH as u64);
        for piece in pieces {
            for part in piece.chunks(4093) {
                check.write_all(part).expect("never fails");
            }
        }
        check.finish()
    }

    #[test]
    fn a_stream_in_any_pieces_is_whole() {
        let all = Source::all(7, LENGTH);
        assert_eq!(check(&[&all]), Ok(()));
        let mut source = Source::new(7, LENGTH as u64);
        let mut read = Vec::new();
        source.read_to_end(&mut read).expect("reads");
        assert_eq!(read, all);
    }

    #[test]
    fn planted_every_kind_of_harm_is_seen() {
        let all = Source::all(7, LENGTH);
        let mut flipped = all.clone();
        flipped[123_456] ^= 0x10;
        assert_eq!(check(&[&flipped]), Err(Harm::Changed { at: 123_456 }));
        assert_eq!(check(&[&all[..1000], &all[9000..]]), Err(Harm::Moved { at: 1000, from: 9000 }), "lost");
        assert_eq!(check(&[&all[..9000], &all[1000..]]), Err(Harm::Moved { at: 9000, from: 1000 }), "doubled");
        let swapped = [&all[..64], &all[128..192], &all[64..128], &all[192..]];
        assert_eq!(check(&swapped), Err(Harm::Moved { at: 64, from: 128 }), "out of order");
        assert_eq!(check(&[&all[..LENGTH - 1]]), Err(Harm::TooShort { at: 300_000, wanted: 300_001 }));
        assert_eq!(check(&[&all, b"x"]), Err(Harm::TooLong { wanted: 300_001 }));
        assert_eq!(check(&[&Source::all(8, LENGTH)]), Err(Harm::Changed { at: 0 }), "another stream");
    }
}

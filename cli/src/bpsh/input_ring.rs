//! Input on its way to ghostd in memory that both have, once there is much of it.
//!
//! Invariant: what not all ranks have taken lies in the ring until they have, so that it is at the same time what a ghostd that was
//! started anew is served from. The ring has a window's size, and no more than that is sent ahead of the slowest ([`super::stdin`]).

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use ghost_proto::frame::{ALL_RANKS, Data, MAX_DATA, Placed};
use ghost_sys::ring::RingWriter;

#[derive(Debug)]
pub struct InputRing {
    pub memory: RingWriter,
    descriptor: OwnedFd,
    /// The ghostd that is connected has it.
    known: bool,
}

impl InputRing {
    /// # Errors
    /// No memory, or no number for a descriptor.
    pub fn new(window: usize) -> io::Result<InputRing> {
        let (memory, descriptor) = RingWriter::new(window)?;
        Ok(InputRing { memory, descriptor, known: false })
    }

    /// There is another connection.
    pub fn forget(&mut self) {
        self.known = false;
    }

    /// What says to ghostd where bytes lie, with the ring if it has not had it. `None`: it cannot be passed on now.
    pub fn frame(&mut self, offset: u64, length: usize) -> Option<(Placed, Option<OwnedFd>)> {
        let descriptor = if self.known { None } else { Some(self.descriptor.try_clone().ok()?) };
        self.known = true;
        let (length, new_ring) = (u32::try_from(length).ok()?, descriptor.is_some());
        Some((Placed { id: ALL_RANKS, offset, length, new_ring, ..Placed::default() }, descriptor))
    }

    /// The same as bytes, for who has no ring, in frames of the largest size.
    pub fn copies(&self, range: Range<u64>) -> impl Iterator<Item = Data> {
        range.clone().step_by(MAX_DATA).map(move |offset| {
            let length = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(MAX_DATA);
            let mut bytes = BytesMut::with_capacity(length);
            self.memory.copy_out(offset, length, &mut bytes);
            input(offset, bytes.freeze())
        })
    }
}

/// A piece of what every rank reads.
pub fn input(offset: u64, bytes: Bytes) -> Data {
    Data { id: ALL_RANKS, offset, fd: 0, eof: false, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ghostd_gets_the_ring_once_and_copies_are_the_same_bytes() {
        let mut ring = InputRing::new(300_000).expect("ring");
        let wanted: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        ring.memory.put(1_000_000, &wanted);
        for _ in 0..2 {
            let frames =
                [(1_000_000, 10), (1_000_010, 20)].map(|(at, length)| ring.frame(at, length).expect("a frame"));
            let passed = frames.map(|(placed, descriptor)| (placed.offset, placed.new_ring, descriptor.is_some()));
            assert_eq!(passed, [(1_000_000, true, true), (1_000_010, false, false)]);
            ring.forget();
        }
        let copies: Vec<Data> = ring.copies(1_000_003..1_299_999).collect();
        let mut next = 1_000_003;
        for copy in &copies {
            assert!(copy.offset == next && (1..=MAX_DATA).contains(&copy.bytes.len()));
            next += copy.bytes.len() as u64;
        }
        assert_eq!(copies.iter().map(|copy| &copy.bytes[..]).collect::<Vec<_>>().concat(), wanted[3..299_999]);
        assert_eq!(ring.copies(7..7).count(), 0);
    }
}

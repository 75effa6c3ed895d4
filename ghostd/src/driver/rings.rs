//! The rings of one command: output that is worth it is put into memory which the command shares, instead of being sent.
//!
//! Invariant: ghostd writes rings and never reads them, and lets no more into one than the core's window allows. A command that
//! acknowledges what it has not taken spoils its own output only.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use ghost_proto::frame::{Data, Placed};
use ghost_sys::ring::{Budget, RingWriter, Share, WORTH_A_RING, WORTH_PLACING};

/// Memory for the rings of all commands, in bytes. A stream without a ring may wait in its outbox with as much, so that this bounds
/// nothing but shared memory; it is to be more than what streams hold whose reader has stopped.
pub(super) const ALL_RINGS: usize = 64 * 1024 * 1024;

struct Ring {
    memory: RingWriter,
    _share: Share,
}

/// By rank and descriptor.
pub(super) struct Rings {
    budget: Budget,
    /// The command takes placed data.
    offered: bool,
    /// Of each stream; 0 before the launch.
    window: usize,
    rings: HashMap<(u64, u8), Ring>,
}

impl Rings {
    pub(super) fn new(budget: Budget) -> Rings {
        Rings { budget, offered: false, window: 0, rings: HashMap::new() }
    }

    pub(super) fn offer(&mut self, placed: bool) {
        self.offered = placed;
    }

    pub(super) fn set_window(&mut self, window: u32) {
        self.window = window as usize;
    }

    /// Puts a piece of output into its stream's ring, which is made when the stream is worth it; gives the frame that says so,
    /// and the descriptor of a new ring. `None`: the piece is to be sent as it is.
    pub(super) fn place(&mut self, data: &Data) -> Option<(Placed, Option<OwnedFd>)> {
        let stream = (data.id, data.fd);
        if data.eof {
            // What lies in it is the command's.
            self.rings.remove(&stream);
        }
        let length = data.bytes.len();
        if !self.offered || data.eof || length < WORTH_PLACING || length > self.window {
            return None;
        }
        let mut descriptor = None;
        if !self.rings.contains_key(&stream) {
            if data.offset < WORTH_A_RING {
                return None;
            }
            let share = self.budget.take(self.window)?;
            // Without a descriptor or memory it goes the other way.
            let (memory, fd) = RingWriter::new(self.window).ok()?;
            descriptor = Some(fd);
            self.rings.insert(stream, Ring { memory, _share: share });
        }
        self.rings.get(&stream)?.memory.put(data.offset, &data.bytes);
        let placed = Placed {
            id: data.id,
            offset: data.offset,
            length: u32::try_from(length).ok()?,
            fd: data.fd,
            new_ring: descriptor.is_some(),
            ..Placed::default()
        };
        Some((placed, descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ghost_sys::ring::RingReader;

    const WINDOW: usize = 64 * 1024;

    fn rings(budget: usize) -> Rings {
        let mut rings = Rings::new(Budget::new(budget));
        rings.offer(true);
        rings.set_window(WINDOW as u32);
        rings
    }

    fn data(id: u64, offset: u64, length: usize) -> Data {
        let bytes: Vec<u8> = (offset..offset + length as u64).map(|at| (at % 251) as u8).collect();
        Data { id, offset, fd: 1, eof: false, bytes: Bytes::from(bytes) }
    }

    #[test]
    fn a_long_stream_gets_a_ring_and_its_bytes_lie_there() {
        let mut rings = rings(WINDOW);
        assert!(rings.place(&data(0, WORTH_A_RING - 1, 9000)).is_none(), "not yet");
        let (mut offset, mut reader) = (WORTH_A_RING, None);
        for length in [9000, WINDOW, 5000, 60_000] {
            let (placed, fd) = rings.place(&data(0, offset, length)).expect("in the ring");
            assert_eq!(placed.new_ring, fd.is_some());
            assert_eq!((placed.offset, placed.length as usize, placed.fd), (offset, length, 1));
            if let Some(fd) = fd {
                assert!(reader.is_none(), "one ring a stream");
                reader = Some(RingReader::open(&fd).expect("a ring"));
            }
            let mut out = Vec::new();
            reader.as_ref().expect("it came first").copy_out(offset, length, &mut out);
            assert_eq!(out, data(0, offset, length).bytes);
            offset += length as u64;
        }
        assert!(rings.place(&data(0, offset, WORTH_PLACING - 1)).is_none(), "a small piece");
    }

    #[test]
    fn who_gets_no_ring_is_sent_the_bytes() {
        let mut rings = rings(WINDOW);
        assert!(rings.place(&data(0, WORTH_A_RING, 9000)).is_some());
        assert!(rings.place(&data(1, WORTH_A_RING, 9000)).is_none(), "the budget is spent");
        let end = Data { eof: true, ..data(0, WORTH_A_RING + 9000, 0) };
        assert!(rings.place(&end).is_none(), "an end has no bytes");
        assert!(rings.place(&data(1, WORTH_A_RING + 9000, 9000)).is_some(), "the share came back");
        rings.offer(false);
        assert!(rings.place(&data(1, WORTH_A_RING + 18_000, 9000)).is_none(), "it takes none");
        let mut silent = Rings::new(Budget::new(WINDOW));
        silent.set_window(WINDOW as u32);
        assert!(silent.place(&data(0, WORTH_A_RING, 9000)).is_none(), "it has offered nothing");
    }
}

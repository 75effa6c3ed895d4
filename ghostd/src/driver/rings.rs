//! The rings of one command: output that is worth it is put into memory which the command shares, instead of being sent.
//!
//! Invariant: ghostd writes these rings and never reads them, and lets no more into one than the core's window allows. A command that
//! acknowledges what it has not taken spoils its own output only.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use ghost_proto::frame::{Data, Placed};
use ghost_sys::ring::{Budget, RingFile, RingWriter, Share, WORTH_A_RING, WORTH_PLACING};

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

/// What a command has put into memory of its own for ghostd to fetch: its input, once there is much of it.
///
/// Nothing of it is believed: it is only read, through its descriptor, and what is read is a piece of input like one that was sent.
#[derive(Default)]
pub(super) struct Inward {
    ring: Option<RingFile>,
    offered: bool,
    /// Have come, and no frame has been about them yet.
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Inward {
    /// Whether it is time to tell the command of that way: once, when a piece has come for which it is worth it.
    pub(super) fn is_to_be_offered(&mut self, data: &Data) -> bool {
        data.bytes.len() >= WORTH_PLACING && !std::mem::replace(&mut self.offered, true)
    }

    /// The bytes that a frame is about.
    ///
    /// # Errors
    /// For the command: there are none.
    pub(super) fn fetch(&mut self, placed: Placed) -> Result<Data, String> {
        let Placed { id, offset, length, fd, eof, new_ring, last_of_ring } = placed;
        if new_ring {
            if self.descriptors.is_empty() {
                return Err("the descriptor of a ring is missing".to_owned());
            }
            let ring = RingFile::open(self.descriptors.remove(0)).map_err(|error| format!("no ring: {error}"))?;
            self.ring = Some(ring);
        }
        let length = length as usize;
        let mut bytes = BytesMut::with_capacity(length);
        match &self.ring {
            Some(ring) => ring.copy_out(offset, length, &mut bytes).map_err(|error| format!("its ring: {error}"))?,
            None => return Err("it refers to memory that it has not shared".to_owned()),
        }
        if last_of_ring {
            self.ring = None;
        }
        Ok(Data { id, offset, fd, eof, bytes: bytes.freeze() })
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
    fn what_a_command_has_placed_is_fetched_and_nothing_else() {
        let placed = |offset, length, new_ring| Placed { id: 3, offset, length, new_ring, ..Placed::default() };
        let mut inward = Inward::default();
        inward.fetch(placed(0, 10, false)).expect_err("no ring");
        inward.fetch(placed(0, 10, true)).expect_err("no descriptor");
        inward.descriptors.push(std::io::pipe().expect("pipe").0.into());
        inward.fetch(placed(0, 10, true)).expect_err("not sealed, no memory");

        let (memory, fd) = RingWriter::new(WINDOW).expect("ring");
        let other = fd.try_clone().expect("descriptor");
        inward.descriptors.extend([fd, other]);
        let mut offset = 5;
        for (length, new_ring) in [(9000, true), (WINDOW, false), (1, false), (0, false), (60_000, true)] {
            let wanted = data(3, offset, length);
            memory.put(offset, &wanted.bytes);
            let got = inward.fetch(placed(offset, length as u32, new_ring)).expect("there");
            assert_eq!((got.id, got.offset, &got.bytes), (3, offset, &wanted.bytes));
            offset += length as u64;
        }
        inward.fetch(placed(offset, WINDOW as u32 + 1, false)).expect_err("more than it holds");
        inward.fetch(Placed { last_of_ring: true, ..placed(offset, 1, false) }).expect("there");
        inward.fetch(placed(offset, 1, false)).expect_err("given up");
    }

    #[test]
    fn the_way_is_offered_once_to_who_has_much() {
        let mut inward = Inward::default();
        let sizes = [1, WORTH_PLACING - 1, WORTH_PLACING, WORTH_PLACING];
        let offered = sizes.map(|length| inward.is_to_be_offered(&data(0, 0, length)));
        assert_eq!(offered, [false, false, true, false]);
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

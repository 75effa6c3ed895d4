//! Frames of the holder, cut where they end and put in the order in which they go to the master: control first.
//!
//! The frames stay as they are; only the head of each is looked at. Data that lies in a ring is copied out of it as it goes out,
//! and becomes a frame with the bytes in it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ghost_proto::frame::{DATA_HEADER, Data, Decoder, Frame, FrameError, HEADER, MAX_CONTROL, MAX_DATA, Placed};
use ghost_sys::ring::{RingReader, RingWriter};

use super::input_rings::InputRings;

/// Bulk frames below this size go out together.
const SMALL: usize = 16 * 1024;
/// How much goes out together.
const BATCH: usize = HEADER + DATA_HEADER + MAX_DATA;
/// Kinds of frames (ghost_proto::frame).
const CONTROL: u8 = 0;
const PLACED: u8 = 2;

/// The holder does not speak the protocol, or its memory cannot be had. The texts have their reasons in them: nothing is behind them in a chain.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    #[error("the holder sent a frame of kind {kind} with {length} bytes")]
    TooLarge { kind: u8, length: usize },
    #[error("the holder sent what cannot be read: {0}")]
    Unreadable(FrameError),
    #[error("the holder's memory for a stream cannot be had: {0}")]
    Ring(io::Error),
    #[error("the holder refers to memory that it has not shared")]
    NoRing,
}

/// Bulk that waits.
#[derive(Debug)]
enum Bulk {
    Frame(Bytes),
    Placed(Placed, Rc<RingReader>),
}

impl Bulk {
    /// Bytes that go out for it.
    fn len(&self) -> usize {
        match self {
            Bulk::Frame(bytes) => bytes.len(),
            Bulk::Placed(placed, _) => HEADER + DATA_HEADER + placed.length as usize,
        }
    }

    fn append_to(self, batch: &mut BytesMut) {
        match self {
            Bulk::Frame(bytes) => batch.extend_from_slice(&bytes),
            Bulk::Placed(placed, ring) => {
                let Placed { id, offset, length, fd, eof, .. } = placed;
                Data::put_head_of(id, offset, fd, eof, length as usize, batch);
                ring.copy_out(offset, length as usize, batch);
            }
        }
    }
}

/// Takes bytes, gives pieces of whole frames.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What has been received and not yet cut, and the descriptors that came with it.
    pub input: BytesMut,
    pub descriptors: VecDeque<OwnedFd>,
    control: BytesMut,
    bulk: VecDeque<Bulk>,
    bulk_bytes: usize,
    /// By process and descriptor.
    rings: HashMap<(u64, u8), Rc<RingReader>>,
    /// Those of descriptor 0, into which the master's bytes go.
    inputs: InputRings,
    /// What goes out is put together here, again and again in the same memory.
    batch: BytesMut,
}

impl Splitter {
    /// `inputs`: where rings for the master's bytes go.
    pub fn new(inputs: InputRings) -> Splitter {
        Splitter { inputs, ..Splitter::default() }
    }

    /// Cuts what has arrived.
    ///
    /// # Errors
    /// See [`BadFrame`].
    pub fn cut(&mut self) -> Result<(), BadFrame> {
        while let Some(&[a, b, c, d, kind, ..]) = self.input.get(..HEADER) {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let limit = if kind == CONTROL { MAX_CONTROL } else { DATA_HEADER + MAX_DATA };
            if length > limit {
                return Err(BadFrame::TooLarge { kind, length });
            }
            let whole = HEADER + length;
            if self.input.len() < whole {
                self.input.reserve(whole - self.input.len());
                break;
            }
            let mut frame = self.input.split_to(whole);
            match kind {
                CONTROL => self.control.extend_from_slice(&frame),
                PLACED => {
                    if let Some(Frame::Placed(placed)) =
                        Decoder::new(MAX_CONTROL).next(&mut frame).map_err(BadFrame::Unreadable)?
                    {
                        self.placed(placed)?;
                    }
                }
                _ => self.bulk(frame.freeze()),
            }
        }
        Ok(())
    }

    fn placed(&mut self, placed: Placed) -> Result<(), BadFrame> {
        let stream = (placed.id, placed.fd);
        // It came with the frame's first byte, if not before.
        let mut came = || self.descriptors.pop_front().ok_or(BadFrame::NoRing);
        let descriptor = placed.new_ring.then(&mut came).transpose()?;
        if placed.fd == 0 {
            match descriptor {
                // Without memory for it the bytes go in the frames.
                Some(descriptor) => {
                    if let Ok(ring) = RingWriter::open(&descriptor) {
                        self.inputs.insert(placed.id, ring);
                    }
                }
                None if placed.last_of_ring => self.inputs.remove(placed.id),
                None => {}
            }
            return Ok(());
        }
        if let Some(descriptor) = descriptor {
            self.rings.insert(stream, Rc::new(RingReader::open(&descriptor).map_err(BadFrame::Ring)?));
        }
        let ring = self.rings.get(&stream).ok_or(BadFrame::NoRing)?;
        if placed.length as usize > ring.size() {
            return Err(BadFrame::NoRing);
        }
        if placed.length > 0 || placed.eof {
            let bulk = Bulk::Placed(placed, Rc::clone(ring));
            self.push(bulk);
        }
        if placed.last_of_ring {
            self.rings.remove(&stream);
        }
        Ok(())
    }

    /// A whole frame that is to go out with the bulk.
    pub fn bulk(&mut self, frame: Bytes) {
        self.push(Bulk::Frame(frame));
    }

    fn push(&mut self, bulk: Bulk) {
        self.bulk_bytes += bulk.len();
        self.bulk.push_back(bulk);
    }

    /// Bytes that are cut and wait.
    pub fn waiting(&self) -> usize {
        self.control.len() + self.bulk_bytes
    }

    /// What goes out next: all control, or the next piece of bulk.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        if !self.control.is_empty() {
            return Some(self.control.split().freeze());
        }
        let first = self.bulk.pop_front()?;
        self.bulk_bytes -= first.len();
        let first = match first {
            // As it is, if it is large enough or alone.
            Bulk::Frame(frame) if frame.len() >= SMALL || self.bulk.is_empty() => return Some(frame),
            other => other,
        };
        // All but this piece has gone out: its memory is used again.
        self.batch.reserve(BATCH);
        first.append_to(&mut self.batch);
        let room = |next: &Bulk, batch: &BytesMut| {
            batch.len() + next.len() <= BATCH && (next.len() < SMALL || matches!(next, Bulk::Placed(..)))
        };
        while let Some(next) = self.bulk.pop_front_if(|next| room(next, &self.batch)) {
            self.bulk_bytes -= next.len();
            next.append_to(&mut self.batch);
        }
        Some(self.batch.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::Control;
    use ghost_proto::node::{NodeToMaster, StdinGone};
    use ghost_sys::ring::RingWriter;
    use proptest::prelude::*;

    fn data(id: u64, offset: u64, size: usize) -> Data {
        Data { id, offset, fd: 1, eof: false, bytes: Bytes::from(vec![id as u8; size]) }
    }

    #[test]
    fn control_overtakes_bulk() {
        let mut splitter = Splitter::default();
        data(1, 0, 100_000).encode(&mut splitter.input);
        data(1, 100_000, 10).encode(&mut splitter.input);
        let control = NodeToMaster::StdinGone(StdinGone { proc: 5 }).to_frame();
        splitter.input.extend_from_slice(&control);
        splitter.cut().expect("frames");
        assert_eq!(splitter.next_piece(), Some(control));
        assert_eq!(splitter.next_piece().map(|piece| piece.len()), Some(100_032));
        assert_eq!(splitter.next_piece().map(|piece| piece.len()), Some(42));
        assert_eq!((splitter.next_piece(), splitter.waiting()), (None, 0));
    }

    #[test]
    fn the_ring_of_an_input_is_no_output() {
        let (ring, fd) = RingWriter::new(100_000).expect("ring");
        let mut splitter = Splitter::default();
        let mut frame = |placed: Placed| placed.encode(&mut splitter.input);
        frame(Placed { id: 5, new_ring: true, ..Placed::default() });
        splitter.descriptors.push_back(fd);
        splitter.cut().expect("a ring");
        let taken = Placed { id: 5, length: 100_000, ..Placed::default() };
        let refused = [Placed { id: 6, ..taken }, Placed { fd: 1, ..taken }, Placed { length: 100_001, ..taken }];
        assert!(splitter.inputs.take(&taken) && !refused.iter().any(|data| splitter.inputs.take(data)));
        splitter.inputs.put(5, 99_999, b"ab");
        let mut there = Vec::new();
        ring.copy_out(99_999, 2, &mut there);
        assert_eq!((there.as_slice(), splitter.next_piece()), (&b"ab"[..], None));
        Placed { id: 5, last_of_ring: true, ..Placed::default() }.encode(&mut splitter.input);
        splitter.cut().expect("given up");
        assert!(splitter.inputs.is_empty());
        Placed { id: 5, new_ring: true, ..Placed::default() }.encode(&mut splitter.input);
        assert!(matches!(splitter.cut(), Err(BadFrame::NoRing)), "no descriptor");
    }

    #[test]
    fn what_lies_in_a_ring_goes_out_with_its_bytes() {
        let (writer, fd) = RingWriter::new(100_000).expect("ring");
        let mut splitter = Splitter::default();
        splitter.descriptors.push_back(fd);
        let (mut expected, mut offset) = (BytesMut::new(), 90_000);
        for (number, length) in [50_000u32, 10, 0, 40_000].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ number as u8).collect();
            writer.put(offset, &bytes);
            let placed = Placed { id: 7, offset, length, fd: 2, new_ring: number == 0, ..Placed::default() };
            placed.encode(&mut splitter.input);
            if length > 0 {
                Data { id: 7, offset, fd: 2, eof: false, bytes: bytes.into() }.encode(&mut expected);
            }
            offset += u64::from(length);
        }
        data(1, 0, 10).encode(&mut splitter.input);
        data(1, 0, 10).encode(&mut expected);
        Placed { id: 7, fd: 2, last_of_ring: true, ..Placed::default() }.encode(&mut splitter.input);
        splitter.cut().expect("frames");
        assert!(splitter.rings.is_empty() && splitter.input.is_empty());
        assert_eq!(splitter.waiting(), expected.len());
        assert_eq!(splitter.next_piece(), Some(expected.freeze()));
        assert_eq!((splitter.next_piece(), splitter.waiting()), (None, 0));
        Placed { id: 7, fd: 2, length: 1, ..Placed::default() }.encode(&mut splitter.input);
        assert!(matches!(splitter.cut(), Err(BadFrame::NoRing)), "it was given up");
    }

    #[test]
    fn a_ring_that_is_none_is_refused() {
        let mut splitter = Splitter::default();
        let placed = Placed { id: 7, fd: 1, length: 5, new_ring: true, ..Placed::default() };
        placed.encode(&mut splitter.input);
        assert!(matches!(splitter.cut(), Err(BadFrame::NoRing)), "nothing came with it");
        splitter.descriptors.push_back(RingWriter::new(4).expect("ring").1);
        placed.encode(&mut splitter.input);
        assert!(matches!(splitter.cut(), Err(BadFrame::NoRing)), "it is too small");
        splitter.descriptors.push_back(std::io::pipe().expect("pipe").0.into());
        placed.encode(&mut splitter.input);
        assert!(matches!(splitter.cut(), Err(BadFrame::Ring(_))), "no memory");
    }

    #[test]
    fn a_frame_too_large_is_refused_by_its_head() {
        let mut splitter = Splitter::default();
        splitter.input.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
        assert!(splitter.cut().is_err());
    }

    proptest! {
        /// However the bytes arrive, every frame goes out whole, and those of a stream in order.
        #[test]
        fn nothing_is_lost_or_torn(sizes in prop::collection::vec(0usize..40_000, 0..30), cut in 1usize..70_000) {
            let mut wire = BytesMut::new();
            let mut expected = Vec::new();
            for (at, size) in sizes.into_iter().enumerate() {
                if at % 5 == 4 {
                    wire.extend_from_slice(&NodeToMaster::StdinGone(StdinGone { proc: at as u64 }).to_frame());
                } else {
                    let frame = data(at as u64, 0, size);
                    frame.encode(&mut wire);
                    expected.push(frame);
                }
            }
            let mut splitter = Splitter::default();
            let mut out = BytesMut::new();
            for chunk in wire.chunks(cut) {
                splitter.input.extend_from_slice(chunk);
                splitter.cut().unwrap();
                if chunk.len() % 2 == 0 && let Some(piece) = splitter.next_piece() {
                    out.extend_from_slice(&piece);
                }
            }
            while let Some(piece) = splitter.next_piece() {
                out.extend_from_slice(&piece);
            }
            prop_assert_eq!(out.len(), wire.len());
            prop_assert_eq!(splitter.waiting(), 0);
            let (mut decoder, mut got) = (Decoder::new(MAX_CONTROL), Vec::new());
            while let Some(frame) = decoder.next(&mut out).unwrap() {
                if let Frame::Data(frame) = frame {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, expected);
        }
    }
}

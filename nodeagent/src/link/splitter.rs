//! Frames of the holder, cut where they end and put in the order in which they go to the master: control first.
//!
//! The frames stay as they are; only the head of each is looked at.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use ghost_proto::frame::{DATA_HEADER, HEADER, MAX_CONTROL, MAX_DATA};

/// Bulk frames below this size go out together.
const SMALL: usize = 16 * 1024;
/// How much goes out together.
const BATCH: usize = 64 * 1024;
/// Kind of a control frame (ghost_proto::frame).
const CONTROL: u8 = 0;

/// The holder does not speak the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the holder sent a frame of kind {kind} with {length} bytes")]
pub struct BadFrame {
    kind: u8,
    length: usize,
}

/// Takes bytes, gives pieces of whole frames.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What has been received and not yet cut.
    pub input: BytesMut,
    control: BytesMut,
    bulk: VecDeque<Bytes>,
    bulk_bytes: usize,
}

impl Splitter {
    /// Cuts what has arrived.
    ///
    /// # Errors
    /// A frame is larger than any may be.
    pub fn cut(&mut self) -> Result<(), BadFrame> {
        while let Some(&[a, b, c, d, kind, ..]) = self.input.get(..HEADER) {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let limit = if kind == CONTROL { MAX_CONTROL } else { DATA_HEADER + MAX_DATA };
            if length > limit {
                return Err(BadFrame { kind, length });
            }
            let whole = HEADER + length;
            if self.input.len() < whole {
                self.input.reserve(whole - self.input.len());
                break;
            }
            let frame = self.input.split_to(whole);
            if kind == CONTROL {
                self.control.extend_from_slice(&frame);
            } else {
                self.bulk_bytes += frame.len();
                self.bulk.push_back(frame.freeze());
            }
        }
        Ok(())
    }

    /// Bytes that are cut and wait.
    pub fn waiting(&self) -> usize {
        self.control.len() + self.bulk_bytes
    }

    /// What goes out next: all control, or the next piece of bulk.
    pub fn next(&mut self) -> Option<Bytes> {
        if !self.control.is_empty() {
            return Some(self.control.split().freeze());
        }
        let first = self.bulk.pop_front()?;
        self.bulk_bytes -= first.len();
        let mergeable = |next: &Bytes| next.len() < SMALL;
        if !mergeable(&first) || !self.bulk.front().is_some_and(mergeable) {
            return Some(first);
        }
        let mut batch = BytesMut::with_capacity(BATCH + SMALL);
        batch.extend_from_slice(&first);
        while batch.len() < BATCH
            && let Some(next) = self.bulk.pop_front_if(|next| next.len() < SMALL)
        {
            self.bulk_bytes -= next.len();
            batch.extend_from_slice(&next);
        }
        Some(batch.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::Control;
    use ghost_proto::frame::{Data, Decoder, Frame};
    use ghost_proto::node::{NodeToMaster, StdinGone};
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
        assert_eq!(splitter.next(), Some(control));
        assert_eq!(splitter.next().map(|piece| piece.len()), Some(100_032));
        assert_eq!(splitter.next().map(|piece| piece.len()), Some(42));
        assert_eq!((splitter.next(), splitter.waiting()), (None, 0));
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
                if chunk.len() % 2 == 0 && let Some(piece) = splitter.next() {
                    out.extend_from_slice(&piece);
                }
            }
            while let Some(piece) = splitter.next() {
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

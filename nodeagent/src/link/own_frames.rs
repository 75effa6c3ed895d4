//! Finds, in the bytes that the master sends to the holder, the frames that are for nodeagent itself, and the bulk that goes into memory
//! which the holder shares.

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{DATA_HEADER, HEADER, MAX_CONTROL, Placed, peek, peek_data};
use ghost_proto::view::MasterToAgent;
use ghost_sys::ring::WORTH_PLACING;

use super::input_rings::InputRings;

/// What is next in the bytes.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// For the holder: frames, or parts of them, as they came; or where bytes were put.
    Holder(Bytes),
    Own(MasterToAgent),
}

/// The master does not speak the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMaster {
    #[error("the master sent a frame of {0} bytes to nodeagent")]
    TooLarge(usize),
    #[error("a message of the master to nodeagent cannot be read: {0}")]
    Unreadable(String),
}

/// Where in a frame the bytes stand.
#[derive(Debug, Default)]
pub struct OwnFrames {
    /// Bytes that are still to come of a frame for the holder.
    passing: usize,
    /// What is still to come of a frame whose bytes go into a ring.
    placing: Option<Placed>,
    rings: InputRings,
}

impl OwnFrames {
    pub fn new(rings: InputRings) -> OwnFrames {
        OwnFrames { rings, ..OwnFrames::default() }
    }

    /// Takes the next piece off `input`; `None` if there is nothing whole in it.
    ///
    /// # Errors
    /// See [`BadMaster`].
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, BadMaster> {
        if let Some(places) = self.place(input) {
            return Ok(Some(Piece::Holder(places)));
        }
        if self.placing.is_some() {
            return Ok(None);
        }
        // As much as can go on at once.
        let mut length = 0;
        loop {
            let more = self.passing.min(input.len() - length);
            length += more;
            self.passing -= more;
            if self.passing > 0 {
                break;
            }
            match peek(&input[length..]) {
                Some((body, false)) => {
                    if body >= DATA_HEADER + WORTH_PLACING && !self.rings.is_empty() {
                        let rest = &input[length..];
                        // Its bytes are next, or its second head has not come yet.
                        if rest.len() < HEADER + DATA_HEADER
                            || peek_data(rest).is_some_and(|data| self.rings.take(&data))
                        {
                            break;
                        }
                    }
                    self.passing = HEADER + body;
                }
                Some((body, true)) if length == 0 => return self.own(body, input),
                _ => break,
            }
        }
        Ok((length > 0).then(|| Piece::Holder(input.split_to(length).freeze())))
    }

    /// Puts what has come of data frames into their rings; gives the frames that say where.
    fn place(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        let mut places = BytesMut::new();
        while self.passing == 0 {
            let mut data = match self.placing.take() {
                Some(data) => data,
                None => {
                    let Some(data) = peek_data(input).filter(|data| self.rings.take(data)) else { break };
                    input.advance(HEADER + DATA_HEADER);
                    data
                }
            };
            let n = input.len().min(data.length as usize);
            if n > 0 {
                let bytes = input.split_to(n);
                self.rings.put(data.id, data.offset, &bytes);
                let length = u32::try_from(n).unwrap_or(data.length);
                let eof = data.eof && length == data.length;
                Placed { length, eof, ..data }.encode(&mut places);
                data.offset += n as u64;
                data.length -= length;
            }
            if data.length > 0 {
                self.placing = Some(data);
                break;
            }
        }
        (!places.is_empty()).then(|| places.freeze())
    }

    fn own(&mut self, body: usize, input: &mut BytesMut) -> Result<Option<Piece>, BadMaster> {
        if body > MAX_CONTROL {
            return Err(BadMaster::TooLarge(body));
        }
        if input.len() < HEADER + body {
            return Ok(None);
        }
        input.advance(HEADER);
        match MasterToAgent::decode_body(input.split_to(body).freeze()) {
            Ok(Some(message)) => Ok(Some(Piece::Own(message))),
            // One of a later version.
            Ok(None) => self.next(input),
            Err(why) => Err(BadMaster::Unreadable(why.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::frame::{Data, Decoder, Frame};
    use ghost_proto::node::{Lease, MasterToNode};
    use ghost_proto::view::Sample;
    use ghost_sys::ring::{RingReader, RingWriter};
    use proptest::prelude::*;

    fn own(seq: u64) -> MasterToAgent {
        MasterToAgent::Sample(Sample { seq, files: vec!["stat".into(); 20], ..Sample::default() })
    }

    proptest! {
        /// However the bytes arrive, the holder gets all of its own and nothing else, and nodeagent the rest.
        #[test]
        fn each_gets_its_own(kinds in prop::collection::vec(any::<bool>(), 0..30), cut in 1usize..300) {
            let (mut wire, mut holders, mut ours) = (BytesMut::new(), BytesMut::new(), Vec::new());
            for (seq, is_own) in kinds.into_iter().enumerate() {
                let seq = seq as u64;
                if is_own {
                    wire.extend_from_slice(&own(seq).to_frame());
                    ours.push(own(seq));
                } else {
                    let frame = MasterToNode::Lease(Lease { seq, second: false }).to_frame();
                    wire.extend_from_slice(&frame);
                    holders.extend_from_slice(&frame);
                }
            }
            let (mut frames, mut input) = (OwnFrames::default(), BytesMut::new());
            let (mut to_holder, mut to_us) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(cut) {
                input.extend_from_slice(chunk);
                while let Some(piece) = frames.next(&mut input).unwrap() {
                    match piece {
                        Piece::Holder(bytes) => to_holder.extend_from_slice(&bytes),
                        Piece::Own(message) => to_us.push(message),
                    }
                }
            }
            prop_assert_eq!(to_holder, holders);
            prop_assert_eq!(to_us, ours);
        }
    }

    proptest! {
        /// However the bytes arrive, and whichever of them lie in a ring: each process gets its own, in order.
        #[test]
        fn bulk_lies_in_the_ring_of_its_process(
            lengths in prop::collection::vec((0u64..3, prop_oneof![0usize..100, WORTH_PLACING - 1..20_000]), 0..20),
            cut in 1usize..50_000,
        ) {
            const SIZE: usize = 32 * 1024;
            let (writers, readers): (Vec<_>, Vec<_>) = (0..2).map(|_| {
                let (writer, fd) = RingWriter::new(SIZE).expect("ring");
                (writer, RingReader::open(&fd).expect("its other end"))
            }).unzip();
            let mut frames = OwnFrames::default();
            writers.into_iter().zip(0..).for_each(|(writer, id)| frames.rings.insert(id, writer));
            let (mut wire, mut offsets, mut ours, mut ending) = (BytesMut::new(), [0u64; 3], 0, 0);
            for (id, length) in lengths {
                let offset = &mut offsets[id as usize];
                let bytes: Vec<u8> = (*offset..*offset + length as u64).map(|at| (at % 251) as u8).collect();
                Data { id, offset: *offset, fd: 0, eof: length % 7 == 3, bytes: bytes.into() }.encode(&mut wire);
                *offset += length as u64;
                wire.extend_from_slice(&MasterToNode::Lease(Lease { seq: id, second: false }).to_frame());
                wire.extend_from_slice(&own(id).to_frame());
                ours += 1;
                ending += usize::from(length % 7 == 3);
            }
            let (mut input, mut holder, mut decoder) = (BytesMut::new(), BytesMut::new(), Decoder::new(MAX_CONTROL));
            let (mut taken, mut ends, mut seen) = ([0u64; 3], 0, 0);
            for chunk in wire.chunks(cut) {
                input.extend_from_slice(chunk);
                while let Some(piece) = frames.next(&mut input).unwrap() {
                    match piece {
                        Piece::Holder(bytes) => holder.extend_from_slice(&bytes),
                        Piece::Own(_) => seen += 1,
                    }
                    while let Some(frame) = decoder.next(&mut holder).expect("frames") {
                        let (id, offset, eof, bytes) = match frame {
                            Frame::Data(data) => {
                                let places = data.id < 2 && data.bytes.len() >= WORTH_PLACING;
                                prop_assert!(!places, "{} bytes were not placed", data.bytes.len());
                                (data.id, data.offset, data.eof, data.bytes.to_vec())
                            }
                            Frame::Placed(placed) => {
                                let mut bytes = Vec::new();
                                readers[placed.id as usize].copy_out(placed.offset, placed.length as usize, &mut bytes);
                                (placed.id, placed.offset, placed.eof, bytes)
                            }
                            _ => continue,
                        };
                        prop_assert_eq!(offset, taken[id as usize]);
                        ends += usize::from(eof);
                        let expected = (offset..offset + bytes.len() as u64).map(|at| (at % 251) as u8);
                        prop_assert!(expected.eq(bytes.iter().copied()), "bytes of {} at {}", id, offset);
                        taken[id as usize] += bytes.len() as u64;
                    }
                }
            }
            prop_assert_eq!((taken, seen, ends, input.len(), holder.len()), (offsets, ours, ending, 0, 0));
        }
    }

    #[test]
    fn what_was_given_up_is_thrown_away() {
        let mut frames = OwnFrames::default();
        frames.rings.insert(4, RingWriter::new(20_000).expect("ring").0);
        let mut wire = BytesMut::new();
        Data { id: 4, offset: 9, fd: 0, eof: false, bytes: vec![1; 10_000].into() }.encode(&mut wire);
        own(1).to_frame().iter().for_each(|byte| wire.extend_from_slice(&[*byte]));
        let mut input = wire.split_to(5_000);
        assert!(matches!(frames.next(&mut input), Ok(Some(Piece::Holder(_)))));
        assert_eq!((frames.next(&mut input), input.len()), (Ok(None), 0));
        frames.rings.remove(4);
        input.extend_from_slice(&wire);
        // The holder has given it up, and expects such a frame.
        assert!(matches!(frames.next(&mut input), Ok(Some(Piece::Holder(_)))));
        assert_eq!(frames.next(&mut input), Ok(Some(Piece::Own(own(1)))));
    }

    #[test]
    fn a_frame_too_large_is_refused_by_its_head() {
        let mut input = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f, 16, 0, 0, 0][..]);
        assert_eq!(OwnFrames::default().next(&mut input), Err(BadMaster::TooLarge(0x7fff_ffff)));
    }
}

//! Frames: how messages and bulk data are laid out on a byte stream.
//!
//! ```text
//! 0        4     5         8                     8+length
//! +--------+-----+---------+---------------------+
//! | length | kind| 0 0 0   | body                |      length: of the body, u32, little endian
//! +--------+-----+---------+---------------------+
//! kind 0: control, the body is a Protocol Buffers message
//! kind 1: data:
//! 8        16       24   25     32
//! +--------+--------+----+------+----------------+
//! | id     | offset | fd | flags| bytes          |      id: process (rank on the client link); flags bit 0: end of file
//! +--------+--------+----+------+----------------+
//! kind 2: placed data, on Unix sockets only: data whose bytes lie in memory that both ends share ([`Placed`]):
//! 8        16       24   25     32       36
//! +--------+--------+----+------+--------+
//! | id     | offset | fd | flags| length |              flags bit 1: a new ring's descriptor comes along; bit 2: the ring is given up
//! +--------+--------+----+------+--------+
//! kind 3: offer, on Unix sockets only: what the sender does on this connection:
//! 8        12
//! +--------+
//! | flags  |                                            flags bit 0: it takes frames of kind 2; bit 1: it fills rings
//! +--------+
//! kind 4: a piece of a command's connection on a node ([`crate::relay`]), between ghostd and a holder:
//! 8        16       24      32      33     40
//! +--------+--------+-------+-------+------+----------------+
//! | id     | offset | ack   | flags |      | bytes          |
//! +--------+--------+-------+-------+------+----------------+
//! kind 16: for nodeagent or from it, the body is a Protocol Buffers message of [`crate::view`]; the holder never sees it
//! ```
//! A frame of another kind is skipped: a later version may add one. The three spare bytes and unknown flags are ignored, and so
//! is what an offer has beyond its flags.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::relay::{self, RELAY_HEADER, Relay};

/// Bytes before a frame's body.
pub const HEADER: usize = 8;
/// Bytes of a data frame's own header, within its body.
pub const DATA_HEADER: usize = 24;
/// The largest number of stream bytes in one data frame.
pub const MAX_DATA: usize = 128 * 1024;
/// The largest control message between peers that know each other: room for a command line and environment at Linux's
/// limit (`ARG_MAX` of 6 MiB with an 8 MiB stack: `_STK_LIM / 4 * 3`, fs/exec.c `bprm_stack_limits`), and some.
pub const MAX_CONTROL: usize = 8 * 1024 * 1024;
/// The largest control message of a peer that has not shown who it is.
pub const MAX_CONTROL_STRANGER: usize = 64 * 1024;

/// Broadcast to every rank, as the `id` of a client's stdin frame.
pub const ALL_RANKS: u64 = u64::MAX;

pub(crate) const KIND_CONTROL: u8 = 0;
const KIND_DATA: u8 = 1;
const KIND_PLACED: u8 = 2;
const KIND_OFFER: u8 = 3;
pub(crate) const KIND_RELAY: u8 = 4;
pub(crate) const KIND_AGENT: u8 = 16;
const FLAG_EOF: u8 = 1;
const FLAG_NEW_RING: u8 = 2;
const FLAG_LAST_OF_RING: u8 = 4;
const OFFER_PLACED: u32 = 1;
const OFFER_FILLS: u32 = 2;
/// Bytes of a placed frame's body, and of an offer's.
const PLACED_BODY: usize = DATA_HEADER + 4;
const OFFER_BODY: usize = 4;

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The process ([`crate::ids::ProcId`]) on a node's link, the rank on a client's.
    pub id: u64,
    /// Position of the first byte in the stream.
    pub offset: u64,
    /// Descriptor number in the process: 0, 1 or 2.
    pub fd: u8,
    /// The stream ends after these bytes.
    pub eof: bool,
    pub bytes: Bytes,
}

impl Data {
    /// Appends the frame's header (both of them); the caller appends `bytes` itself or sends them from where they are.
    pub fn put_head(&self, out: &mut BytesMut) {
        Data::put_head_of(self.id, self.offset, self.fd, self.eof, self.bytes.len(), out);
    }

    /// As [`Data::put_head`], for `length` bytes that the caller has elsewhere.
    pub fn put_head_of(id: u64, offset: u64, fd: u8, eof: bool, length: usize, out: &mut BytesMut) {
        out.reserve(HEADER + DATA_HEADER);
        put_header(KIND_DATA, DATA_HEADER + length, out);
        out.put_u64_le(id);
        out.put_u64_le(offset);
        out.put_u8(fd);
        out.put_u8(if eof { FLAG_EOF } else { 0 });
        out.put_bytes(0, 6);
    }

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        self.put_head(out);
        out.extend_from_slice(&self.bytes);
    }
}

/// A piece of a stream whose bytes the sender has put into the stream's ring: memory that the two ends of a Unix socket
/// share. The byte at a stream's offset lies at that offset modulo the ring's size.
///
/// The sender of a stream makes its ring; but that of what a process reads is made by the holder, for an agent that fills rings.
///
/// The ring is at least as large as the stream's window, so what the sender may send never covers what the receiver has not
/// acknowledged; what it may have acknowledged falsely was its own. Frames with the bytes in them may stand between; they
/// do not touch the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// As in [`Data`].
    pub id: u64,
    /// Position of the first byte in the stream.
    pub offset: u64,
    /// Bytes, at most [`MAX_DATA`].
    pub length: u32,
    /// As in [`Data`].
    pub fd: u8,
    /// The stream ends after these bytes.
    pub eof: bool,
    /// The stream's ring is another one from here on; its descriptor comes with this frame (SCM_RIGHTS).
    pub new_ring: bool,
    /// After this frame the stream's ring is not referred to any more.
    pub last_of_ring: bool,
}

impl Placed {
    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let flags = [(self.eof, FLAG_EOF), (self.new_ring, FLAG_NEW_RING), (self.last_of_ring, FLAG_LAST_OF_RING)];
        out.reserve(HEADER + PLACED_BODY);
        put_header(KIND_PLACED, PLACED_BODY, out);
        out.put_u64_le(self.id);
        out.put_u64_le(self.offset);
        out.put_u8(self.fd);
        out.put_u8(flags.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag));
        out.put_bytes(0, 6);
        out.put_u32_le(self.length);
    }
}

/// What the sender of an offer does on this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Takes [`Placed`] frames.
    pub placed: bool,
    /// Puts data into memory that it is given, and sends placed frames itself.
    pub fills: bool,
}

impl Offer {
    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_header(KIND_OFFER, OFFER_BODY, out);
        out.put_u32_le(if self.placed { OFFER_PLACED } else { 0 } | if self.fills { OFFER_FILLS } else { 0 });
    }

    pub fn to_frame(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The body of a control message; see [`crate::Control::decode_body`].
    Control(Bytes),
    Data(Data),
    /// The body of a message to or from nodeagent itself.
    Agent(Bytes),
    /// Only who has made an [`Offer`], or has given a ring to be filled, may get it; for anyone else it is a broken peer's.
    Placed(Placed),
    Offer(Offer),
    Relay(Relay),
}

/// Why a byte stream cannot be read on: the peer is broken or hostile, the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of kind {kind} with {length} bytes is larger than the {limit} bytes allowed")]
    TooLarge { kind: u8, length: usize, limit: usize },
    #[error("a frame of kind {kind} with {length} bytes has no room for what it must say")]
    Short { kind: u8, length: usize },
    #[error("a data frame names descriptor {0}")]
    BadDescriptor(u8),
    #[error("a data frame's offset {0} is beyond any stream")]
    BadOffset(u64),
    #[error("{0} bytes of a stream were placed at once")]
    BadLength(u32),
}

/// Takes frames from the front of a buffer of received bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    max_control: usize,
    /// Bytes of a frame of unknown kind that are still to be thrown away.
    skip: usize,
}

impl Decoder {
    /// A decoder that refuses control frames of more than `max_control` bytes.
    pub const fn new(max_control: usize) -> Decoder {
        Decoder { max_control, skip: 0 }
    }

    /// Changes the limit, once the peer has shown who it is.
    pub fn set_max_control(&mut self, max_control: usize) {
        self.max_control = max_control;
    }

    /// The next whole frame, `Ok(None)` if more bytes are needed.
    ///
    /// # Errors
    /// See [`FrameError`]; found in the header, before memory is set aside for the body.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if self.skip > 0 {
                let n = self.skip.min(input.len());
                input.advance(n);
                self.skip -= n;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            let Some((length, kind)) = peek_header(input) else {
                return Ok(None);
            };
            let (least, limit) = match kind {
                KIND_DATA => (DATA_HEADER, DATA_HEADER + MAX_DATA),
                KIND_PLACED => (PLACED_BODY, self.max_control),
                KIND_OFFER => (OFFER_BODY, self.max_control),
                KIND_RELAY => (RELAY_HEADER, DATA_HEADER + MAX_DATA),
                _ => (0, self.max_control),
            };
            if length > limit {
                return Err(FrameError::TooLarge { kind, length, limit });
            }
            if length < least {
                return Err(FrameError::Short { kind, length });
            }
            if !matches!(kind, KIND_CONTROL | KIND_DATA | KIND_PLACED | KIND_OFFER | KIND_RELAY | KIND_AGENT) {
                input.advance(HEADER);
                self.skip = length;
                continue;
            }
            if input.len() < HEADER + length {
                input.reserve(HEADER + length - input.len());
                return Ok(None);
            }
            input.advance(HEADER);
            let body = input.split_to(length).freeze();
            return Ok(Some(match kind {
                KIND_DATA => Frame::Data(parse_data(body)?),
                KIND_PLACED => Frame::Placed(parse_placed(body)?),
                KIND_OFFER => Frame::Offer(parse_offer(body)),
                KIND_RELAY => Frame::Relay(relay::parse(body)?),
                KIND_AGENT => Frame::Agent(body),
                _ => Frame::Control(body),
            }));
        }
    }
}

pub(crate) fn put_header(kind: u8, length: usize, out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u8(kind);
    out.put_bytes(0, HEADER - 5);
}

/// What the head of a frame says, as far as a carrier needs it: bytes of the body, and whether it is for nodeagent itself.
pub fn peek(input: &[u8]) -> Option<(usize, bool)> {
    peek_header(input).map(|(length, kind)| (length, kind == KIND_AGENT))
}

/// What the heads of a data frame at the front say, once both are there: where its bytes belong, whether they have come or not.
pub fn peek_data(input: &[u8]) -> Option<Placed> {
    let (body, kind) = peek_header(input)?;
    let mut head = input.get(HEADER..HEADER + DATA_HEADER)?;
    let length = u32::try_from(body.checked_sub(DATA_HEADER)?).ok()?;
    if kind != KIND_DATA || length as usize > MAX_DATA {
        return None;
    }
    let (id, offset, fd, flags) = parse_place(&mut head).ok()?;
    Some(Placed { id, offset, length, fd, eof: flags & FLAG_EOF != 0, ..Placed::default() })
}

fn peek_header(input: &[u8]) -> Option<(usize, u8)> {
    let header: [u8; HEADER] = input.get(..HEADER)?.try_into().ok()?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    Some((length as usize, header[4]))
}

/// Takes what data and placed frames begin with: id, offset, descriptor and flags.
fn parse_place(body: &mut impl Buf) -> Result<(u64, u64, u8, u8), FrameError> {
    let id = body.get_u64_le();
    let offset = body.get_u64_le();
    let fd = body.get_u8();
    let flags = body.get_u8();
    body.advance(6);
    if fd > 2 {
        return Err(FrameError::BadDescriptor(fd));
    }
    if offset > i64::MAX as u64 {
        return Err(FrameError::BadOffset(offset));
    }
    Ok((id, offset, fd, flags))
}

fn parse_data(mut body: Bytes) -> Result<Data, FrameError> {
    let (id, offset, fd, flags) = parse_place(&mut body)?;
    Ok(Data { id, offset, fd, eof: flags & FLAG_EOF != 0, bytes: body })
}

fn parse_placed(mut body: Bytes) -> Result<Placed, FrameError> {
    let (id, offset, fd, flags) = parse_place(&mut body)?;
    let length = body.get_u32_le();
    if length as usize > MAX_DATA {
        return Err(FrameError::BadLength(length));
    }
    let has = |flag| flags & flag != 0;
    let (eof, new_ring, last_of_ring) = (has(FLAG_EOF), has(FLAG_NEW_RING), has(FLAG_LAST_OF_RING));
    Ok(Placed { id, offset, length, fd, eof, new_ring, last_of_ring })
}

fn parse_offer(mut body: Bytes) -> Offer {
    let flags = body.get_u32_le();
    Offer { placed: flags & OFFER_PLACED != 0, fills: flags & OFFER_FILLS != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(id: u64, offset: u64, bytes: &[u8], eof: bool) -> Data {
        Data { id, offset, fd: 1, eof, bytes: Bytes::copy_from_slice(bytes) }
    }

    #[test]
    fn a_data_frame_has_the_documented_bytes() {
        let mut out = BytesMut::new();
        data(0x0102, 0x0a0b, b"hey", true).encode(&mut out);
        assert_eq!(
            out.as_ref(),
            [
                27, 0, 0, 0, 1, 0, 0, 0, // header
                2, 1, 0, 0, 0, 0, 0, 0, // id
                0x0b, 0x0a, 0, 0, 0, 0, 0, 0, // offset
                1, 1, 0, 0, 0, 0, 0, 0, // fd, flags
                b'h', b'e', b'y'
            ]
        );
    }

    #[test]
    fn a_frame_of_unknown_kind_is_skipped() {
        let mut input = BytesMut::new();
        put_header(77, 5, &mut input);
        input.extend_from_slice(b"12345");
        data(1, 0, b"x", false).encode(&mut input);
        assert_eq!(Decoder::new(64).next(&mut input), Ok(Some(Frame::Data(data(1, 0, b"x", false)))));
    }

    #[test]
    fn limits_are_found_in_the_header_alone() {
        for (kind, length, ok) in [
            (0u8, 64usize, true),
            (0, 65, false),
            (1, DATA_HEADER + MAX_DATA, true),
            (1, DATA_HEADER + MAX_DATA + 1, false),
            (9, 65, false),
        ] {
            let mut input = BytesMut::new();
            put_header(kind, length, &mut input);
            let result = Decoder::new(64).next(&mut input);
            assert_eq!(result.is_ok(), ok, "kind {kind} length {length}: {result:?}");
        }
        let mut input = BytesMut::new();
        put_header(1, 23, &mut input);
        assert_eq!(Decoder::new(64).next(&mut input), Err(FrameError::Short { kind: 1, length: 23 }));
    }

    #[test]
    fn placed_data_and_offers_have_the_documented_bytes() {
        let mut out = BytesMut::new();
        let placed = Placed { id: 3, offset: 0x0a0b, length: 70_000, fd: 2, eof: true, ..Placed::default() };
        placed.encode(&mut out);
        let expected = [
            28, 0, 0, 0, 2, 0, 0, 0, // header
            3, 0, 0, 0, 0, 0, 0, 0, // id
            0x0b, 0x0a, 0, 0, 0, 0, 0, 0, // offset
            2, 1, 0, 0, 0, 0, 0, 0, // fd, flags
            0x70, 0x11, 1, 0, // length
        ];
        assert_eq!(out.as_ref(), expected);
        Offer { placed: true, fills: false }.encode(&mut out);
        assert_eq!(out[expected.len()..], [4, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]);
        let mut decoder = Decoder::new(64);
        assert_eq!(decoder.next(&mut out), Ok(Some(Frame::Placed(placed))));
        assert_eq!(decoder.next(&mut out), Ok(Some(Frame::Offer(Offer { placed: true, fills: false }))));
        assert!(out.is_empty());
    }

    #[test]
    fn placed_data_beyond_any_frame_or_stream_is_refused() {
        let most = Placed { id: 1, offset: i64::MAX as u64, length: MAX_DATA as u32, fd: 1, ..Placed::default() };
        for (placed, expected) in [
            (most, Ok(Some(Frame::Placed(most)))),
            (Placed { length: MAX_DATA as u32 + 1, ..most }, Err(FrameError::BadLength(MAX_DATA as u32 + 1))),
            (Placed { offset: 1 << 63, ..most }, Err(FrameError::BadOffset(1 << 63))),
            (Placed { fd: 3, ..most }, Err(FrameError::BadDescriptor(3))),
        ] {
            let mut input = BytesMut::new();
            placed.encode(&mut input);
            assert_eq!(Decoder::new(64).next(&mut input), expected);
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(pieces in prop::collection::vec((any::<u64>(), 0..1u64 << 62, prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..20), cut in 1usize..50) {
            let frames: Vec<Data> = pieces.iter().map(|(id, offset, bytes, eof)| data(*id, *offset, bytes, *eof)).collect();
            let mut wire = BytesMut::new();
            for frame in &frames {
                frame.encode(&mut wire);
            }
            let mut decoder = Decoder::new(64);
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(cut) {
                input.extend_from_slice(chunk);
                while let Some(frame) = decoder.next(&mut input).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert!(input.is_empty());
            prop_assert_eq!(got, frames.into_iter().map(Frame::Data).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut input = BytesMut::from(bytes.as_slice());
            let mut decoder = Decoder::new(128);
            while let Ok(Some(_)) = decoder.next(&mut input) {}
        }
    }
}

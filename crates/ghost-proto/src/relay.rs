//! Commands' connections on a node, carried between its holder and ghostd.
//!
//! ```text
//! bpsh on the node          holder                                 ghostd
//!                                      <-  HERE (a number of its own), once on each link, after its welcome
//!   connects          ->   OPEN (process, user)  ->                 a client, as whom its table has the process launched
//!   frames            <->  bytes, acknowledgements  <->             frames
//!   closes, or dies   ->   END              <->  END
//! ```
//! Each direction is a byte stream with absolute offsets; what is not acknowledged is kept and comes again on the next link, so that a
//! command does not see a link break. Another number in HERE is another ghostd, which knows nothing of the connections: the holder
//! closes them, as a ghostd's end closes those of its host.
//!
//! Invariants:
//! - At most [`WINDOW`] bytes of a direction lie beyond its acknowledged offset, which bounds what each end keeps.
//! - Bytes are acknowledged when they have been handed on, not when they have come.
//! - An end counts as one byte: it is acknowledged, too, and a connection is forgotten when both ends are.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{FrameError, HEADER, KIND_RELAY, put_header};
use crate::ids::ProcId;

/// Bytes of a direction beyond the acknowledged offset.
pub const WINDOW: usize = 128 * 1024;
/// Bytes that are sent at once.
pub const PIECE: usize = 32 * 1024;
/// Acknowledged at the latest when this much has been handed on.
const OFTEN: u64 = WINDOW as u64 / 4;
/// Bytes before those of the stream, in the frame's body.
pub(crate) const RELAY_HEADER: usize = 32;
/// Bytes of an opening frame behind its header.
const OPENING: usize = 12;

const FLAG_OPEN: u8 = 1;
const FLAG_END: u8 = 2;
const FLAG_HERE: u8 = 4;

/// Who asks for a connection, as the holder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub process: ProcId,
    /// Its effective user there.
    pub uid: u32,
}

/// What a frame is besides a piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Piece,
    /// The first of a connection; no bytes of the stream are in it.
    Open(Opening),
    /// ghostd is here; `id` is its own number, and all else means nothing.
    Here,
}

/// A frame of a relayed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The holder's number of the connection.
    pub id: u64,
    /// Position of the first byte in the sender's stream.
    pub offset: u64,
    /// So much of the other direction has been handed on.
    pub ack: u64,
    pub kind: Kind,
    /// The stream ends after these bytes.
    pub end: bool,
    pub bytes: Bytes,
}

impl Relay {
    pub fn here(number: u64) -> Relay {
        Relay { id: number, offset: 0, ack: 0, kind: Kind::Here, end: false, bytes: Bytes::new() }
    }

    /// The whole frame.
    pub fn to_frame(&self) -> Bytes {
        let opening = if let Kind::Open(_) = self.kind { OPENING } else { 0 };
        let length = RELAY_HEADER + opening + self.bytes.len();
        let mut out = BytesMut::with_capacity(HEADER + length);
        put_header(KIND_RELAY, length, &mut out);
        out.put_u64_le(self.id);
        out.put_u64_le(self.offset);
        out.put_u64_le(self.ack);
        let kind = match self.kind {
            Kind::Piece => 0,
            Kind::Open(_) => FLAG_OPEN,
            Kind::Here => FLAG_HERE,
        };
        out.put_u8(kind | if self.end { FLAG_END } else { 0 });
        out.put_bytes(0, 7);
        if let Kind::Open(opening) = self.kind {
            out.put_u64_le(opening.process.0);
            out.put_u32_le(opening.uid);
        }
        out.extend_from_slice(&self.bytes);
        out.freeze()
    }

    /// The answer to the end of a connection that is forgotten here: the other end may forget it, too.
    pub fn farewell(&self) -> Option<Relay> {
        let ack = self.offset.checked_add(self.bytes.len() as u64 + 1)?;
        self.end.then_some(Relay { ack, kind: Kind::Piece, end: false, bytes: Bytes::new(), ..*self })
    }
}

/// `body` has at least [`RELAY_HEADER`] bytes.
pub(crate) fn parse(mut body: Bytes) -> Result<Relay, FrameError> {
    let (id, offset, ack) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
    let flags = body.get_u8();
    body.advance(7);
    if let Some(bad) = [offset, ack].into_iter().find(|offset| *offset > i64::MAX as u64) {
        return Err(FrameError::BadOffset(bad));
    }
    let kind = match flags & (FLAG_OPEN | FLAG_HERE) {
        0 => Kind::Piece,
        FLAG_OPEN => {
            if body.len() < OPENING {
                return Err(FrameError::Short { kind: KIND_RELAY, length: RELAY_HEADER + body.len() });
            }
            let process = ProcId(body.get_u64_le());
            let uid = body.get_u32_le();
            // What a later version may add.
            body.clear();
            Kind::Open(Opening { process, uid })
        }
        _ => Kind::Here,
    };
    Ok(Relay { id, offset, ack, kind, end: flags & FLAG_END != 0, bytes: body })
}

/// The other end does not keep to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRelay {
    #[error("bytes are missing between {expected} and {offset}")]
    Gap { expected: u64, offset: u64 },
    #[error("more bytes than the window allows")]
    BeyondWindow,
    #[error("bytes up to {0} are acknowledged, which were never sent")]
    NeverSent(u64),
    #[error("bytes behind the end")]
    BehindEnd,
}

/// One end of a relayed connection: what it has sent and what has come.
#[derive(Debug)]
pub struct Relayed {
    id: u64,
    /// At the holder, until ghostd has been heard of it.
    opening: Option<Opening>,
    /// From the first byte that is not acknowledged.
    kept: VecDeque<Bytes>,
    acked: u64,
    sent: u64,
    ended: bool,
    received: u64,
    consumed: u64,
    told: u64,
    peer_ended: bool,
}

impl Relayed {
    fn new(id: u64, opening: Option<Opening>) -> Relayed {
        Relayed {
            id,
            opening,
            kept: VecDeque::new(),
            acked: 0,
            sent: 0,
            ended: false,
            received: 0,
            consumed: 0,
            told: 0,
            peer_ended: false,
        }
    }

    /// The holder's end. Its first frames are those of [`Relayed::again`].
    pub fn open(id: u64, opening: Opening) -> Relayed {
        Relayed::new(id, Some(opening))
    }

    /// ghostd's end, when an opening frame has come.
    pub fn accept(id: u64) -> Relayed {
        Relayed::new(id, None)
    }

    /// Bytes that may be sent now.
    pub fn room(&self) -> usize {
        if self.ended { 0 } else { WINDOW.saturating_sub((self.sent - self.acked) as usize) }
    }

    /// Sends bytes, at most [`Relayed::room`] and [`PIECE`].
    pub fn send(&mut self, bytes: Bytes) -> Relay {
        let offset = self.sent;
        self.sent += bytes.len() as u64;
        self.kept.push_back(bytes.clone());
        self.frame(offset, bytes, false)
    }

    /// Nothing more will be sent; `None`: that is known already.
    pub fn close(&mut self) -> Option<Relay> {
        (!std::mem::replace(&mut self.ended, true)).then(|| self.frame(self.sent, Bytes::new(), true))
    }

    /// Takes a frame: what is new of its bytes.
    ///
    /// # Errors
    /// See [`BadRelay`].
    pub fn receive(&mut self, frame: &Relay) -> Result<Bytes, BadRelay> {
        self.opening = None;
        self.acknowledged(frame.ack)?;
        let mut bytes = frame.bytes.clone();
        let end = frame.offset + bytes.len() as u64;
        if frame.offset > self.received {
            return Err(BadRelay::Gap { expected: self.received, offset: frame.offset });
        }
        let old = (self.received - frame.offset).min(bytes.len() as u64);
        bytes.advance(old as usize);
        if self.peer_ended && !bytes.is_empty() {
            return Err(BadRelay::BehindEnd);
        }
        if end.saturating_sub(self.consumed) > WINDOW as u64 {
            return Err(BadRelay::BeyondWindow);
        }
        self.received = self.received.max(end);
        self.peer_ended |= frame.end;
        Ok(bytes)
    }

    fn acknowledged(&mut self, ack: u64) -> Result<(), BadRelay> {
        if ack > self.sent + u64::from(self.ended) {
            return Err(BadRelay::NeverSent(ack));
        }
        while self.acked < ack
            && let Some(first) = self.kept.front_mut()
        {
            let part = (ack - self.acked).min(first.len() as u64);
            first.advance(part as usize);
            self.acked += part;
            if first.is_empty() {
                self.kept.pop_front();
            }
        }
        self.acked = self.acked.max(ack);
        Ok(())
    }

    /// So many bytes that had come have been handed on, perhaps none; the acknowledgement, if one is due.
    pub fn consume(&mut self, bytes: usize) -> Option<Relay> {
        self.consumed += bytes as u64;
        let due = self.ack() >= self.told + OFTEN || self.has_come_to_end() && self.ack() > self.told;
        due.then(|| self.frame(self.sent, Bytes::new(), false))
    }

    /// The other end has sent all that it will, and it has been handed on.
    pub fn has_come_to_end(&self) -> bool {
        self.peer_ended && self.consumed == self.received
    }

    /// Both directions have ended, and both ends know it.
    pub fn is_over(&self) -> bool {
        self.ended && self.acked > self.sent && self.has_come_to_end() && self.told > self.received
    }

    /// What the other end may not have got, on a new link.
    pub fn again(&mut self) -> Vec<Relay> {
        let mut frames = Vec::new();
        if let Some(opening) = self.opening {
            frames.push(Relay { kind: Kind::Open(opening), ..self.frame(0, Bytes::new(), false) });
        }
        let mut offset = self.acked.min(self.sent);
        for bytes in self.kept.clone() {
            let length = bytes.len() as u64;
            frames.push(self.frame(offset, bytes, false));
            offset += length;
        }
        // Tells also how far the other direction has come.
        frames.push(self.frame(self.sent, Bytes::new(), self.ended));
        frames
    }

    fn ack(&self) -> u64 {
        self.consumed + u64::from(self.has_come_to_end())
    }

    fn frame(&mut self, offset: u64, bytes: Bytes, end: bool) -> Relay {
        self.told = self.ack();
        // An end that was sent stays sent.
        let end = end || self.ended && offset + bytes.len() as u64 == self.sent;
        Relay { id: self.id, offset, ack: self.told, kind: Kind::Piece, end, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, Frame};
    use proptest::prelude::*;

    const OPENED: Opening = Opening { process: ProcId(7), uid: 1000 };

    #[test]
    fn frames_come_as_they_were_sent() {
        let piece = Relay { id: 3, offset: 5, ack: 9, kind: Kind::Piece, end: true, bytes: Bytes::from_static(b"abc") };
        let open = Relay { kind: Kind::Open(OPENED), bytes: Bytes::new(), end: false, ..piece.clone() };
        for frame in [piece, open, Relay::here(77)] {
            let mut input = BytesMut::from(&*frame.to_frame());
            assert_eq!(Decoder::new(64).next(&mut input), Ok(Some(Frame::Relay(frame))));
        }
    }

    #[test]
    fn a_connection_that_is_forgotten_is_bidden_farewell() {
        let mut holder = Relayed::open(1, OPENED);
        let end = holder.close().expect("an end");
        assert_eq!(holder.close(), None);
        let farewell = end.farewell().expect("an answer");
        holder.receive(&farewell).expect("received");
        assert_eq!(end.farewell().and_then(|frame| frame.farewell()), None);
        assert_eq!(holder.acked, 1);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let mut end = Relayed::accept(1);
        let frame = |offset, ack, bytes: usize| Relay {
            id: 1,
            offset,
            ack,
            kind: Kind::Piece,
            end: false,
            bytes: Bytes::from(vec![0; bytes]),
        };
        assert_eq!(end.receive(&frame(1, 0, 1)), Err(BadRelay::Gap { expected: 0, offset: 1 }));
        assert_eq!(end.receive(&frame(0, 1, 0)), Err(BadRelay::NeverSent(1)));
        assert_eq!(end.receive(&frame(0, 0, WINDOW + 1)), Err(BadRelay::BeyondWindow));
        let last = Relay { end: true, ..frame(0, 0, 4) };
        assert_eq!(end.receive(&last).map(|bytes| bytes.len()), Ok(4));
        assert_eq!(end.receive(&frame(4, 0, 1)), Err(BadRelay::BehindEnd));
        assert!(!end.has_come_to_end());
        assert!(end.consume(4).is_some_and(|ack| ack.ack == 5));
        assert!(end.has_come_to_end());
    }

    /// Two ends and the frames between them, any of which a broken link loses.
    struct Pair {
        ends: [Relayed; 2],
        /// Towards each end.
        under_way: [VecDeque<Relay>; 2],
        to_send: [Vec<u8>; 2],
        got: [Vec<u8>; 2],
        pending: [usize; 2],
    }

    impl Pair {
        fn step(&mut self, choice: u8, amount: usize) {
            let at = usize::from(choice & 1);
            match choice >> 1 {
                0 => {
                    let most = amount.min(self.ends[at].room()).min(PIECE).min(self.to_send[at].len());
                    if most > 0 {
                        let bytes: Vec<u8> = self.to_send[at].drain(..most).collect();
                        let frame = self.ends[at].send(bytes.into());
                        self.under_way[1 - at].push_back(frame);
                    }
                }
                1 => {
                    if let Some(frame) = self.under_way[at].pop_front() {
                        let bytes = self.ends[at].receive(&frame).expect("the rules are kept");
                        self.pending[at] += bytes.len();
                        self.got[at].extend_from_slice(&bytes);
                    }
                }
                2 => {
                    let n = amount.min(self.pending[at]);
                    self.pending[at] -= n;
                    let ack = self.ends[at].consume(n);
                    self.under_way[1 - at].extend(ack);
                }
                3 => {
                    if self.to_send[at].is_empty() {
                        let end = self.ends[at].close();
                        self.under_way[1 - at].extend(end);
                    }
                }
                _ => {
                    self.under_way = Default::default();
                    for at in [0, 1] {
                        let frames = self.ends[at].again();
                        self.under_way[1 - at].extend(frames);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_byte_comes_once_whatever_breaks(
            lengths in prop::array::uniform2(0usize..400_000),
            steps in prop::collection::vec((0u8..9, 0usize..60_000), 0..200),
        ) {
            let content = lengths.map(|length| (0..length).map(|i| (i / 7 % 251) as u8).collect::<Vec<u8>>());
            let mut pair = Pair {
                ends: [Relayed::open(1, OPENED), Relayed::accept(1)],
                under_way: Default::default(),
                to_send: content.clone(),
                got: Default::default(),
                pending: [0; 2],
            };
            pair.step(8, 0);
            for (choice, amount) in steps {
                pair.step(choice, amount);
            }
            for _ in 0..200 {
                for choice in 0..8 {
                    pair.step(choice, 60_000);
                }
            }
            prop_assert_eq!(&pair.got[0], &content[1]);
            prop_assert_eq!(&pair.got[1], &content[0]);
            prop_assert!(pair.ends.iter().all(Relayed::is_over));
            prop_assert!(pair.ends.iter().all(|end| end.kept.is_empty()));
        }
    }
}

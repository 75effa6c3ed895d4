//! What a process writes: a pipe's bytes on their way to the master.
//!
//! Invariant: at most a window of bytes is kept, here or in the stream's ring, each until it is acknowledged, so that a new
//! connection goes on where the master has taken the last one.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::frame::{Data, MAX_DATA, Placed};
use ghost_proto::stream::{BadAck, Sender};

/// Pieces up to this size are put together, so that a program that writes single bytes costs no more memory than any.
const SMALL: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Descriptor is no stream.
    Absent,
    Open,
    /// All that will come has come.
    Over,
    /// The reader has gone: nothing is sent any more.
    Closed,
}

/// Bytes that are not acknowledged.
#[derive(Debug)]
enum Kept {
    Here(Bytes),
    /// So many, in the ring, where their offsets say.
    Placed(usize),
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Kept::Here(bytes) => bytes.len(),
            Kept::Placed(length) => *length,
        }
    }
}

/// What is to be sent of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Data),
    Placed(Placed),
}

/// One output stream of a process.
#[derive(Debug)]
pub struct Output {
    id: u64,
    fd: u8,
    sender: Sender,
    window: u32,
    kept: VecDeque<Kept>,
    state: State,
}

impl Output {
    pub fn new(id: u64, fd: u8, window: Option<u32>) -> Output {
        let state = if window.is_some() { State::Open } else { State::Absent };
        let window = window.unwrap_or(0);
        Output { id, fd, sender: Sender::new(window), window, kept: VecDeque::new(), state }
    }

    /// Bytes that may be read from the pipe now.
    pub fn room(&self) -> usize {
        if self.state == State::Open { self.sender.room().min(MAX_DATA) } else { 0 }
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The reader has gone: nothing that was kept will be asked for.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Most bytes beyond the acknowledged offset.
    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// Where the next byte belongs in the stream.
    pub fn offset(&self) -> u64 {
        self.sender.sent()
    }

    /// Takes what was read; gives the frame to send. At most [`Output::room`] bytes.
    pub fn read(&mut self, bytes: Bytes) -> Data {
        let offset = self.sender.send(bytes.len());
        match self.kept.back_mut() {
            Some(Kept::Here(last)) if last.len() + bytes.len() <= SMALL => {
                let mut joined = BytesMut::with_capacity(SMALL);
                joined.extend_from_slice(last);
                joined.extend_from_slice(&bytes);
                *last = joined.freeze();
            }
            _ => self.kept.push_back(Kept::Here(bytes.clone())),
        }
        self.frame(offset, bytes, false)
    }

    /// Takes note of bytes that were read into the ring, at [`Output::offset`]; gives the frame to send. At most
    /// [`Output::room`] bytes.
    pub fn placed(&mut self, length: usize) -> Placed {
        let offset = self.sender.send(length);
        match self.kept.back_mut() {
            Some(Kept::Placed(last)) => *last += length,
            _ => self.kept.push_back(Kept::Placed(length)),
        }
        self.place(offset, length)
    }

    /// No more will come; gives the frame that says so, once.
    pub fn end(&mut self) -> Option<Data> {
        (self.state == State::Open).then(|| {
            self.state = State::Over;
            self.frame(self.sender.sent(), Bytes::new(), true)
        })
    }

    /// Takes an acknowledgement.
    ///
    /// # Errors
    /// Of bytes that were never sent.
    pub fn ack(&mut self, offset: u64) -> Result<(), BadAck> {
        let mut freed = self.sender.ack(offset)?;
        while let Some(first) = self.kept.front_mut() {
            if first.len() > freed {
                match first {
                    Kept::Here(bytes) => bytes.advance(freed),
                    Kept::Placed(length) => *length -= freed,
                }
                break;
            }
            freed -= first.len();
            self.kept.pop_front();
        }
        Ok(())
    }

    /// The reader has gone.
    pub fn close(&mut self) {
        if self.state != State::Absent {
            self.state = State::Closed;
            self.kept.clear();
        }
    }

    /// What a new connection has to be sent: all from the acknowledged offset.
    pub fn resend(&self) -> Vec<Piece> {
        let mut offset = self.sender.acked();
        let mut pieces = Vec::new();
        if self.state == State::Absent || self.state == State::Closed {
            return pieces;
        }
        for kept in &self.kept {
            match kept {
                Kept::Here(bytes) => pieces.push(Piece::Data(self.frame(offset, bytes.clone(), false))),
                Kept::Placed(length) => {
                    let starts = (0..*length).step_by(MAX_DATA);
                    pieces.extend(
                        starts.map(|at| Piece::Placed(self.place(offset + at as u64, (length - at).min(MAX_DATA)))),
                    );
                }
            }
            offset += kept.len() as u64;
        }
        if self.state == State::Over {
            pieces.push(Piece::Data(self.frame(offset, Bytes::new(), true)));
        }
        pieces
    }

    fn place(&self, offset: u64, length: usize) -> Placed {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Placed { id: self.id, offset, length, fd: self.fd, ..Placed::default() }
    }

    fn frame(&self, offset: u64, bytes: Bytes, eof: bool) -> Data {
        Data { id: self.id, offset, fd: self.fd, eof, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Reads, acknowledgements and reconnects in any order: what a receiver puts together is what was read.
        #[test]
        fn a_receiver_gets_every_byte(window in 1u32..9000, steps in prop::collection::vec((1usize..6000, 0u64..9000, any::<bool>(), any::<bool>()), 1..60)) {
            let mut output = Output::new(9, 1, Some(window));
            let (mut source, mut got) = (Vec::new(), Vec::new());
            let mut ring = vec![0u8; window as usize];
            let take = |piece: Piece, ring: &[u8], got: &mut Vec<u8>| {
                let frame = match piece {
                    Piece::Data(data) => data,
                    Piece::Placed(placed) => {
                        let at = |i| ring[((placed.offset + i) % ring.len() as u64) as usize];
                        let bytes: Vec<u8> = (0..u64::from(placed.length)).map(at).collect();
                        Data { id: 9, offset: placed.offset, fd: 1, eof: false, bytes: bytes.into() }
                    }
                };
                assert!(frame.offset as usize <= got.len(), "a gap");
                let old = (got.len() - frame.offset as usize).min(frame.bytes.len());
                got.extend_from_slice(&frame.bytes[old..]);
                frame.eof
            };
            for (read, ack, reconnect, placed) in steps {
                let n = read.min(output.room());
                if n > 0 {
                    let bytes: Vec<u8> = (0..n).map(|i| (source.len() + i) as u8).collect();
                    source.extend_from_slice(&bytes);
                    let piece = if placed {
                        for (at, byte) in (output.offset()..).zip(&bytes) {
                            ring[(at % u64::from(window)) as usize] = *byte;
                        }
                        Piece::Placed(output.placed(n))
                    } else {
                        Piece::Data(output.read(bytes.into()))
                    };
                    take(piece, &ring, &mut got);
                }
                output.ack(ack.min(got.len() as u64)).unwrap();
                let kept: usize = output.kept.iter().map(Kept::len).sum();
                prop_assert!(kept <= window as usize);
                prop_assert_eq!(kept as u64, output.sender.sent() - output.sender.acked());
                if reconnect {
                    for piece in output.resend() {
                        take(piece, &ring, &mut got);
                    }
                }
            }
            prop_assert!(take(Piece::Data(output.end().unwrap()), &ring, &mut got));
            prop_assert!(output.end().is_none());
            prop_assert_eq!(source, got);
        }
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_is_refused() {
        let mut output = Output::new(1, 1, Some(10));
        output.read(Bytes::from_static(b"abc"));
        assert!(output.ack(4).is_err());
        output.close();
        assert_eq!(output.room(), 0);
        assert!(output.resend().is_empty());
        assert!(output.end().is_none());
    }
}

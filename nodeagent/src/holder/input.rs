//! What a process reads: the master's bytes on their way into a pipe.
//!
//! Invariant: at most a window of bytes waits here. A byte that came twice is taken once.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::frame::{Data, Placed};
use ghost_proto::stream::{BadData, Receiver};
use ghost_sys::ring::{Gather, RingReader};

/// Pieces below this size are copied: a slice would keep the whole block alive in which it arrived.
const SMALL: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nobody reads, it is no stream, or all was written: what comes is thrown away.
    Closed,
}

/// Bytes that the pipe has not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    Here(Bytes),
    /// So many, in the ring, where their offsets say.
    Placed(usize),
}

impl Waiting {
    pub fn length(&self) -> usize {
        match self {
            Waiting::Here(bytes) => bytes.len(),
            Waiting::Placed(length) => *length,
        }
    }

    /// Those that are here.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Waiting::Here(bytes) => bytes,
            Waiting::Placed(_) => &[],
        }
    }
}

/// The standard input of a process.
#[derive(Debug)]
pub struct Input {
    receiver: Receiver,
    /// One behind the other, from the receiver's consumed offset on; none is empty.
    queue: VecDeque<Waiting>,
    eof: bool,
    state: State,
}

impl Input {
    pub fn new(window: Option<u32>) -> Input {
        let state = if window.is_some() { State::Open } else { State::Closed };
        Input { receiver: Receiver::new(window.unwrap_or(0)), queue: VecDeque::new(), eof: false, state }
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Takes a piece that arrived.
    ///
    /// # Errors
    /// It leaves a gap or exceeds the window.
    pub fn receive(&mut self, data: Data) -> Result<(), BadData> {
        if self.state == State::Closed {
            return Ok(());
        }
        let old = self.receiver.receive(data.offset, data.bytes.len())?;
        let mut bytes = data.bytes;
        bytes.advance(old);
        if !bytes.is_empty() {
            let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
            self.queue.push_back(Waiting::Here(bytes));
        }
        self.eof |= data.eof;
        Ok(())
    }

    /// Takes a piece that lies in the ring.
    ///
    /// # Errors
    /// It leaves a gap or exceeds the window.
    pub fn place(&mut self, placed: &Placed) -> Result<(), BadData> {
        if self.state == State::Closed {
            return Ok(());
        }
        let length = placed.length as usize;
        let new = length - self.receiver.receive(placed.offset, length)?;
        match self.queue.back_mut() {
            Some(Waiting::Placed(last)) => *last += new,
            _ if new > 0 => self.queue.push_back(Waiting::Placed(new)),
            _ => {}
        }
        self.eof |= placed.eof;
        Ok(())
    }

    /// Most bytes that may wait.
    pub fn window(&self) -> usize {
        self.receiver.window() as usize
    }

    /// What is to be written, in order.
    pub fn pieces(&self) -> &VecDeque<Waiting> {
        &self.queue
    }

    /// The same, as much as goes with one call. Without its ring nothing that lies there goes, nor what is behind it.
    pub fn gather<'a>(&'a self, ring: Option<&'a RingReader>) -> Gather<'a> {
        let (mut gather, mut offset) = (Gather::default(), self.receiver.consumed());
        for piece in &self.queue {
            match (piece, ring) {
                (Waiting::Here(bytes), _) if !gather.is_full() => gather.bytes(bytes),
                (Waiting::Placed(length), Some(ring)) if !gather.is_full() => gather.ring(ring, offset, *length),
                _ => break,
            }
            offset += piece.length() as u64;
        }
        gather
    }

    /// The pipe has taken `n` bytes; gives the offset to acknowledge, if it is time: a quarter of the window, or all there will be.
    pub fn written(&mut self, mut n: usize) -> Option<u64> {
        self.receiver.consume(n);
        while let Some(first) = self.queue.front_mut() {
            if first.length() > n {
                match first {
                    Waiting::Here(bytes) => bytes.advance(n),
                    Waiting::Placed(length) => *length -= n,
                }
                break;
            }
            n -= first.length();
            self.queue.pop_front();
        }
        self.receiver.ack_due(self.eof && self.queue.is_empty())
    }

    /// The ring is given up: what lies there is kept here.
    pub fn take_out(&mut self, ring: &RingReader) {
        let mut offset = self.receiver.consumed();
        for piece in &mut self.queue {
            let length = piece.length();
            if matches!(piece, Waiting::Placed(_)) {
                let mut bytes = BytesMut::with_capacity(length);
                ring.copy_out(offset, length, &mut bytes);
                *piece = Waiting::Here(bytes.freeze());
            }
            offset += length as u64;
        }
    }

    /// All was written, and no more will come.
    pub fn finished(&self) -> bool {
        self.state == State::Open && self.eof && self.queue.is_empty()
    }

    /// Up to where the pipe has taken it.
    pub fn consumed(&self) -> u64 {
        self.receiver.consumed()
    }

    /// Nothing is written any more.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_sys::ring::RingWriter;

    fn data(offset: u64, bytes: &'static [u8], eof: bool) -> Data {
        Data { id: 1, offset, fd: 0, eof, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn repeated_bytes_are_written_once_and_acknowledged_when_taken() {
        let mut input = Input::new(Some(8));
        input.receive(data(0, b"abcd", false)).expect("fits");
        input.receive(data(2, b"cdef", true)).expect("fits");
        assert_eq!(input.pieces().iter().map(Waiting::bytes).collect::<Vec<_>>().concat(), b"abcdef");
        assert_eq!(input.written(1), None, "less than a quarter of the window");
        assert_eq!(input.written(4), Some(5));
        assert!(!input.finished());
        assert_eq!(input.written(1), Some(6));
        assert!(input.finished());
    }

    #[test]
    fn what_lies_in_the_ring_is_written_from_there() {
        let (writer, fd) = RingWriter::new(8).expect("ring");
        let ring = RingReader::open(&fd).expect("its other end");
        let mut input = Input::new(Some(8));
        let placed = |offset, length, eof| Placed { id: 1, offset, length, eof, ..Placed::default() };
        input.receive(data(0, b"ab", false)).expect("fits");
        writer.put(2, b"cdef");
        input.place(&placed(2, 3, false)).expect("fits");
        // The second half is new.
        input.place(&placed(4, 2, false)).expect("fits");
        assert_eq!(*input.pieces(), [Waiting::Here(Bytes::from_static(b"ab")), Waiting::Placed(4)]);
        let (mut reader, pipe) = std::io::pipe().expect("pipe");
        assert_eq!(input.gather(None).write(&pipe).expect("write"), 2, "not without the ring");
        input.written(2);
        assert_eq!(input.gather(Some(&ring)).write(&pipe).expect("write"), 4);
        assert_eq!(input.written(3), Some(5));
        // Around its end, and a piece that is not in it; then there is no ring any more.
        writer.put(6, b"ghij");
        input.place(&placed(6, 4, false)).expect("fits");
        assert!(input.place(&placed(10, 4, false)).is_err(), "beyond the window");
        input.receive(data(10, b"k", true)).expect("fits");
        input.take_out(&ring);
        writer.put(5, b"????????");
        assert_eq!(input.gather(None).write(&pipe).expect("write"), 6, "the last of them again");
        assert_eq!(input.written(6), Some(11));
        assert!(input.finished());
        drop(pipe);
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut read).expect("read");
        assert_eq!(read, b"abcdeffghijk");
    }

    #[test]
    fn beyond_the_window_and_gaps_are_refused_until_nobody_reads() {
        let mut input = Input::new(Some(4));
        assert!(input.receive(data(0, b"abcde", false)).is_err());
        assert!(input.receive(data(1, b"a", false)).is_err());
        input.close();
        assert!(input.receive(data(1, b"a", false)).is_ok());
        assert!(input.pieces().is_empty());
    }
}

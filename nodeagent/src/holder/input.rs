//! What a process reads: the master's bytes on their way into a pipe.
//!
//! Invariant: at most a window of bytes waits here. A byte that came twice is taken once.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use ghost_proto::frame::Data;
use ghost_proto::stream::{BadData, Receiver};

/// Pieces below this size are copied: a slice would keep the whole block alive in which it arrived.
const SMALL: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nobody reads, it is no stream, or all was written: what comes is thrown away.
    Closed,
}

/// The standard input of a process.
#[derive(Debug)]
pub struct Input {
    receiver: Receiver,
    queue: VecDeque<Bytes>,
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
            self.queue.push_back(if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes });
        }
        self.eof |= data.eof;
        Ok(())
    }

    /// What is to be written, in order.
    pub fn pieces(&self) -> &VecDeque<Bytes> {
        &self.queue
    }

    /// The pipe has taken `n` bytes; gives the offset to acknowledge, if it is time: a quarter of the window, or all there will be.
    pub fn written(&mut self, mut n: usize) -> Option<u64> {
        self.receiver.consume(n);
        while let Some(first) = self.queue.front_mut() {
            if first.len() > n {
                first.advance(n);
                break;
            }
            n -= first.len();
            self.queue.pop_front();
        }
        self.receiver.ack_due(self.eof && self.queue.is_empty())
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

    fn data(offset: u64, bytes: &'static [u8], eof: bool) -> Data {
        Data { id: 1, offset, fd: 0, eof, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn repeated_bytes_are_written_once_and_acknowledged_when_taken() {
        let mut input = Input::new(Some(8));
        input.receive(data(0, b"abcd", false)).expect("fits");
        input.receive(data(2, b"cdef", true)).expect("fits");
        assert_eq!(input.pieces().iter().flatten().copied().collect::<Vec<u8>>(), b"abcdef");
        assert_eq!(input.written(1), None, "less than a quarter of the window");
        assert_eq!(input.written(4), Some(5));
        assert!(!input.finished());
        assert_eq!(input.written(1), Some(6));
        assert!(input.finished());
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

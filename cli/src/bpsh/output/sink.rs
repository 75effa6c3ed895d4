//! One of bpsh's two outputs: a queue of pieces, written as far as goes without waiting.
//!
//! The descriptor is shared with other programs, so O_NONBLOCK is not ours to set. Files are written at once; pipes and
//! sockets are asked not to wait (RWF_NOWAIT); for what cannot be asked (terminals) poll(2) announces room and little enough
//! is written to fit into it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use ghost_sys::ring::Gather;
use nix::sys::stat::{SFlag, fstat};

use super::layout::{Credit, Piece};

/// Bytes that are written to a terminal after poll(2) has announced room.
const POLLED_PIECE: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    File,
    Nowait,
    Polled,
}

/// What a descriptor is written through.
#[derive(Debug)]
pub struct Sink<F> {
    fd: F,
    kind: Kind,
    queue: VecDeque<Piece>,
    queued: usize,
    /// Poll before writing on.
    blocked: bool,
    broken: bool,
    /// Why it broke, until somebody asks.
    error: Option<io::Error>,
}

impl<F: AsFd> Sink<F> {
    pub fn new(fd: F) -> Sink<F> {
        let kind = match fstat(&fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT) {
            Ok(SFlag::S_IFREG | SFlag::S_IFBLK) => Kind::File,
            _ => Kind::Nowait,
        };
        Sink { fd, kind, queue: VecDeque::new(), queued: 0, blocked: false, broken: false, error: None }
    }

    pub fn push(&mut self, piece: Piece) {
        self.queued += piece.content.len();
        self.queue.push_back(piece);
    }

    /// Bytes that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether poll(2) is to tell when there is room.
    pub fn wants_room(&self) -> bool {
        self.blocked && !self.queue.is_empty()
    }

    /// poll(2) has something to tell about the descriptor.
    pub fn room(&mut self) {
        self.blocked = false;
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Why the descriptor broke (EPIPE, EIO, ENOSPC …): told once.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Writes what goes without waiting and notes whose bytes went. Once the descriptor is broken, everything goes nowhere.
    pub fn write(&mut self, done: &mut Vec<Credit>) {
        while !self.queue.is_empty() && !self.blocked {
            if self.broken {
                self.written(self.queued, done);
                return;
            }
            match self.write_once() {
                Ok(n) => self.written(n, done),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if self.kind == Kind::Nowait && error.kind() == io::ErrorKind::Unsupported => {
                    self.kind = Kind::Polled;
                    self.blocked = true;
                }
                Err(error) => {
                    self.broken = true;
                    self.error = Some(error);
                }
            }
        }
    }

    fn write_once(&mut self) -> io::Result<usize> {
        if self.queued == 0 {
            return Ok(0);
        }
        let mut gather = Gather::default();
        if self.kind == Kind::Polled {
            if let Some(piece) = self.queue.iter().find(|piece| !piece.content.is_empty()) {
                piece.content.gather(POLLED_PIECE, &mut gather);
            }
            let result = gather.write(&self.fd)?;
            self.blocked = true;
            return Ok(result);
        }
        for piece in &self.queue {
            if gather.is_full() {
                break;
            }
            piece.content.gather(usize::MAX, &mut gather);
        }
        match self.kind {
            Kind::File => gather.write(&self.fd),
            Kind::Nowait | Kind::Polled => gather.write_nowait(&self.fd),
        }
    }

    /// Takes `n` written bytes, and the empty pieces that then lie in front, off the queue.
    fn written(&mut self, mut n: usize, done: &mut Vec<Credit>) {
        self.queued -= n;
        while let Some(piece) = self.queue.front_mut() {
            let step = n.min(piece.content.len());
            piece.content.advance(step);
            n -= step;
            if !piece.content.is_empty() {
                return;
            }
            done.extend(piece.credit);
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::io::Read;
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, poll};

    fn piece(bytes: Vec<u8>) -> Piece {
        let credit = Some(Credit { rank: 0, channel: 0, bytes: bytes.len() });
        Piece { channel: 0, content: Bytes::from(bytes).into(), credit }
    }

    #[test]
    fn a_slow_reader_of_a_pipe_gets_everything_and_nobody_waits() {
        let (mut reader, writer) = io::pipe().expect("pipe");
        let mut sink = Sink::new(writer);
        let expected: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        for chunk in expected.chunks(100_000) {
            sink.push(piece(chunk.to_vec()));
            sink.push(piece(Vec::new()));
        }
        let (mut got, mut done) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 30_000];
        while got.len() < expected.len() {
            sink.write(&mut done);
            let n = reader.read(&mut buffer).expect("read");
            got.extend_from_slice(&buffer[..n]);
            sink.room();
        }
        assert_eq!(got, expected);
        sink.write(&mut done);
        assert!(sink.is_empty() && sink.queued() == 0);
        assert_eq!(done.iter().map(|credit| credit.bytes).sum::<usize>(), expected.len());
    }

    #[test]
    fn a_broken_pipe_is_told_once_and_then_swallows() {
        let (reader, writer) = io::pipe().expect("pipe");
        drop(reader);
        // What another test forks just now has the reading end, too, until its exec.
        assert_eq!(poll(&mut [PollFd::new(writer.as_fd(), PollFlags::empty())], 10_000u16), Ok(1));
        let (mut sink, mut done) = (Sink::new(writer), Vec::new());
        sink.push(piece(vec![1; 10]));
        sink.write(&mut done);
        assert_eq!(sink.take_error().map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
        sink.push(piece(vec![1; 10]));
        sink.write(&mut done);
        assert_eq!((sink.is_empty(), done.len(), sink.take_error().is_none()), (true, 2, true));
    }

    #[test]
    fn a_terminal_is_written_in_small_pieces() {
        let pty = nix::pty::openpty(None, None).expect("pty");
        let (mut sink, mut done) = (Sink::new(pty.slave), Vec::new());
        sink.push(piece(vec![b'x'; 3000]));
        let (mut got, mut buffer) = (0, vec![0; 5000]);
        while got < 3000 {
            sink.write(&mut done);
            if sink.wants_room() {
                sink.room();
            }
            sink.write(&mut done);
            got += nix::unistd::read(&pty.master, &mut buffer).expect("read");
        }
        assert_eq!(got, 3000);
        assert_eq!(sink.kind, Kind::Polled);
    }
}

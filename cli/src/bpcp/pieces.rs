//! Memory for what is read from files, which a pipe may refer to instead of having a copy of it.
//!
//! ```text
//! in the pipe, oldest first     being read      being filled
//! |..## page ##|#### 64 pages ####|####|####|   | piece |
//! ```
//! Invariant: a piece is written again only when the pipe refers to it no more. A place of a pipe refers to a page at most
//! (fs/splice.c, `iter_to_pipe()`), so a pipe of [`PIPE`] bytes refers to no more whole pieces than it has bytes for, and to one in
//! part: as many, and one to be filled, take turns. What is no whole piece is not lent.

use super::archive::MAX_DATA;
use super::launch::PIPE;

const PAGE: usize = 4096;
const PIECES: usize = PIPE / MAX_DATA + 2;

/// Pieces of [`MAX_DATA`] bytes that take turns.
pub struct Pieces {
    memory: Vec<u8>,
    /// Where the first one begins, at a page.
    begin: usize,
    turn: usize,
}

impl Pieces {
    pub fn new() -> Pieces {
        let memory = vec![0; PIECES * MAX_DATA + PAGE];
        let begin = memory.as_ptr().align_offset(PAGE);
        Pieces { memory, begin, turn: 0 }
    }

    /// The piece to be filled.
    pub fn room(&mut self) -> &mut [u8] {
        let at = self.begin + self.turn * MAX_DATA;
        &mut self.memory[at..at + MAX_DATA]
    }

    /// The first `n` bytes of that piece; the next one's turn comes when it is whole.
    pub fn filled(&mut self, n: usize) -> &[u8] {
        let at = self.begin + self.turn * MAX_DATA;
        if n == MAX_DATA {
            self.turn = (self.turn + 1) % PIECES;
        }
        &self.memory[at..at + n]
    }
}

#[cfg(test)]
mod tests {
    use super::super::launch::{lend_both, wait, widen};
    use super::*;
    use nix::poll::{PollFd, PollFlags};
    use std::io::Read;
    use std::os::fd::AsFd;

    /// Numbers that repeat with a period that divides no piece.
    fn fill(room: &mut [u8], from: u64) {
        room.iter_mut().zip(from..).for_each(|(byte, at)| *byte = (at % 251) as u8);
    }

    #[test]
    fn what_is_read_is_what_was_lent_however_late() {
        for step in [511, 4096, 70_000, MAX_DATA - 1, PIPE] {
            let (mut reader, mut writer) = std::io::pipe().expect("pipe");
            widen(&writer);
            let lengths: Vec<usize> =
                (0..40).map(|at| if at % 7 == 3 { MAX_DATA - 1 - at } else { MAX_DATA }).collect();
            let total: usize = lengths.iter().sum();
            let sent = std::thread::spawn(move || {
                let (mut pieces, mut offset) = (Pieces::new(), 0);
                for length in lengths {
                    fill(&mut pieces.room()[..length], offset);
                    let bytes = pieces.filled(length);
                    let room = |pipe: &std::io::PipeWriter| wait(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)]);
                    lend_both(&mut writer, &[], bytes, room).expect("lend");
                    offset += length as u64;
                }
            });
            let (mut got, mut read) = (0, vec![0; step]);
            loop {
                let n = reader.read(&mut read).expect("read");
                if n == 0 {
                    break;
                }
                let expected = |at: usize| ((got + at) % 251) as u8;
                assert!(read[..n].iter().enumerate().all(|(at, byte)| *byte == expected(at)), "at {got}");
                got += n;
                // The writer fills the pipe to the brim now and then.
                if got % 5 == 0 {
                    std::thread::yield_now();
                }
            }
            assert_eq!(got, total);
            sent.join().expect("the writer");
        }
    }

    #[test]
    fn where_there_is_no_pipe_it_is_written() {
        let mut file = tempfile::tempfile().expect("file");
        let mut pieces = Pieces::new();
        fill(pieces.room(), 7);
        lend_both(&mut file, b"head", pieces.filled(MAX_DATA), |_| panic!("a file")).expect("write");
        assert_eq!(file.metadata().expect("stat").len(), 4 + MAX_DATA as u64);
        assert!(ghost_sys::pipe::lend(&file.as_fd(), b"x").is_err(), "no pipe");
    }
}

//! Standard input: read once, sent to every rank, at the pace of the slowest that still reads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use bytes::{Bytes, BytesMut};
use ghost_proto::frame::MAX_DATA;
use ghost_sys::ring::RingWriter;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use crate::rope::Rope;

/// How far each rank has come with the input, and how much more may be sent. Pure: reads nothing itself.
#[derive(Clone, Debug)]
pub struct Broadcast {
    sent: u64,
    window: u64,
    /// What each rank has taken; `None` once it reads no more.
    taken: Vec<Option<u64>>,
    ended: bool,
    /// What some reader has not taken yet, up to what was sent or is kept elsewhere: at most a window. It is sent again to a ghostd that
    /// was started anew.
    kept: Rope,
    /// From here on it lies in a ring.
    placed_from: Option<u64>,
}

impl Broadcast {
    /// For this many ranks, all of them reading.
    pub fn new(ranks: usize, window: u32) -> Broadcast {
        Broadcast {
            sent: 0,
            window: u64::from(window),
            taken: vec![Some(0); ranks],
            ended: false,
            kept: Rope::default(),
            placed_from: None,
        }
    }

    /// What goes out from now on is kept elsewhere, as long as not all have taken it.
    pub fn place(&mut self) {
        self.placed_from = Some(self.sent);
    }

    /// What is to be kept there.
    pub fn placed(&self) -> Range<u64> {
        self.placed_from.map_or(self.sent, |from| from.max(self.floor()))..self.sent
    }

    /// Up to where all that still read have taken it.
    fn floor(&self) -> u64 {
        self.taken.iter().flatten().min().copied().unwrap_or(self.sent)
    }

    /// A rank has taken everything below `offset`. Nonsense from the other side can only slow it down.
    pub fn acknowledge(&mut self, rank: usize, offset: u64) {
        if let Some(Some(taken)) = self.taken.get_mut(rank) {
            *taken = offset.min(self.sent).max(*taken);
        }
        self.drop_taken();
    }

    /// A rank reads no more: nobody waits for it.
    pub fn leave(&mut self, rank: usize) {
        if let Some(taken) = self.taken.get_mut(rank) {
            *taken = None;
        }
        self.drop_taken();
    }

    /// Takes note of what goes out.
    pub fn keep(&mut self, bytes: Bytes) {
        self.kept.push(bytes);
        self.drop_taken();
    }

    fn drop_taken(&mut self) {
        let end = self.placed_from.unwrap_or(self.sent);
        let wanted = usize::try_from(end.saturating_sub(self.floor())).unwrap_or(usize::MAX);
        let old = self.kept.len().saturating_sub(wanted);
        self.kept.advance(old);
    }

    /// What is kept here, in pieces that a frame can take; with the offset of the first byte that is kept at all.
    pub fn kept(&mut self) -> (u64, Vec<Bytes>) {
        let from = self.placed().start - self.kept.len() as u64;
        (from, self.kept.chunks(MAX_DATA))
    }

    /// Bytes that may be on their way.
    pub fn window(&self) -> usize {
        usize::try_from(self.window).unwrap_or(usize::MAX)
    }

    /// How much went out.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How much a rank has taken, if it still reads.
    pub fn taken(&self, rank: usize) -> Option<u64> {
        self.taken.get(rank).copied().flatten()
    }

    /// Where the input has come to its end.
    pub fn ended(&self) -> Option<u64> {
        self.ended.then_some(self.sent)
    }

    /// Bytes that may be sent now. `None`: there is no more to do, because it has ended or nobody reads.
    pub fn room(&self) -> Option<usize> {
        if self.ended {
            return None;
        }
        let slowest = self.taken.iter().flatten().min()?;
        usize::try_from((slowest + self.window).saturating_sub(self.sent)).ok()
    }

    /// Takes note that `n` bytes go out; gives the offset of the first.
    pub fn send(&mut self, n: usize) -> u64 {
        let offset = self.sent;
        self.sent += n as u64;
        offset
    }

    /// The end of the input goes out.
    pub fn end(&mut self) -> u64 {
        self.ended = true;
        self.sent
    }
}

/// Where input is read to.
#[derive(Debug)]
pub enum Place<'a> {
    /// Behind what is there.
    Buffer(&'a mut BytesMut),
    /// To a stream's offset.
    Ring(&'a RingWriter, u64),
}

impl Place<'_> {
    fn read(&mut self, fd: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        match self {
            Place::Buffer(buffer) => ghost_sys::pipe::read_buf(&fd, *buffer, most),
            Place::Ring(ring, offset) => ring.read_from(&fd, *offset, most),
        }
    }

    fn read_nowait(&mut self, fd: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        match self {
            Place::Buffer(buffer) => ghost_sys::nowait::read_buf(&fd, *buffer, most),
            Place::Ring(ring, offset) => ring.read_from_nowait(&fd, *offset, most),
        }
    }
}

/// What can be had from standard input.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    /// Poll before trying again.
    Nothing,
    End,
}

/// How standard input is read so that it never makes bpsh wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A file, a disk: read at once, always ready.
    File,
    /// A pipe or socket.
    Nowait,
    /// What cannot be asked not to wait: read after poll(2) says so.
    Polled,
    /// A terminal: the same, and only while we are in its foreground.
    Terminal,
}

/// Standard input of this process.
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    /// The terminal, opened anew so that it can be read without waiting: what poll(2) has announced a key (Ctrl-C) may take away
    /// again (drivers/tty/n_tty.c, `isig()`), and whoever else has this terminal open is not to find it changed.
    terminal: Option<File>,
}

impl Source {
    pub fn new() -> Source {
        let input = io::stdin();
        let kind = match fstat(input.as_fd()).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT) {
            Ok(SFlag::S_IFREG | SFlag::S_IFBLK) => Kind::File,
            Ok(SFlag::S_IFIFO | SFlag::S_IFSOCK) => Kind::Nowait,
            _ if nix::unistd::isatty(input.as_fd()).unwrap_or(false) => Kind::Terminal,
            _ => Kind::Polled,
        };
        let terminal = if kind == Kind::Terminal { open_anew() } else { None };
        Source { kind, terminal }
    }

    /// Whether it may be read now: a terminal in whose background we are gives SIGTTIN or EIO instead (tty(4),
    /// drivers/tty/tty_jobctrl.c `__tty_check_change`). A terminal that is not our session's has no such rule.
    pub fn allowed(&self) -> bool {
        self.kind != Kind::Terminal
            || nix::unistd::tcgetpgrp(io::stdin().as_fd()).map_or(true, |group| group == nix::unistd::getpgrp())
    }

    /// Whether [`Source::read`] is to be tried without poll(2).
    pub fn always_ready(&self) -> bool {
        self.kind == Kind::File
    }

    /// Takes what is there, `most` bytes at most; `ready` says that poll(2) has announced something.
    pub fn read(&mut self, mut place: Place<'_>, most: usize, ready: bool) -> Read {
        let input = io::stdin();
        let fd: BorrowedFd<'_> = input.as_fd();
        let result = match self.kind {
            Kind::Nowait => match place.read_nowait(fd, most) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.kind = Kind::Polled;
                    return Read::Nothing;
                }
                result => result,
            },
            Kind::File => place.read(fd, most),
            Kind::Polled | Kind::Terminal if !ready => return Read::Nothing,
            Kind::Polled | Kind::Terminal => {
                let fd = self.terminal.as_ref().map_or(fd, AsFd::as_fd);
                place.read(fd, most)
            }
        };
        match result {
            Ok(0) => Read::End,
            Ok(n) => Read::Bytes(n),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Read::Nothing
            }
            // We fell into the background between the check and the read.
            Err(error)
                if self.kind == Kind::Terminal && error.raw_os_error() == Some(nix::libc::EIO) && !self.allowed() =>
            {
                Read::Nothing
            }
            // Not open for reading, hung up, a directory: a program would see the error, the nearest thing is the end.
            Err(_) => Read::End,
        }
    }
}

impl Default for Source {
    fn default() -> Source {
        Source::new()
    }
}

/// `None`: it is not our session's, or cannot be opened; then it is read as it is. (By way of `/proc/self` it cannot be: that of a program
/// with a capability is root's.)
fn open_anew() -> Option<File> {
    nix::unistd::tcgetpgrp(io::stdin().as_fd()).ok()?;
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    File::options().read(true).custom_flags(flags).open("/dev/tty").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_slowest_reader_sets_the_pace_until_it_leaves() {
        let mut broadcast = Broadcast::new(2, 10);
        assert_eq!(broadcast.room(), Some(10));
        assert_eq!(broadcast.send(10), 0);
        broadcast.acknowledge(0, 10);
        assert_eq!(broadcast.room(), Some(0));
        broadcast.acknowledge(1, 4);
        assert_eq!(broadcast.room(), Some(4));
        broadcast.leave(1);
        assert_eq!(broadcast.room(), Some(10));
        assert_eq!(broadcast.send(3), 10);
        assert_eq!(broadcast.end(), 13);
        assert_eq!(broadcast.room(), None);
    }

    fn kept(broadcast: &mut Broadcast) -> (u64, Vec<u8>) {
        let (from, pieces) = broadcast.kept();
        (from, pieces.concat())
    }

    #[test]
    fn what_the_slowest_has_not_taken_is_kept() {
        let mut broadcast = Broadcast::new(2, 10);
        broadcast.send(6);
        broadcast.keep(Bytes::from_static(b"abcdef"));
        broadcast.acknowledge(0, 5);
        assert_eq!(kept(&mut broadcast), (0, b"abcdef".to_vec()));
        broadcast.acknowledge(1, 2);
        assert_eq!(kept(&mut broadcast), (2, b"cdef".to_vec()));
        broadcast.leave(1);
        assert_eq!(kept(&mut broadcast), (5, b"f".to_vec()));
        broadcast.leave(0);
        assert_eq!(kept(&mut broadcast), (6, b"".to_vec()));
    }

    #[test]
    fn what_lies_in_a_ring_is_kept_there() {
        let mut broadcast = Broadcast::new(2, 10);
        broadcast.send(6);
        broadcast.keep(Bytes::from_static(b"abcdef"));
        assert_eq!(broadcast.placed(), 6..6);
        broadcast.place();
        broadcast.send(4);
        broadcast.acknowledge(0, 2);
        broadcast.acknowledge(1, 10);
        assert_eq!((kept(&mut broadcast), broadcast.placed()), ((2, b"cdef".to_vec()), 6..10));
        broadcast.acknowledge(0, 7);
        assert_eq!((kept(&mut broadcast), broadcast.placed()), ((7, b"".to_vec()), 7..10));
        broadcast.leave(0);
        assert_eq!((kept(&mut broadcast), broadcast.placed()), ((10, b"".to_vec()), 10..10));
    }

    #[test]
    fn without_readers_nothing_is_read() {
        let mut broadcast = Broadcast::new(1, 10);
        broadcast.leave(0);
        broadcast.leave(7);
        assert_eq!(broadcast.room(), None);
        assert_eq!(Broadcast::new(0, 10).room(), None);
    }

    proptest! {
        /// Whatever is acknowledged in whatever order, nobody is ever sent more than a window beyond what it has taken.
        #[test]
        fn nobody_is_flooded(window in 1u32..100, steps in prop::collection::vec((0usize..4, any::<u16>(), any::<bool>()), 0..200)) {
            let mut broadcast = Broadcast::new(3, window);
            let mut taken = [0u64; 3];
            for (rank, amount, leaves) in steps {
                if leaves && rank == 2 {
                    broadcast.leave(rank);
                    taken[rank] = u64::MAX;
                } else {
                    broadcast.acknowledge(rank, u64::from(amount));
                    if let Some(known) = taken.get_mut(rank) && *known != u64::MAX {
                        *known = u64::from(amount).min(broadcast.sent).max(*known);
                    }
                }
                if let Some(room) = broadcast.room() {
                    broadcast.send(room);
                }
                let slowest = taken.iter().min().copied().unwrap_or(0);
                prop_assert!(broadcast.sent <= slowest.saturating_add(u64::from(window)));
            }
        }
    }
}

//! The descriptors of one process: its own, and the pipes of its standard streams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use ghost_proto::frame::{DATA_HEADER, HEADER, MAX_DATA};
use ghost_proto::ids::ProcId;
use ghost_proto::terminal::Terminal;
use ghost_sys::pipe;
use ghost_sys::ring::{Budget, RingReader};
use ghost_sys::spawn::Starting;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown};

use super::connection::Connection;
use super::input::Input;
use super::rings::{InputRing, Ring};
use super::terminal::{self, Line};

/// What pipes are made to hold if the node allows it; more means fewer wake-ups.
const PIPE: i32 = 256 * 1024;
/// Most bytes that are read at once: with its head a frame then fills TLS records (16 KiB) to the last byte.
const PIECE: usize = MAX_DATA - HEADER - DATA_HEADER;
/// More than a terminal holds on its way to who reads it (drivers/tty/pty.c, `pty_common_install()`: 8 KiB, and n_tty's 4 KiB).
const TERMINAL: usize = 64 * 1024;
/// A piece of output of at least this size is passed on in the memory it was read into, a smaller one is copied out of it.
const WORTH_PASSING: usize = MAX_DATA / 2;

/// A pipe's end that is kept here, and whether epoll watches it.
#[derive(Debug)]
pub struct Pipe {
    pub fd: OwnedFd,
    pub watched: bool,
    /// Of an output whose process is dead: bytes that are still to be read.
    pub left: Option<usize>,
}

/// All that is open of one process.
#[derive(Debug)]
pub struct Handles {
    pub proc: ProcId,
    pub pidfd: OwnedFd,
    /// Until its program was executed, or could not be.
    pub starting: Option<Starting>,
    pub stdin: Option<Pipe>,
    pub outputs: [Option<Pipe>; 2],
    /// Of the outputs that have carried much.
    pub rings: [Option<Ring>; 2],
    /// Of an input that has carried much, since the agent has been here.
    pub input_ring: Option<InputRing>,
    /// Both streams are a terminal's.
    pub line: Option<Line>,
    /// The master has forgotten it; only the start is still to be seen through.
    pub released: bool,
}

impl Handles {
    /// Where the ring of an output (1 or 2) is kept.
    pub fn ring(&mut self, fd: u8) -> Option<&mut Option<Ring>> {
        self.rings.get_mut(usize::from(fd).checked_sub(1)?)
    }

    /// Nothing more of this output will be asked for: its ring goes, here and in the agent.
    pub fn give_up_ring(&mut self, fd: u8, agent: Option<&mut Connection>) {
        let proc = self.proc;
        if let Some(ring) = self.ring(fd).and_then(Option::take)
            && let Some(agent) = agent
        {
            agent.give_up(proc, fd, &ring);
        }
    }

    /// What an input that is worth it goes through from now on.
    pub fn share_input(&mut self, input: &Input, budget: &Budget, agent: &mut Connection) {
        // What a terminal is typed is looked at.
        if self.input_ring.is_none()
            && self.line.is_none()
            && agent.fills()
            && let Some((ring, descriptor)) = InputRing::new(input, budget)
        {
            agent.give_ring(self.proc, descriptor);
            self.input_ring = Some(ring);
        }
    }

    /// Nothing is written to its standard input any more.
    pub fn close_stdin(&mut self, agent: Option<&mut Connection>) {
        self.stdin = None;
        if self.input_ring.take().is_some()
            && let Some(agent) = agent
        {
            agent.last_of_ring(self.proc, 0);
        }
    }
}

/// Pipes for a new process: the ends kept here, and its own.
#[derive(Debug)]
pub struct Pipes {
    pub kept: [Option<Pipe>; 3],
    pub given: [Option<OwnedFd>; 3],
    /// What is all three.
    slave: Option<OwnedFd>,
}

impl Pipes {
    /// One for each stream. They belong to the user, who may open them anew by /dev/stdin, /dev/stdout or /proc/self/fd.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn new(streams: [bool; 3], uid: u32, gid: u32) -> io::Result<Pipes> {
        let mut pipes = Pipes { kept: [None, None, None], given: [None, None, None], slave: None };
        let ends = streams.into_iter().zip(pipes.kept.iter_mut().zip(&mut pipes.given)).enumerate();
        for (fd, (stream, (kept, given))) in ends {
            if !stream {
                continue;
            }
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            // Both ends are one inode.
            fchown(&reader, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE));
            let (ours, theirs) = if fd == 0 { (writer, reader) } else { (reader, writer) };
            // Each end is an open file of its own: the process's stays as programs expect it.
            fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            *kept = Some(Pipe { fd: ours, watched: false, left: None });
            *given = Some(theirs);
        }
        Ok(pipes)
    }

    /// The two sides of a new terminal.
    ///
    /// # Errors
    /// ENOENT, ENOSPC: there are no (more) terminals here. EMFILE, ENFILE.
    pub fn of_terminal(wanted: &Terminal, uid: u32) -> io::Result<Pipes> {
        let pair = terminal::make(wanted, uid)?;
        let screen = pair.master.try_clone()?;
        let [keyboard, screen] = [pair.master, screen].map(|fd| Some(Pipe { fd, watched: false, left: None }));
        Ok(Pipes { kept: [keyboard, screen, None], given: [None, None, None], slave: Some(pair.slave) })
    }

    /// The program's side of a terminal.
    pub fn slave(&self) -> Option<BorrowedFd<'_>> {
        self.slave.as_ref().map(AsFd::as_fd)
    }

    /// What becomes descriptor `fd`.
    pub fn child_end<'a>(&'a self, fd: usize, null: BorrowedFd<'a>) -> BorrowedFd<'a> {
        self.given.get(fd).and_then(Option::as_ref).or(self.slave.as_ref()).map_or(null, AsFd::as_fd)
    }
}

/// Where an output's bytes are read to.
#[derive(Debug)]
pub enum Goal<'a> {
    /// Memory that is taken from here, and renewed.
    Scratch(&'a mut Vec<u8>),
    /// The stream's ring, at this offset.
    Ring(&'a Ring, u64),
}

/// What reading an output gave.
#[derive(Debug)]
pub enum Read {
    Bytes(Bytes),
    /// So many bytes lie in the ring.
    Placed(usize),
    Nothing,
    /// All writers are gone, or all that a dead process had written was read.
    Over,
}

impl Pipe {
    /// Reads up to `room` bytes.
    pub fn read(&mut self, room: usize, goal: Goal<'_>) -> Read {
        let most = room.min(PIECE).min(self.left.unwrap_or(usize::MAX));
        if most == 0 {
            return if self.left == Some(0) { Read::Over } else { Read::Nothing };
        }
        let (result, scratch) = match goal {
            Goal::Ring(ring, offset) => (ring.memory.read_from(&self.fd, offset, most), None),
            Goal::Scratch(scratch) => {
                scratch.clear();
                scratch.reserve(PIECE);
                (pipe::read_buf(&self.fd, scratch, most), Some(scratch))
            }
        };
        match result {
            Ok(0) => Read::Over,
            Ok(n) => {
                if let Some(left) = &mut self.left {
                    *left -= n;
                }
                match scratch {
                    None => Read::Placed(n),
                    Some(scratch) if n >= WORTH_PASSING => Read::Bytes(Bytes::from(std::mem::take(scratch))),
                    Some(scratch) => Read::Bytes(Bytes::copy_from_slice(scratch)),
                }
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock || why.kind() == io::ErrorKind::Interrupted => {
                // A dead process's bytes may have been read by another reader of its pipe.
                if self.left.is_some() { Read::Over } else { Read::Nothing }
            }
            Err(_) => Read::Over,
        }
    }

    /// From now on only what is in the pipe counts.
    pub fn limit_to_present(&mut self) {
        self.left = Some(pipe::readable_bytes(&self.fd).unwrap_or(0));
    }

    /// The same for a terminal, whose bytes cannot be counted: some are still on their way to where they are (drivers/tty/tty_buffer.c,
    /// `flush_to_ldisc()`). Reading takes them all, and then gives nothing, unless somebody goes on writing.
    pub fn limit_to_what_comes(&mut self) {
        self.left = Some(TERMINAL);
    }

    /// Writes what waits for stdin. `Ok(0)`: no room.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn write(&self, input: &Input, ring: Option<&RingReader>) -> io::Result<usize> {
        match input.gather(ring).write(&self.fd) {
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            result => result,
        }
    }
}

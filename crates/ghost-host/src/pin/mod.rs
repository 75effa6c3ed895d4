//! The pin: a FUSE file system whose files are never anything but slept on.
//!
//! A ghost sleeps in `pread(pin, answer, rank << 12)`. A request that the server has taken up cannot be broken by any
//! signal (fs/fuse/dev.c `request_wait_answer`), so a ghost outlives even SIGKILL until it is answered. Each launch has a
//! file of its own, opened by the server itself ahead of time and passed to the launcher.
//!
//! Invariants:
//! - A read is answered exactly once: [`ReadToken`] is consumed by [`Pin::answer`] and [`Pin::refuse`].
//! - A file's number never comes again, so that a copy of an old descriptor reaches nothing.
//! - When the server's descriptor closes, the kernel aborts every read: no ghost can hang for ever.

mod opener;
mod wire;

use std::cell::Cell;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use opener::Opener;
pub use opener::PinFile;

use crate::fuse::{self, Body, Request};

/// A read of a ghost that waits for its answer. Not `Clone`: it is answered once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ReadToken(u64);

impl ReadToken {
    /// The request's number in the kernel, as [`Event::Interrupted`] names it.
    pub const fn unique(&self) -> u64 {
        self.0
    }

    /// A token for tests of what handles tokens.
    pub const fn for_test(unique: u64) -> ReadToken {
        ReadToken(unique)
    }
}

/// What the pin's server has to decide about.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A process sleeps on a pin file. `pid` is its thread id in the PID namespace of whoever mounted the pin, 0 if it is not
    /// visible there; the kernel fills it in, it cannot be forged.
    Read { token: ReadToken, file: u64, pid: u32, uid: u32, offset: u64 },
    /// Something wants the sleeper to wake: a stop, a kill, a freezer, a debugger. Which, only the signals tell.
    Interrupted { unique: u64 },
}

/// The server's end.
#[derive(Debug)]
pub struct Pin {
    device: std::fs::File,
    directory: PathBuf,
    buffer: Vec<u8>,
    opener: Opener,
    /// The mount is to outlast this value.
    left: bool,
    /// The kernel can let another server go on.
    resends: Cell<bool>,
    requests: u64,
}

impl Pin {
    /// Mounts the pin at `directory`, which must exist and be closed to others.
    ///
    /// # Errors
    /// See [`ghost_sys::fuse::mount_at`].
    pub fn mount(directory: &Path) -> io::Result<Pin> {
        let device = ghost_sys::fuse::mount_at(directory, "ghostproc-pin")?;
        Pin::new(device, directory, 0)
    }

    fn new(device: OwnedFd, directory: &Path, first_file: u64) -> io::Result<Pin> {
        Ok(Pin {
            device: std::fs::File::from(device),
            directory: directory.to_path_buf(),
            buffer: vec![0; fuse::READ_BUFFER],
            opener: Opener::start(directory.to_path_buf(), first_file)?,
            left: false,
            resends: Cell::new(false),
            requests: 0,
        })
    }

    /// Goes on where another server has left off that had this descriptor: every read that it had taken up comes again. New files
    /// have numbers from `first_file` on.
    ///
    /// # Errors
    /// EINVAL: the kernel cannot do that (before Linux 6.9).
    pub fn take_over(device: OwnedFd, directory: &Path, first_file: u64) -> io::Result<Pin> {
        let pin = Pin::new(device, directory, first_file)?;
        io::Write::write(&mut &pin.device, &fuse::out_header(0, fuse::NOTIFY_RESEND, 0))?;
        pin.resends.set(true);
        Ok(pin)
    }

    /// Whether [`Pin::take_over`] will do on this kernel; not known, thus false, before the kernel's first request was served.
    pub fn resends(&self) -> bool {
        self.resends.get()
    }

    /// Requests of the kernel that were taken up.
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Another server goes on with this one's descriptor: the mount stays.
    pub fn leave(&mut self) {
        self.left = true;
    }

    /// Readable when [`Pin::next_event`] has something.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// A fresh pin file for a launch; `None` when the opener is behind: try again after the next events were handled.
    pub fn take_file(&mut self) -> Option<PinFile> {
        self.opener.take()
    }

    /// The next thing to decide about, `None` when there is nothing now. Everything else that the kernel asks a file
    /// system is answered in here.
    ///
    /// # Errors
    /// ENODEV: the file system is unmounted, all ghosts are gone.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        loop {
            let length = match self.device.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // ENOENT: the request was interrupted before it was taken up (fs/fuse/dev.c fuse_dev_do_read).
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => continue,
                Err(error) => return Err(error),
            };
            self.requests += 1;
            let Some(request) = Request::parse(&self.buffer[..length]) else { continue };
            if let Some(event) = self.serve(request)? {
                return Ok(Some(event));
            }
        }
    }

    fn serve(&self, request: Request<'_>) -> io::Result<Option<Event>> {
        let unique = request.unique;
        match request.body {
            Body::Read { offset, .. } => {
                let file = request.node.wrapping_sub(wire::FIRST_FILE);
                return Ok(Some(Event::Read {
                    token: ReadToken(unique),
                    file,
                    pid: request.pid,
                    uid: request.uid,
                    offset,
                }));
            }
            Body::Interrupt { target } => return Ok(Some(Event::Interrupted { unique: target })),
            Body::Init { minor, max_readahead } => {
                self.resends.set(minor >= fuse::RESENDING_MINOR);
                self.reply(unique, &fuse::init_reply(minor, max_readahead, fuse::HAS_RESEND))?;
            }
            Body::Lookup { name } => match wire::file_number(name) {
                Some(number) => self.reply(unique, &wire::entry(number))?,
                None => self.fail(unique, libc::ENOENT)?,
            },
            Body::GetAttr => self.reply(unique, &wire::attributes(request.node))?,
            Body::Open => self.reply(unique, &wire::opened())?,
            Body::Release => self.reply(unique, &[])?,
            Body::Forget { .. } | Body::BatchForget(_) => {}
            Body::ReadLink | Body::ReadDir { .. } | Body::Change | Body::Other => self.fail(unique, libc::ENOSYS)?,
        }
        Ok(None)
    }

    /// Answers a ghost's read.
    ///
    /// # Errors
    /// ENOENT: the ghost is gone (it was killed before its read was taken up).
    pub fn answer(&self, token: ReadToken, answer: &[u8]) -> io::Result<()> {
        self.reply(token.0, answer)
    }

    /// Ends a read with an error: EINTR for a ghost that is to look at its signals, EPERM for a stranger.
    ///
    /// # Errors
    /// As [`Pin::answer`].
    pub fn refuse(&self, token: ReadToken, errno: i32) -> io::Result<()> {
        self.fail(token.0, errno)
    }

    fn reply(&self, unique: u64, body: &[u8]) -> io::Result<()> {
        let header = fuse::out_header(unique, 0, body.len());
        // A reply is one write: all of it or nothing (fs/fuse/dev.c fuse_dev_do_write).
        let written = io::Write::write_vectored(&mut &self.device, &[IoSlice::new(&header), IoSlice::new(body)])?;
        debug_assert_eq!(written, header.len() + body.len());
        Ok(())
    }

    fn fail(&self, unique: u64, errno: i32) -> io::Result<()> {
        io::Write::write(&mut &self.device, &fuse::out_header(unique, -errno, 0)).map(drop)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Lazy: sleeping ghosts end when the last descriptor closes, right after this.
        let _ = ghost_sys::fuse::unmount(&self.directory);
    }
}

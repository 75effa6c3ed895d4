//! Opens pin files ahead of time. Opening asks the very server that wants the file, so a child does it and keeps a few in
//! store: a launch never waits.
//!
//! Invariant: the child has no descriptor but its end of the socket. When the server dies without a successor, the kernel aborts the
//! connection, and with it the request in which the child may be; a successor answers it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ghost_sys::descriptors::child_with_only;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};

/// Bytes of socket buffer: room for a few dozen messages with a descriptor each (net/core/skbuff.c, `truesize`).
const STORE: usize = 32 * 1024;

/// An opened pin file.
#[derive(Debug)]
pub struct PinFile {
    /// As [`super::Event::Read`] names it.
    pub number: u64,
    pub fd: OwnedFd,
}

#[derive(Debug)]
pub(super) struct Opener {
    store: OwnedFd,
}

impl Opener {
    /// Files are named from `first` on.
    pub(super) fn start(directory: PathBuf, first: u64) -> io::Result<Opener> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (store, supplier) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&supplier, sockopt::SndBuf, &STORE)?;
        // Of this end alone: the supplier is to wait when the store is full.
        fcntl(&store, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        child_with_only(supplier, c"pin-opener", |supplier| supply(&directory, &supplier, first))?;
        Ok(Opener { store })
    }

    pub(super) fn take(&mut self) -> Option<PinFile> {
        let mut number = [0; 8];
        let mut descriptors = Vec::new();
        let length = ghost_sys::fdpass::receive(&self.store, &mut number, &mut descriptors).ok()?;
        let fd = descriptors.pop()?;
        (length == number.len()).then(|| PinFile { number: u64::from_ne_bytes(number), fd })
    }
}

/// Until the mount or the other end is gone.
fn supply(directory: &Path, supplier: &OwnedFd, first: u64) {
    for number in first.. {
        let Ok(file) = File::open(directory.join(number.to_string())) else { break };
        if ghost_sys::fdpass::send(supplier, &number.to_ne_bytes(), Some(file.as_fd())).is_err() {
            break;
        }
    }
}

//! Opens pin files ahead of time. Opening asks the very server that wants the file, so a thread does it and keeps a few in
//! store: a launch never waits.
//!
//! Invariant: the thread has a descriptor table of its own, without the server's descriptor. When the process dies, that
//! descriptor closes at once, the kernel aborts the connection, and with it the request in which the thread may be.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    pub(super) fn start(directory: PathBuf) -> io::Result<Opener> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (store, supplier) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&supplier, sockopt::SndBuf, &STORE)?;
        // Of this end alone: the supplier is to wait when the store is full.
        fcntl(&store, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (ready, started) = std::sync::mpsc::channel();
        let number = supplier.as_raw_fd();
        std::thread::Builder::new().name("pin-opener".into()).stack_size(256 * 1024).spawn(move || {
            let supplier = ghost_sys::descriptors::keep_only(number);
            let failed = supplier.as_ref().err().and_then(io::Error::raw_os_error);
            let told = ready.send(failed).is_ok();
            if let Ok(supplier) = supplier
                && told
            {
                supply(&directory, &supplier);
            }
        })?;
        match started.recv() {
            Ok(None) => Ok(Opener { store }),
            Ok(Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Err(_) => Err(io::Error::other("the thread that opens pin files did not start")),
        }
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
fn supply(directory: &Path, supplier: &OwnedFd) {
    for number in 0u64.. {
        let Ok(file) = File::open(directory.join(number.to_string())) else { break };
        if ghost_sys::fdpass::send(supplier, &number.to_ne_bytes(), Some(file.as_fd())).is_err() {
            break;
        }
    }
}

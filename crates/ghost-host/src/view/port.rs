//! One end of a local socket that carries whole messages.
//!
//! Packets rather than a stream: whoever takes the place of a reader that was killed begins with a whole message.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use ghost_proto::Control;
use ghost_proto::frame::HEADER;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt};

/// Bytes that may be on their way: the largest message, and some more.
const ON_THE_WAY: usize = 2 * 1024 * 1024;
/// The largest message.
const LARGEST: usize = 1024 * 1024;

/// Sends one direction's messages, receives another's; never waits.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Port {
    /// Both ends.
    ///
    /// # Errors
    /// No descriptors or memory left.
    pub fn pair() -> io::Result<(Port, OwnedFd)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Port::of(one), other))
    }

    /// An end that was made by [`Port::pair`].
    pub fn of(socket: OwnedFd) -> Port {
        // Without the right to more than the system's usual size, large messages are not sent.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &ON_THE_WAY);
        Port { socket, buffer: Vec::new() }
    }

    /// Lets more bytes be on their way.
    pub fn make_room(&self, bytes: usize) {
        // As in [`Port::of`].
        let _ = setsockopt(&self.socket, sockopt::SndBufForce, &bytes);
    }

    /// Sends a message.
    ///
    /// # Errors
    /// EAGAIN: the other end is behind. EMSGSIZE: too large. EPIPE: there is no other end.
    pub fn send(&self, message: impl Control) -> io::Result<()> {
        let frame = message.to_frame();
        send(self.socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// The next message, `None` if there is none now. One that is not understood is skipped.
    ///
    /// # Errors
    /// UnexpectedEof: there is no other end any more.
    pub fn receive<M: Control>(&mut self) -> io::Result<Option<M>> {
        if self.buffer.is_empty() {
            self.buffer.resize(LARGEST, 0);
        }
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                // A message is never empty.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::ECONNRESET) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(why) => return Err(why.into()),
            };
            let body = self.buffer.get(HEADER..length).unwrap_or_default();
            if let Ok(Some(message)) = M::decode_body(Bytes::copy_from_slice(body)) {
                return Ok(Some(message));
            }
        }
    }

    /// A descriptor of the same end.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::view::{Figures, FileFigures, LARGEST_FILE, ProcessFigures};
    use ghost_proto::view_port::{GhostdToServer, NodeFigures};

    #[test]
    fn a_message_of_the_largest_size_arrives_and_then_the_end() {
        let (one, other) = Port::pair().expect("socketpair");
        let mut other = Port::of(other);
        assert!(other.receive::<GhostdToServer>().expect("nothing yet").is_none());
        let file = FileFigures { errno: 0, content: vec![7; LARGEST_FILE].into() };
        let process = ProcessFigures { proc: 1, files: vec![file], ..ProcessFigures::default() };
        let figures = Figures { processes: vec![process], ..Figures::default() };
        let message = GhostdToServer::Figures(NodeFigures { node: 3, figures: Some(figures) });
        one.send(message.clone()).expect("sent");
        assert_eq!(other.receive::<GhostdToServer>().expect("received"), Some(message));
        // Also for what another test forks just now, and has it, too, until its exec.
        nix::sys::socket::shutdown(one.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both).expect("shut down");
        let end = other.receive::<GhostdToServer>().expect_err("the end");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}

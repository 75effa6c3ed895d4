//! Passing descriptors over a Unix stream socket (unix(7), SCM_RIGHTS).
//!
//! A descriptor that arrives is owned at once, so that none can leak on an error path.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bytes::BufMut;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// Descriptors taken with one message; the kernel closes what is beyond (net/core/scm.c `scm_detach_fds`).
const MAX_DESCRIPTORS: usize = 4;

/// Sends bytes and, attached to the first of them, a descriptor. Gives how many bytes went out; the descriptor went with
/// them if that is at least one. Never raises SIGPIPE.
///
/// # Errors
/// Those of sendmsg(2): EAGAIN on a full non-blocking socket, EPIPE when the other end is gone.
pub fn send(socket: &impl AsFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    send_pieces(socket, &[IoSlice::new(bytes)], descriptor)
}

/// As [`send`], of several pieces (at most 1,024: UIO_MAXIOV).
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_pieces(
    socket: &impl AsFd,
    pieces: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let raw = descriptor.map(|fd| [fd.as_raw_fd()]);
    let rights = raw.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    let sent =
        sendmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), pieces, rights.as_slice(), MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(sent)
}

/// Receives bytes, and appends to `descriptors` those that came with them, close-on-exec. 0 means end of file.
///
/// # Errors
/// Those of recvmsg(2): EAGAIN on an empty non-blocking socket, ECONNRESET.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = nix::cmsg_space!([i32; MAX_DESCRIPTORS]);
    let mut pieces = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut pieces, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    if let Ok(parts) = message.cmsgs() {
        for part in parts {
            if let ControlMessageOwned::ScmRights(fds) = part {
                for fd in fds {
                    // SAFETY: the kernel has just installed this descriptor for this message (scm_detach_fds), nobody else
                    // owns it. nix gives raw numbers only.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
    }
    Ok(message.bytes)
}

/// As [`receive`], behind what `buffer` holds already: up to `most` bytes, or what its spare piece holds, if that is less.
///
/// # Errors
/// As there.
pub fn receive_buf(
    socket: &impl AsFd,
    buffer: &mut impl BufMut,
    most: usize,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let spare = buffer.chunk_mut();
    let room = spare.len().min(most);
    // SAFETY: the piece is written by the kernel only, which never reads it, and has as much room; it is not used but for this call.
    let piece = unsafe { std::slice::from_raw_parts_mut(spare.as_mut_ptr(), room) };
    let n = receive(socket, piece, descriptors)?;
    // SAFETY: the kernel has just written these bytes.
    unsafe { buffer.advance_mut(n) };
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_travels_with_its_bytes() {
        let (one, two) = UnixStream::pair().expect("socketpair");
        let mut file = tempfile();
        file.write_all(b"through the socket").expect("write");
        assert_eq!(send(&one, b"before", None).expect("send"), 6);
        assert_eq!(send(&one, b"with", Some(file.as_fd())).expect("send"), 4);
        drop(one);

        let mut descriptors = Vec::new();
        let mut bytes = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match receive(&two, &mut buffer, &mut descriptors).expect("receive") {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        assert_eq!(bytes, b"beforewith");
        assert_eq!(descriptors.len(), 1);
        let mut received = File::from(descriptors.remove(0));
        received.rewind().expect("seek");
        let mut text = String::new();
        received.read_to_string(&mut text).expect("read");
        assert_eq!(text, "through the socket");
    }

    #[test]
    fn bytes_are_received_behind_those_that_are_there() {
        let (one, two) = UnixStream::pair().expect("socketpair");
        send(&one, b"abcdef", Some(tempfile().as_fd())).expect("send");
        let (mut buffer, mut descriptors) = (bytes::BytesMut::from(&b"0"[..]), Vec::new());
        buffer.reserve(64);
        assert_eq!(receive_buf(&two, &mut buffer, 4, &mut descriptors).expect("receive"), 4);
        assert_eq!(receive_buf(&two, &mut buffer, 4, &mut descriptors).expect("receive"), 2);
        assert_eq!((&buffer[..], descriptors.len()), (&b"0abcdef"[..], 1));
    }

    #[test]
    fn a_gone_reader_is_an_error_not_a_signal() {
        let (one, two) = UnixStream::pair().expect("socketpair");
        // Also for what another test forks just now, and has it, too, until its exec.
        two.shutdown(std::net::Shutdown::Both).expect("shut down");
        let error = send(&one, b"x", None).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }

    fn tempfile() -> File {
        let fd = nix::sys::memfd::memfd_create(c"fdpass", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("memfd");
        File::from(fd)
    }
}

//! What a pipe holds, and reads without a needless copy.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bytes::BufMut;

/// Reads up to `most` bytes (or what the buffer's spare piece holds, if that is less) behind what `buffer` holds already,
/// without filling the place with zeros first. Gives how many; 0 means end of file.
///
/// # Errors
/// Those of read(2).
pub fn read_buf(fd: &impl AsFd, buffer: &mut impl BufMut, most: usize) -> io::Result<usize> {
    let spare = buffer.chunk_mut();
    let room = spare.len().min(most);
    // SAFETY: the kernel writes at most `room` bytes into the spare piece, which has as many.
    let n = unsafe { libc::read(fd.as_fd().as_raw_fd(), spare.as_mut_ptr().cast(), room) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just written these bytes.
    unsafe { buffer.advance_mut(n) };
    Ok(n)
}

/// Puts bytes into a pipe without copying them, as far as goes at once: the pipe refers to this memory until they are read, and what
/// is written there meanwhile is what is read. Gives how many.
///
/// # Errors
/// Those of vmsplice(2): EAGAIN, there is no room; EBADF, it is no pipe.
pub fn lend(pipe: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel only reads the piece; its pages stay, whatever becomes of the mapping (fs/splice.c, iter_to_pipe()).
    let n = unsafe { libc::vmsplice(pipe.as_fd().as_raw_fd(), &raw const piece, 1, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Bytes that can be read now (FIONREAD).
///
/// # Errors
/// ENOTTY: not a pipe, socket or terminal.
pub fn readable_bytes(pipe: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    if unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_behind_those_that_are_there() {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        nix::unistd::write(&writer, b"12345").expect("write");
        drop(writer);
        let mut buffer = bytes::BytesMut::with_capacity(64);
        buffer.extend_from_slice(b"0");
        assert_eq!(read_buf(&reader, &mut buffer, 3).expect("read"), 3);
        assert_eq!(read_buf(&reader, &mut buffer, 64).expect("read"), 2);
        assert_eq!(read_buf(&reader, &mut buffer, 64).expect("read"), 0);
        assert_eq!(&buffer[..], b"012345");
    }

    #[test]
    fn what_was_written_is_counted() {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        assert_eq!(readable_bytes(&reader).expect("count"), 0);
        nix::unistd::write(&writer, b"12345").expect("write");
        assert_eq!(readable_bytes(&reader).expect("count"), 5);
        assert!(readable_bytes(&std::fs::File::open("/dev/null").expect("null")).is_err());
    }
}

//! Reading and writing without waiting, on descriptors that are shared with other processes.
//!
//! O_NONBLOCK is a property of the open file, which the shell and other programs share: setting it there would break them.
//! RWF_NOWAIT asks for one call only; pipes know it since Linux 6.4, sockets too; where it is unknown (terminals) the caller
//! gets [`io::ErrorKind::Unsupported`] and has to go by poll(2).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};

use bytes::BufMut;

/// Reads from the current position without waiting, behind what `buffer` holds already: up to `most` bytes, or what its spare
/// piece holds, if that is less. Gives how many; 0 means end of file.
///
/// # Errors
/// `WouldBlock`: nothing there. `Unsupported`: this kind of file cannot do it. Others as of read(2).
pub fn read_buf(fd: &impl AsFd, buffer: &mut impl BufMut, most: usize) -> io::Result<usize> {
    let spare = buffer.chunk_mut();
    let piece = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len().min(most) };
    // SAFETY: the kernel writes into the spare piece only, which has as much room; an offset of -1 means the file's position.
    let n = unsafe { libc::preadv2(fd.as_fd().as_raw_fd(), &raw const piece, 1, -1, libc::RWF_NOWAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has just written these bytes.
    unsafe { buffer.advance_mut(n) };
    Ok(n)
}

/// Writes pieces one after the other at the current position, as much as goes without waiting.
///
/// # Errors
/// `WouldBlock`: no room. `Unsupported`: this kind of file cannot do it. EPIPE (with SIGPIPE, unless ignored) and others as
/// of write(2). EINVAL: more than 1,024 pieces (UIO_MAXIOV).
pub fn write(fd: &impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = libc::c_int::try_from(pieces.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: IoSlice has the layout of iovec (its documented guarantee); the kernel reads the pieces only; an offset of -1
    // means the file's position.
    let n = unsafe { libc::pwritev2(fd.as_fd().as_raw_fd(), pieces.as_ptr().cast(), count, -1, libc::RWF_NOWAIT) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_pipe_is_filled_and_emptied_without_waiting() {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let mut buffer = vec![0; 1 << 20];
        assert_eq!(
            read_buf(&reader, &mut &mut buffer[..], usize::MAX).expect_err("empty").kind(),
            io::ErrorKind::WouldBlock
        );
        let mut written = 0;
        let error = loop {
            match write(&writer, &[IoSlice::new(&buffer[..100]), IoSlice::new(&buffer)]) {
                Ok(n) => written += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(written >= 4096);
        assert_eq!(read_buf(&reader, &mut &mut buffer[..], usize::MAX).expect("full"), written);
        drop(writer);
        // What another test forks just now has the writing end, too, until its exec.
        let mut ended = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, 10_000u16), Ok(1));
        assert_eq!(read_buf(&reader, &mut &mut buffer[..], usize::MAX).expect("end of file"), 0);
    }
}

//! What a pipe holds.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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
    fn what_was_written_is_counted() {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        assert_eq!(readable_bytes(&reader).expect("count"), 0);
        nix::unistd::write(&writer, b"12345").expect("write");
        assert_eq!(readable_bytes(&reader).expect("count"), 5);
        assert!(readable_bytes(&std::fs::File::open("/dev/null").expect("null")).is_err());
    }
}

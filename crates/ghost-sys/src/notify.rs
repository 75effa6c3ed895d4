//! systemd's notification protocol (sd_notify(3)): what a service manager reads, and how it is given descriptors.
//!
//! Invariant: descriptors that come with a message are owned from the moment they arrive, so that a malformed message
//! leaks none.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg, setsockopt, sockopt,
};

/// The kernel's own limit of descriptors in one message (include/net/scm.h, SCM_MAX_FD).
const MOST_DESCRIPTORS: usize = 253;

/// One datagram of a service.
#[derive(Debug)]
pub struct Notification {
    /// The sender, as the kernel knows it, in the receiver's PID namespace.
    pub pid: i32,
    /// `KEY=value` lines; bytes that are not UTF-8 are replaced.
    pub text: String,
    pub descriptors: Vec<OwnedFd>,
}

impl Notification {
    /// The value of the last line with this key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.text.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The socket that NOTIFY_SOCKET names.
#[derive(Debug)]
pub struct NotifySocket(UnixDatagram);

impl NotifySocket {
    /// # Errors
    /// Those of bind(2): EADDRINUSE when the path exists.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self(socket))
    }

    /// # Errors
    /// WouldBlock when there is none.
    pub fn receive(&self) -> io::Result<Notification> {
        let mut text = [0u8; 4096];
        let mut iov = [IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!(libc::ucred, [std::os::fd::RawFd; MOST_DESCRIPTORS]);
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut pid = 0;
        let mut descriptors = Vec::new();
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmRights(numbers) => {
                    for number in numbers {
                        // SAFETY: the kernel has put this descriptor into our table with this very message
                        // (net/core/scm.c, scm_detach_fds()); nobody else knows its number.
                        descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                    }
                }
                ControlMessageOwned::ScmCredentials(sender) => pid = sender.pid(),
                _ => {}
            }
        }
        let length = message.bytes;
        Ok(Notification { pid, text: String::from_utf8_lossy(&text[..length]).into_owned(), descriptors })
    }
}

impl std::os::fd::AsFd for NotifySocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a notification with a descriptor to the service manager, if there is one: `FDSTORE=1` and the like. Waits where it stands
/// still: what it keeps must not be lost.
///
/// # Errors
/// It does not listen.
pub fn send_with(text: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    let rights = [fd.as_raw_fd()];
    send(text, &[ControlMessage::ScmRights(&rights)], MsgFlags::empty())
}

/// Sends a notification that may be lost to the service manager, if there is one: `STATUS=…`, `WATCHDOG=1`. Waits for nobody.
///
/// # Errors
/// It does not listen, or (WouldBlock) does not take it now.
pub fn tell(text: &str) -> io::Result<()> {
    send(text, &[], MsgFlags::MSG_DONTWAIT)
}

fn send(text: &str, descriptors: &[ControlMessage<'_>], flags: MsgFlags) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        path => UnixAddr::new(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(text.as_bytes())], descriptors, flags, Some(&address))?;
    Ok(())
}

/// Whether two descriptors are the same open file (not merely the same inode), as after dup(2) or passing.
///
/// # Errors
/// ENOSYS where the kernel has no kcmp(2).
pub fn same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    const KCMP_FILE: libc::c_int = 0;
    let own = std::process::id();
    // SAFETY: kcmp(2) with KCMP_FILE takes two process and two descriptor numbers, no memory.
    match unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) } {
        0 => Ok(true),
        1.. => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn text_sender_and_descriptors_arrive() {
        let directory = std::env::temp_dir().join(format!("ghost-sys-notify-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        let path = directory.join("notify");
        let socket = NotifySocket::bind(&path).expect("bind");

        let (mut ours, theirs) = UnixStream::pair().expect("pair");
        let sender = UnixDatagram::unbound().expect("socket");
        sendmsg(
            sender.as_raw_fd(),
            &[IoSlice::new(b"FDSTORE=1\nFDNAME=pin\nFDNAME=view")],
            &[ControlMessage::ScmRights(&[theirs.as_raw_fd()])],
            MsgFlags::empty(),
            Some(&UnixAddr::new(&path).expect("address")),
        )
        .expect("send");
        let message = socket.receive().expect("message");
        assert_eq!(message.pid, std::process::id() as i32);
        assert_eq!(message.value("FDNAME"), Some("view"), "the last one counts");
        assert_eq!(message.value("FD"), None);
        let [descriptor] = <[OwnedFd; 1]>::try_from(message.descriptors).expect("one descriptor");
        assert!(same_open_file(descriptor.as_fd(), theirs.as_fd()).expect("kcmp"));
        assert!(!same_open_file(descriptor.as_fd(), ours.as_fd()).expect("kcmp"));
        drop(theirs);
        UnixStream::from(descriptor).write_all(b"through").expect("write");
        let mut text = String::new();
        ours.read_to_string(&mut text).expect("read");
        assert_eq!(text, "through");
        assert_eq!(socket.receive().expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        std::fs::remove_dir_all(&directory).expect("remove");
    }
}

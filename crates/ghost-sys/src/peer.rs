//! Who is at the other end of a Unix socket, as the kernel knows it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};

/// A connected peer: the credentials that it had when it called connect(2).
#[derive(Debug)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups (SO_PEERGROUPS, Linux 4.13).
    pub groups: Vec<u32>,
    /// A descriptor of the very process that connected, so that a reused number cannot mislead (SO_PEERPIDFD, Linux 6.5);
    /// before 6.5 it is opened by number.
    pub pidfd: OwnedFd,
}

/// Asks the kernel who connected.
///
/// # Errors
/// ESRCH: the process is already gone; before Linux 6.5 also: it has no number in this PID namespace.
pub fn peer_of(socket: &impl AsFd) -> io::Result<Peer> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    let pid = u32::try_from(credentials.pid()).unwrap_or(0);
    Ok(Peer {
        pid,
        uid: credentials.uid(),
        gid: credentials.gid(),
        groups: groups_of(socket)?,
        pidfd: pidfd_of(socket, pid)?,
    })
}

fn groups_of(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * 4).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the buffer holds `length` bytes; the kernel writes at most that many and says how many it has. nix has no
        // SO_PEERGROUPS.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = length as usize / 4;
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // net/core/sock.c sk_getsockopt, SO_PEERGROUPS: ERANGE, and the needed length in `length`.
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() || needed > 65_536 {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

fn pidfd_of(socket: &impl AsFd, pid: u32) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one int into `fd`, whose size is given. nix has no SO_PEERPIDFD.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result == 0 && fd >= 0 {
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) if pid == 0 => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        Some(libc::ENOPROTOOPT) => crate::pidfd::open(pid),
        _ => Err(error),
    }
}

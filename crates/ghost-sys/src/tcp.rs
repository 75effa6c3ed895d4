//! What the kernel keeps for a TCP connection before it is sent.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{setsockopt, sockopt};

/// Bytes that wait in front of a control message at most, on top of what the network has in flight.
pub const UNSENT: u32 = 128 * 1024;

/// Limits what a socket takes beyond what TCP could send (tcp(7), TCP_NOTSENT_LOWAT): more waits in the program, where
/// something urgent can overtake it.
///
/// # Errors
/// ENOPROTOOPT: not a TCP socket.
pub fn limit_unsent(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let size = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `bytes`.
    let result =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connections of this socket send as soon as the peer has room, whatever the system's congestion control is. It has to be called
/// before there is one: on the listener, whose choice the accepted sockets inherit (net/ipv4/tcp_minisocks.c,
/// `tcp_ca_openreq_child`), or before the connecting.
///
/// One that paces (bbr) sends a packet at each beat of a timer (net/ipv4/tcp_output.c, `tcp_pacing_check`): on a cluster's
/// network that is an interrupt for every 64 KiB, and a rate that was measured while there was little to send. It turns pacing on
/// when the connection comes about (net/ipv4/tcp_bbr.c, `bbr_init`), and nothing turns it off again. A kernel without cubic, its own
/// default, keeps what it has.
pub fn do_not_pace(socket: &impl AsFd) {
    let _ = setsockopt(socket, sockopt::TcpCongestion, &OsString::from("cubic"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_socket_takes_it_and_another_does_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let stream = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        limit_unsent(&stream, UNSENT).expect("set");
        let (one, _two) = std::os::unix::net::UnixStream::pair().expect("pair");
        limit_unsent(&one, UNSENT).expect_err("not TCP");
    }

    #[test]
    fn what_is_accepted_inherits_the_choice_of_the_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        do_not_pace(&listener);
        let _stream = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (accepted, _) = listener.accept().expect("a connection");
        let chosen = nix::sys::socket::getsockopt(&accepted, sockopt::TcpCongestion).expect("a congestion control");
        let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
        assert!(chosen == "cubic" || !known.contains("cubic"), "{chosen:?}");
    }
}

//! On a node: a pipe to bpcp's end on the master, which the bpsh that all began with there runs.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use ghost_proto::client::{ClientToMaster, MasterToClient, Reach};
use ghost_proto::instance::Instance;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;

use super::launch::{self, wait};
use crate::connection::{Connection, ConnectionError};

/// Carries standard input there, and to standard output what comes back, until that end has gone.
///
/// # Errors
/// It cannot be reached.
pub fn run(instance: &Instance, arguments: Vec<Bytes>) -> anyhow::Result<()> {
    // An end that was killed must not look like one that has nothing more to send.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut connection = Connection::open(instance, "bpcp")?;
    match connection.request(ClientToMaster::Reach(Reach { arguments })) {
        Ok(MasterToClient::Reached(_)) => {}
        Ok(_) => anyhow::bail!("ghostd answered something else than was asked"),
        Err(ConnectionError::Refused(refused)) => anyhow::bail!("master: {}", refused.text),
        Err(error) => return Err(error.into()),
    }
    let (socket, begun) = connection.into_socket();
    let mut out = launch::standard_output()?;
    out.write_all(&begun)?;
    carry(&socket, &mut out)?;
    Ok(())
}

fn carry(socket: &UnixStream, out: &mut impl Write) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let (mut stdin, mut bytes) = (Some(io::stdin()), vec![0; 256 * 1024]);
    loop {
        let ready = {
            let mut fds = vec![PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            fds.extend(stdin.as_ref().map(|stdin| PollFd::new(stdin.as_fd(), PollFlags::POLLIN)));
            wait(&mut fds)?;
            [fds[0].any().unwrap_or(false), fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false))]
        };
        if ready[0] && !hear(socket, out)? {
            return Ok(());
        }
        if ready[1]
            && let Some(input) = &mut stdin
        {
            match nix::unistd::read(input.as_fd(), &mut bytes) {
                Ok(0) => stdin = None,
                Ok(n) => {
                    let mut to: &UnixStream = socket;
                    let said = launch::write_both(&mut to, &bytes[..n], &[], |_| {
                        // What that end says is taken meanwhile, else it would wait for us.
                        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
                        wait(&mut fds)?;
                        match fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                            true if !hear(socket, out)? => Err(io::ErrorKind::BrokenPipe.into()),
                            _ => Ok(()),
                        }
                    });
                    match said {
                        Ok(()) => {}
                        // Why it has gone may still be to be heard.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => stdin = None,
                        Err(error) => return Err(error),
                    }
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Passes on what is there; false at the end.
fn hear(mut socket: &UnixStream, out: &mut impl Write) -> io::Result<bool> {
    let mut buffer = vec![0; 64 * 1024];
    match socket.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(n) => out.write_all(&buffer[..n]).map(|()| true),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
        // It has closed with something unread, which is of no use to it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(error) => Err(error),
    }
}

//! Until ghostd has answered: nothing runs yet, and signals mean what they mean to any program.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ghost_proto::client::{Launched, MasterToClient};
use ghost_sys::quiet::{self, Quiet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::outcome::TIMED_OUT;
use super::super::received::{Meaning, meaning};
use super::{Deadline, Failure, failure};
use crate::connection::{Connection, Incoming};
use crate::duration;
use crate::node_list::NodeList;

/// Waits for ghostd's answer; tells also what features ghostd has. Signals mean what they mean to any program:
/// nothing has been started.
pub(super) fn await_launch(
    connection: &mut Connection,
    quiet: &mut Quiet,
    nodes: &NodeList,
    deadline: Option<Deadline>,
) -> Result<(Launched, Vec<String>), Failure> {
    let mut features = Vec::new();
    // The descriptor does not tell of those that came before it was there.
    react_alone(quiet);
    loop {
        let all_out = connection.flush()?;
        let (mut readable, mut signaled) = (false, false);
        {
            let wanted = if all_out { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            let mut fds = [PollFd::new(connection.as_fd(), wanted), PollFd::new(quiet.as_fd(), PollFlags::POLLIN)];
            let left = deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
            wait(&mut fds, left)?;
            readable |= happened(&fds[0], PollFlags::POLLIN);
            signaled |= happened(&fds[1], PollFlags::POLLIN);
        }
        if signaled {
            react_alone(quiet);
        }
        if let Some(deadline) = deadline.filter(|deadline| Instant::now() >= deadline.at) {
            let text = format!("timed out after {}: ghostd has not answered", duration::shown(deadline.after));
            return Err(Failure { text, code: TIMED_OUT });
        }
        if readable {
            connection.fill()?;
        }
        while let Some(incoming) = connection.next_frame()? {
            match incoming {
                Incoming::Message(MasterToClient::Launched(launched)) => return Ok((launched, features)),
                Incoming::Message(MasterToClient::Hello(hello)) => features = hello.features,
                Incoming::Message(MasterToClient::Refused(refused)) => {
                    return Err(failure(&nodes.explain(&refused)));
                }
                Incoming::Message(_) | Incoming::Data(_) | Incoming::Placed(..) => {}
            }
        }
    }
}

/// Signals while no program runs that could decide.
fn react_alone(quiet: &mut Quiet) {
    while let Some(received) = quiet.read() {
        match meaning(received, quiet::inherited(), false, std::process::id().cast_signed()) {
            Meaning::Die(signal) => quiet::die_by(signal),
            Meaning::Stop(signal) => quiet::stop_by(signal, || true),
            Meaning::Nothing | Meaning::Child(_) | Meaning::Continued => {}
        }
    }
}

pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Failure> {
    // Rounded up: a timeout of 0 would spin until the moment has come.
    let timeout = timeout.map_or(PollTimeout::NONE, |t| {
        PollTimeout::try_from(t.as_millis().saturating_add(1).min(60_000)).unwrap_or(PollTimeout::ZERO)
    });
    match poll(fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(failure(&format!("poll: {}", error.desc()))),
    }
}

/// Whether poll(2) has told this, or that something is wrong (which the next call will find out).
pub(super) fn happened(fd: &PollFd<'_>, what: PollFlags) -> bool {
    fd.revents()
        .is_some_and(|events| events.intersects(what | PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
}

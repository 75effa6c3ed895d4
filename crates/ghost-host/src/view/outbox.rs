//! What the guard has to say to the server, in order, however far behind that is.
//!
//! Invariant: a ghost's directory is bound over its /proc only when the server has been told of the ghost, so that looking for
//! it finds it.

use std::collections::VecDeque;
use std::io;

use ghost_proto::view_port::{GuardToServer, Serve};

use super::Port;

/// Messages that wait for room.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<GuardToServer>,
}

impl Outbox {
    pub(super) fn push(&mut self, message: GuardToServer) {
        self.waiting.push_back(message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// For a new server: it is told of everything anew.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Sends as much as there is room for; gives the processes whose ghosts may be bound now.
    ///
    /// # Errors
    /// The server has gone.
    pub(super) fn flush(&mut self, port: &Port) -> io::Result<Vec<u64>> {
        let mut told = Vec::new();
        while let Some(message) = self.waiting.front() {
            match port.send(message.clone()) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) => return Err(why),
            }
            if let Some(GuardToServer::Serve(Serve { show: Some(show), .. })) = self.waiting.pop_front() {
                told.push(show.proc);
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::view_port::Show;

    /// More than fits into the socket at once.
    const MANY: u32 = 20_000;

    #[test]
    fn a_server_that_is_behind_is_told_of_every_ghost_in_order() {
        let (guard, server) = Port::pair().expect("socketpair");
        let mut server = Port::of(server);
        let mut outbox = Outbox::default();
        for number in 1..=MANY {
            let show = Show { proc: u64::from(number), pid: number, start: 1, uid: 1000, gid: 1000, node: 3 };
            outbox.push(GuardToServer::Serve(Serve { number, show: Some(show) }));
        }
        let (mut bound, mut heard) = (Vec::new(), Vec::new());
        bound.extend(outbox.flush(&guard).expect("there is a server"));
        assert!(!outbox.is_empty(), "the test is too small");
        while heard.len() < MANY as usize {
            while let Some(GuardToServer::Serve(serve)) = server.receive().expect("there is a guard") {
                heard.push(u64::from(serve.number));
            }
            assert_eq!(bound, heard, "bound are those of which the server has been told");
            bound.extend(outbox.flush(&guard).expect("there is a server"));
        }
        assert!(outbox.is_empty() && heard == (1..=u64::from(MANY)).collect::<Vec<_>>());
        drop(server);
        outbox.push(GuardToServer::Serve(Serve { number: 1, show: None }));
        assert!(outbox.flush(&guard).is_err());
    }
}

//! The agent's connection: accepting it, its frames, what is to go out on it.

use std::io;
use std::time::Duration;

use ghost_proto::node::MasterToNode;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Driver, Source, now};
use crate::holder::connection::{Connection, Received};
use crate::holder::event::Event;
use crate::holder::setup::log;

/// Frames of one wake-up, so that output and ends get their turn.
const FRAMES: usize = 256;
/// They end a wake-up sooner if they take so long: starting a process takes milliseconds on some machines.
const ROUND: Duration = Duration::from_millis(20);

impl Driver {
    pub(super) fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        self.connections += 1;
        match Connection::new(stream, self.connections) {
            Ok(connection) => {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Agent.number());
                // A new agent takes the place of an old one, whose socket leaves epoll as it is closed.
                self.lose_agent();
                if self.epoll.add(&connection, event).is_ok() {
                    self.agent = Some(connection);
                    self.load.begin_anew();
                    self.agent_interest = EpollFlags::EPOLLIN;
                    self.handle(Event::Linked);
                }
            }
            Err(why) => log(&format!("a connection of the agent cannot be used: {why}")),
        }
    }

    pub(super) fn agent_ready(&mut self, flags: EpollFlags) {
        let reads = self.agent_interest.contains(EpollFlags::EPOLLIN);
        if !reads && flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.unlinked();
        } else if reads && flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            match self.agent.as_mut().map(Connection::fill) {
                Some(Ok(true)) => self.frames(),
                Some(Err(why)) if why.kind() == io::ErrorKind::WouldBlock => {}
                Some(Ok(false) | Err(_)) => self.unlinked(),
                None => {}
            }
        }
    }

    /// Takes frames that have arrived, a limited number of them.
    fn frames(&mut self) {
        self.backlog = false;
        let began = now();
        for _ in 0..FRAMES {
            if !self.core.accepts() {
                return;
            }
            let Some(agent) = &mut self.agent else {
                return;
            };
            match agent.receive() {
                Ok(Some(Received::Message(message))) => self.handle(Event::Message(message)),
                Ok(Some(Received::Data(data))) => self.handle(Event::Data(data)),
                Ok(Some(Received::Placed(placed))) => self.input_placed(placed),
                Ok(Some(Received::Relay(relay))) => self.relay_came(&relay),
                Ok(None) => return,
                Err(why) => return self.refused(&why),
            }
            if now().saturating_sub(began) >= ROUND {
                self.look_for_leases();
                break;
            }
        }
        self.backlog = true;
    }

    /// The frames that wait take their time: a lease among them is answered now.
    fn look_for_leases(&mut self) {
        // The first of a connection's frames, without which leases mean nothing, has been taken.
        let Some(agent) = self.agent.as_mut().filter(|agent| self.core.accepts() && agent.takes()) else {
            return;
        };
        match agent.leases() {
            Ok(leases) => {
                for lease in leases {
                    self.handle(Event::Message(MasterToNode::Lease(lease)));
                }
            }
            Err(why) => self.refused(&why),
        }
    }

    pub(super) fn refused(&mut self, why: &str) {
        log(&format!("connection of the agent closed: {why}"));
        self.unlinked();
    }

    fn unlinked(&mut self) {
        self.lose_agent();
        self.handle(Event::Unlinked);
    }

    /// Nothing that it does from now on counts, nor what it writes into memory: one that was only stopped may go on with what it had read.
    pub(super) fn lose_agent(&mut self) {
        self.agent = None;
        self.relays.unlinked();
        for handles in self.handles.values_mut() {
            if let Some(ring) = handles.input_ring.take() {
                self.core.take_out_input(handles.proc, &ring.memory);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        // Those that waited for the end of a purge, or for their turn.
        self.frames();
        let accepts = self.core.accepts();
        let Some(agent) = &mut self.agent else {
            return;
        };
        if agent.flush().is_err() {
            self.unlinked();
            return;
        }
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, accepts && agent.takes());
        interest.set(EpollFlags::EPOLLOUT, agent.blocked);
        if interest != self.agent_interest {
            let mut event = EpollEvent::new(interest, Source::Agent.number());
            if self.epoll.modify(&*agent, &mut event).is_ok() {
                self.agent_interest = interest;
            }
        }
    }
}

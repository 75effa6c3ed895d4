//! The socket for commands that run here: who connects, and the bytes between them and ghostd.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{MasterToClient, Refused};
use ghost_proto::relay::{Opening, PIECE, Relay};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Driver, Source};
use crate::holder::relays::Came;
use crate::holder::setup::log;

/// Connections that are taken in one round.
const AT_ONCE: usize = 32;

/// What is said to processes that are not the cluster's.
const STRANGER: &str = "this is a node, and only programs that the cluster runs here can ask its master; start it with bpsh, or ask on the master";

/// A command's socket.
pub(super) struct Command {
    stream: UnixStream,
    /// For the command.
    waiting: VecDeque<Bytes>,
    /// What epoll watches it for; `None`: it is not watched.
    interest: Option<EpollFlags>,
}

impl Driver {
    pub(super) fn commands_connect(&mut self) {
        for _ in 0..AT_ONCE {
            let Ok((stream, _)) = self.commands.accept() else { return };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Err(text) = self.command_connects(&stream) {
                // A new socket has room for that.
                let refused = MasterToClient::Refused(Refused { text, position: None }).to_frame();
                let _ = (&stream).write_all(&refused);
            } else {
                let id = self.last_command;
                self.sockets.insert(id, Command { stream, waiting: VecDeque::new(), interest: None });
                self.watch_command(id);
            }
        }
    }

    /// # Errors
    /// Why it is refused.
    fn command_connects(&mut self, stream: &UnixStream) -> Result<(), String> {
        let peer = match ghost_sys::peer::peer_of(stream) {
            Err(why) if why.raw_os_error() == Some(Errno::ESRCH as i32) => return Err(STRANGER.to_owned()),
            peer => peer.map_err(|why| format!("who asks cannot be seen: {why}"))?,
        };
        // The number cannot have been used again as long as the descriptor says that the process lives.
        self.follow_tree();
        let mut actions = Vec::new();
        let asker = if peer.pid > 1 { self.core.asker(peer.pid, &mut actions) } else { None };
        self.carry_out(actions);
        let Some(process) = asker.filter(|_| ghost_sys::pidfd::signal(&peer.pidfd, 0).is_ok()) else {
            return Err(STRANGER.to_owned());
        };
        let (id, frames) = self.relays.open(Opening { process, uid: peer.uid })?;
        self.last_command = id;
        self.tell_ghostd(frames);
        Ok(())
    }

    fn tell_ghostd(&mut self, frames: impl IntoIterator<Item = Relay>) {
        if let Some(agent) = &mut self.agent {
            frames.into_iter().for_each(|frame| agent.send_relay(&frame));
        }
    }

    /// A frame of a command's connection has come from ghostd.
    pub(super) fn relay_came(&mut self, relay: &Relay) {
        match self.relays.came(relay) {
            Came::Here { anew, frames } => {
                if anew {
                    self.sockets.clear();
                }
                self.tell_ghostd(frames);
                for id in self.sockets.keys().copied().collect::<Vec<_>>() {
                    self.watch_command(id);
                }
            }
            Came::Bytes { id, bytes } => {
                if let Some(command) = self.sockets.get_mut(&id)
                    && !bytes.is_empty()
                {
                    command.waiting.push_back(bytes);
                }
                self.write_command(id);
            }
            Came::Answer(answer) => self.tell_ghostd([answer]),
            Came::Broken { id, why } => {
                log(&format!("a command's connection is closed: {why}"));
                self.sockets.remove(&id);
            }
            Came::Nothing => {}
        }
    }

    pub(super) fn command_ready(&mut self, id: u64, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.write_command(id);
        }
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.read_command(id);
        }
    }

    fn read_command(&mut self, id: u64) {
        let room = self.relays.room(id).min(PIECE);
        let Some(command) = self.sockets.get(&id) else { return };
        if room > 0 {
            let mut buffer = BytesMut::with_capacity(room);
            match ghost_sys::pipe::read_buf(&command.stream, &mut buffer, room) {
                Ok(0) => return self.command_gone(id),
                Ok(_) => {
                    // What is kept until it is acknowledged does not keep the whole buffer.
                    let few = buffer.len() < room / 2;
                    let bytes = if few { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() };
                    let frame = self.relays.said(id, bytes);
                    self.tell_ghostd(frame);
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.command_gone(id),
            }
        }
        self.watch_command(id);
    }

    fn write_command(&mut self, id: u64) {
        let Some(command) = self.sockets.get_mut(&id) else { return };
        let mut taken = 0;
        while let Some(first) = command.waiting.front_mut() {
            match (&command.stream).write(first) {
                Ok(n) => {
                    taken += n;
                    first.advance(n);
                    if first.is_empty() {
                        command.waiting.pop_front();
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    let ack = self.relays.taken(id, taken);
                    self.tell_ghostd(ack);
                    return self.command_gone(id);
                }
            }
        }
        let ack = self.relays.taken(id, taken);
        self.tell_ghostd(ack);
        if self.relays.has_come_to_end(id) {
            return self.command_gone(id);
        }
        self.watch_command(id);
    }

    /// Its socket is closed, by it or by ghostd.
    fn command_gone(&mut self, id: u64) {
        let waiting = self.sockets.remove(&id).map_or(0, |command| command.waiting.iter().map(Bytes::len).sum());
        let frames = self.relays.closed(id, waiting);
        self.tell_ghostd(frames);
    }

    /// Has epoll watch a command's socket for what it can be served with now. One that nothing can be done for is not watched: its end
    /// would be told again and again.
    fn watch_command(&mut self, id: u64) {
        let room = self.relays.room(id) > 0;
        let Some(command) = self.sockets.get_mut(&id) else { return };
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, room);
        wanted.set(EpollFlags::EPOLLOUT, !command.waiting.is_empty());
        let wanted = (!wanted.is_empty()).then_some(wanted);
        if wanted == command.interest {
            return;
        }
        let event = |flags| EpollEvent::new(flags, Source::Command(id).number());
        let done = match (command.interest, wanted) {
            (None, Some(flags)) => self.epoll.add(&command.stream, event(flags)),
            (Some(_), Some(flags)) => self.epoll.modify(&command.stream, &mut event(flags)),
            (_, None) => self.epoll.delete(&command.stream),
        };
        match done {
            Ok(()) => command.interest = wanted,
            Err(why) => {
                log(&format!("a command's connection cannot be watched: {why}"));
                self.command_gone(id);
            }
        }
    }
}

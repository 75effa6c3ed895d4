//! The pipes of the processes' standard streams: bytes between them and the core.
//!
//! Invariant: epoll watches a pipe exactly while something may be read from it or is to be written to it, so that a stream
//! whose window is full costs nothing.

use ghost_proto::frame::Placed;
use ghost_proto::ids::ProcId;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Driver, Source, now, terminals, watch};
use crate::holder::connection::Connection;
use crate::holder::event::{Action, Event};
use crate::holder::handles::{Goal, Handles, Pipe, Read};
use crate::holder::input::{Input, Waiting};
use crate::holder::output::Output;
use crate::holder::rings::Ring;

impl Driver {
    pub(super) fn watch_stdin(&mut self, number: u64, flags: EpollFlags) {
        if let Some(Handles { stdin: Some(pipe), .. }) = self.handles.get_mut(&number) {
            // EPOLLERR, "nobody reads", is always told.
            if pipe.watched {
                let mut event = EpollEvent::new(flags, Source::Stdin(number).number());
                let _ = self.epoll.modify(&pipe.fd, &mut event);
            } else {
                watch(&self.epoll, &pipe.fd, flags, Source::Stdin(number));
                pipe.watched = true;
            }
        }
    }

    pub(super) fn stdin_ready(&mut self, number: u64, flags: EpollFlags) {
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        let proc = handles.proc;
        // Of a pipe the one, of a terminal that was hung up both.
        if flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            handles.close_stdin(self.agent.as_mut());
            self.handle(Event::InputGone { proc });
        } else if let Some(event) = self.feed_input(proc) {
            self.handle(event);
        }
    }

    /// The agent has put bytes into a ring. If there is none any more, nobody is to get them.
    pub(super) fn input_placed(&mut self, placed: Placed) {
        let handles = self.numbers.get(&ProcId(placed.id)).and_then(|number| self.handles.get(number));
        match handles {
            Some(Handles { stdin: Some(_), input_ring: None, .. }) => {
                self.refused("it refers to memory that is not shared with it");
            }
            _ => self.handle(Event::InputPlaced(placed)),
        }
    }

    /// Writes what waits for stdin, and closes it after the last byte.
    pub(super) fn feed_input(&mut self, proc: ProcId) -> Option<Event> {
        let number = *self.numbers.get(&proc)?;
        let handles = self.handles.get_mut(&number)?;
        let input = self.core.input(proc)?;
        let pipe = handles.stdin.as_ref()?;
        if !input.is_open() || input.finished() {
            if let Some(line) = handles.line.as_ref().filter(|_| input.finished()) {
                line.end_input(&pipe.fd);
            }
            handles.close_stdin(self.agent.as_mut());
            return None;
        }
        if input.pieces().is_empty() {
            self.watch_stdin(number, EpollFlags::empty());
            return None;
        }
        match pipe.write(input, handles.input_ring.as_ref().map(|ring| &ring.memory)) {
            Ok(0) => {
                self.watch_stdin(number, EpollFlags::EPOLLOUT);
                None
            }
            Ok(bytes) => {
                if let Some(line) = &mut handles.line {
                    line.typed(last_of(input, bytes));
                }
                if let Some(agent) = &mut self.agent {
                    handles.share_input(input, &self.rings, agent);
                }
                // There may be more, or it may be the end: both are seen to next.
                self.actions.push_back(Action::FeedInput { proc });
                Some(Event::Written { proc, bytes })
            }
            Err(_) => {
                handles.close_stdin(self.agent.as_mut());
                Some(Event::InputGone { proc })
            }
        }
    }

    pub(super) fn serve_output(&mut self, proc: ProcId, fd: u8) {
        let Some(&number) = self.numbers.get(&proc) else {
            return;
        };
        let outputs = self.handles.get(&number).map(|handles| &handles.outputs);
        let pipe = outputs.and_then(|outputs| outputs.get(usize::from(fd).checked_sub(1)?)?.as_ref());
        match pipe.map(|pipe| pipe.left.is_some()) {
            Some(true) => self.drain_output(number, fd),
            Some(false) => self.watch_number(number, fd),
            None => {}
        }
    }

    /// Lets epoll tell of an output exactly while it may be read: it would tell of a hang-up without being asked.
    pub(super) fn watch_number(&mut self, number: u64, fd: u8) {
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        let output = self.core.output(handles.proc, fd);
        let Some(place) = handles.outputs.get_mut(usize::from(fd - 1)) else {
            return;
        };
        // Before the core knows the process it has room.
        let open = output.is_none_or(|output| output.is_open());
        if !open {
            *place = None;
            if output.is_some_and(Output::is_closed) {
                handles.give_up_ring(fd, self.agent.as_mut());
                // Nobody looks at the screen any more.
                self.hang_up(number);
            }
            return;
        }
        let Some(pipe) = place else {
            return;
        };
        let wanted = output.is_none_or(|output| output.room() > 0);
        if wanted && !pipe.watched {
            watch(&self.epoll, &pipe.fd, EpollFlags::EPOLLIN, Source::output(number, fd));
        } else if !wanted && pipe.watched {
            let _ = self.epoll.delete(&pipe.fd);
        }
        pipe.watched = wanted;
    }

    pub(super) fn read_output(&mut self, number: u64, fd: u8) {
        let Some((proc, read)) = self.read_pipe(number, fd) else {
            return;
        };
        let event = match read {
            Read::Bytes(bytes) => {
                self.moved += bytes.len();
                Some(Event::Read { proc, fd, bytes })
            }
            Read::Placed(length) => {
                self.moved += length;
                Some(Event::Placed { proc, fd, length })
            }
            Read::Nothing => None,
            Read::Over => {
                self.output_over(number, fd);
                None
            }
        };
        if let Some(event) = event {
            self.handle(event);
            let pipe = self.handles.get(&number).and_then(|handles| handles.outputs.get(usize::from(fd - 1))?.as_ref());
            if pipe.is_some_and(|pipe| pipe.left == Some(0)) {
                self.output_over(number, fd);
            }
        }
        self.watch_number(number, fd);
    }

    /// Reads once what there is room for, into the stream's ring if it has one, or is worth one and the agent would take it.
    fn read_pipe(&mut self, number: u64, fd: u8) -> Option<(ProcId, Read)> {
        let Handles { proc, outputs, rings, .. } = self.handles.get_mut(&number)?;
        let index = usize::from(fd - 1);
        let (pipe, ring) = (outputs.get_mut(index)?.as_mut()?, rings.get_mut(index)?);
        let Some(output) = self.core.output(*proc, fd) else {
            return Some((*proc, Read::Nothing));
        };
        if ring.is_none() && self.agent.as_ref().is_some_and(Connection::takes_placed) {
            *ring = Ring::for_output(output, &self.rings);
        }
        let goal = match ring {
            Some(ring) => Goal::Ring(ring, output.offset()),
            None => Goal::Scratch(&mut self.scratch),
        };
        Some((*proc, pipe.read(output.room(), goal)))
    }

    fn output_over(&mut self, number: u64, fd: u8) {
        if let Some(handles) = self.handles.get_mut(&number) {
            let proc = handles.proc;
            let pipe = handles.outputs.get_mut(usize::from(fd - 1)).and_then(Option::take);
            if pipe.is_some_and(|pipe| pipe.left.is_some()) {
                self.end_line(number);
            }
            self.handle(Event::OutputOver { proc, fd });
        }
    }

    /// Its process is dead and its output read: the session in its terminal is over.
    fn end_line(&mut self, number: u64) {
        let line = self.handles.get_mut(&number).and_then(|handles| handles.line.take());
        terminals::end(self.standins.as_mut(), line);
    }

    /// The process is dead: its outputs end with what is in them now.
    pub(super) fn drain(&mut self, proc: ProcId) {
        let Some(&number) = self.numbers.get(&proc) else {
            return;
        };
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        handles.close_stdin(self.agent.as_mut());
        let limit = if handles.line.is_some() { Pipe::limit_to_what_comes } else { Pipe::limit_to_present };
        handles.outputs.iter_mut().flatten().for_each(limit);
        for fd in [1u8, 2] {
            self.drain_output(number, fd);
        }
    }

    /// Reads while there is room; the rest when there is room again.
    fn drain_output(&mut self, number: u64, fd: u8) {
        loop {
            let Some((proc, read)) = self.read_pipe(number, fd) else {
                return;
            };
            match read {
                Read::Bytes(bytes) => self.follow(Event::Read { proc, fd, bytes }),
                Read::Placed(length) => self.follow(Event::Placed { proc, fd, length }),
                Read::Over => {
                    let handles = self.handles.get_mut(&number);
                    if let Some(place) = handles.and_then(|handles| handles.outputs.get_mut(usize::from(fd - 1))) {
                        *place = None;
                    }
                    self.end_line(number);
                    self.follow(Event::OutputOver { proc, fd });
                }
                Read::Nothing => {
                    // Closed, or watched no longer until there is room.
                    self.watch_number(number, fd);
                    return;
                }
            }
        }
    }

    /// An event in the middle of an action: what follows from it comes after the other actions.
    pub(super) fn follow(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.handle(event, now(), &mut actions);
        self.actions.extend(actions);
    }
}

/// The last of the first `n` bytes that wait.
fn last_of(input: &Input, n: usize) -> u8 {
    input.pieces().iter().flat_map(Waiting::bytes).nth(n.saturating_sub(1)).copied().unwrap_or(b'\n')
}

//! Bytes: output from ghostd to where it goes, input from here to every rank.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;
use ghost_proto::client::{Ack, ClientToMaster, CloseStream};
use ghost_proto::frame::{Data, MAX_DATA, Placed};
use ghost_sys::ring::{RingReader, WORTH_A_RING};

use super::super::input_ring::{InputRing, input};
use super::super::output::{Broken, Channel, Content, Credit};
use super::super::stdin::{Place, Read};
use super::{Failure, Session, failure};

/// Input is not read on while this much waits to be sent, in bytes.
const BACKLOG: usize = 512 * 1024;
/// Input is read into a new buffer when the last one has less room than this, in bytes.
const WORTH_A_READ: usize = 64 * 1024;
const NO_DESCRIPTOR: &str = "output was lost: no number was left for a descriptor (see `ulimit -n`)";

impl Session {
    pub(super) fn data(&mut self, data: Data) -> Result<(), Failure> {
        let Some((rank, channel)) = self.stream(data.id, data.fd) else { return Ok(()) };
        self.arrived(rank, channel, data.offset, data.bytes.into(), data.eof)
    }

    pub(super) fn placed(&mut self, placed: &Placed, descriptor: Option<OwnedFd>) -> Result<(), Failure> {
        let Some((rank, channel)) = self.stream(placed.id, placed.fd) else { return Ok(()) };
        let place = &mut self.ranks[rank].rings[channel];
        if placed.new_ring {
            let Some(descriptor) = descriptor else { return Err(failure(NO_DESCRIPTOR)) };
            *place = Some(Rc::new(RingReader::open(&descriptor)?));
        }
        let length = placed.length as usize;
        let Some(ring) = place.clone().filter(|ring| length <= ring.size()) else {
            return Err(failure("ghostd refers to memory that it has not shared"));
        };
        if placed.last_of_ring {
            *place = None;
        }
        let content = Content::Ring { ring, offset: placed.offset, length };
        self.arrived(rank, channel, placed.offset, content, placed.eof)
    }

    /// The stream that a frame is about, if there is one.
    fn stream(&self, id: u64, fd: u8) -> Option<(usize, Channel)> {
        let (rank, channel) = (usize::try_from(id).ok()?, usize::from(fd).checked_sub(1)?);
        (rank < self.ranks.len() && channel < 2).then_some((rank, channel))
    }

    fn arrived(
        &mut self,
        rank: usize,
        channel: Channel,
        offset: u64,
        mut content: Content,
        eof: bool,
    ) -> Result<(), Failure> {
        let state = &mut self.ranks[rank];
        let skip = state.receivers[channel].receive(offset, content.len())?;
        if !state.done[channel] {
            content.advance(skip);
            if !content.is_empty() {
                self.output.push(rank, channel, content);
            }
            if eof {
                self.ranks[rank].done[channel] = true;
                self.check_complete(rank);
            }
        }
        Ok(())
    }

    /// Writes what goes; acknowledges what went.
    pub(super) fn write_output(&mut self) {
        loop {
            let mut broken = Vec::new();
            for credit in self.output.write(&mut broken) {
                self.acknowledge(credit);
            }
            if broken.is_empty() {
                return;
            }
            // May have something to say, which is to be written as well.
            for Broken { channel, error } in broken {
                self.close(channel, &error);
            }
        }
    }

    fn acknowledge(&mut self, Credit { rank, channel, bytes }: Credit) {
        let Some(state) = self.ranks.get_mut(rank) else { return };
        let receiver = &mut state.receivers[channel];
        receiver.consume(bytes);
        if !state.done[channel]
            && let Some(offset) = receiver.ack_due(false)
        {
            let (rank, fd) = (u32::try_from(rank).unwrap_or(u32::MAX), channel as u32 + 1);
            self.connection.queue(ClientToMaster::Ack(Ack { rank, fd, offset }));
        }
    }

    /// An output's reader is gone: the programs' writers get EPIPE, and it is for them to end.
    fn close(&mut self, channel: Channel, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.output_lost = true;
            // To a standard error that is itself what broke, it goes nowhere.
            self.output.message(&format!("bpsh: cannot write output: {}", crate::connection::plain(error)));
        }
        for rank in 0..self.ranks.len() {
            if !std::mem::replace(&mut self.ranks[rank].done[channel], true) {
                let (id, fd) = (u32::try_from(rank).unwrap_or(u32::MAX), channel as u32 + 1);
                self.connection.queue(ClientToMaster::CloseStream(CloseStream { rank: id, fd }));
                self.check_complete(rank);
            }
        }
    }

    pub(super) fn input_wanted(&self) -> bool {
        !self.is_away() && self.broadcast.room().is_some_and(|room| room > 0) && self.connection.backlog() < BACKLOG
    }

    /// Reads input as long as somebody takes it.
    ///
    /// # Errors
    /// Those that have not begun have no room for more, and the others wait for it.
    pub(super) fn read_input(&mut self) -> Result<(), Failure> {
        if !self.waiting.is_empty() && self.broadcast.room() == Some(0) {
            let text =
                "--fanout: there is more input than can be kept for those that have not begun; use -n, or -I FILE";
            return Err(failure(text));
        }
        while self.input_wanted() && (self.source_ready || self.source.always_ready()) && self.source.allowed() {
            let room = self.broadcast.room().unwrap_or(0).min(MAX_DATA);
            let offset = self.broadcast.sent();
            if self.input_ring.is_none() && self.connection.takes_placed() && offset >= WORTH_A_RING {
                // Without memory or a descriptor for it it goes on as it did.
                self.input_ring = InputRing::new(self.broadcast.window()).ok();
                self.input_ring.iter().for_each(|_| self.broadcast.place());
            }
            let place = match &self.input_ring {
                Some(ring) => Place::Ring(&ring.memory, offset),
                None => {
                    if self.buffer.capacity() < room.min(WORTH_A_READ) {
                        if self.buffer.capacity() == 0 {
                            self.connection.widen();
                        }
                        self.buffer.reserve(MAX_DATA);
                    }
                    Place::Buffer(&mut self.buffer)
                }
            };
            match self.source.read(place, room, self.source_ready) {
                Read::Bytes(n) => {
                    self.broadcast.send(n);
                    self.send_input(offset, n);
                    self.source_ready = false;
                }
                Read::Nothing => self.source_ready = false,
                Read::End => {
                    let offset = self.broadcast.end();
                    self.connection.queue_data(Data { eof: true, ..input(offset, Bytes::new()) });
                }
            }
        }
        Ok(())
    }

    /// Sends what has just been read.
    fn send_input(&mut self, offset: u64, n: usize) {
        if let Some(ring) = &mut self.input_ring {
            let frame = if self.connection.takes_placed() { ring.frame(offset, n) } else { None };
            match frame {
                Some((placed, descriptor)) => self.connection.queue_placed(&placed, descriptor),
                None => ring.copies(offset..offset + n as u64).for_each(|data| self.connection.queue_data(data)),
            }
            return;
        }
        let bytes = self.buffer.split().freeze();
        if self.home.resumes {
            self.broadcast.keep(bytes.clone());
        }
        self.connection.queue_data(input(offset, bytes));
    }
}

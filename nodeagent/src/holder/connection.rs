//! The agent's socket: frames in, frames out, never waiting.
//!
//! Invariant: a control frame waits for at most [`BULK`] bytes of data that were handed to the socket's queue before it.
//! A lease that has come waits for nothing that came before it, if what takes time is interrupted for [`Connection::leases`].
//! What waits to go out is bounded by the streams' windows and the number of processes, not by this module.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{Data, Decoder, Frame, MAX_CONTROL, Offer, Placed};
use ghost_proto::ids::ProcId;
use ghost_proto::node::{Lease, MasterToNode, NodeToMaster};
use ghost_proto::relay::Relay;
use ghost_sys::fdpass;
use nix::sys::socket::{setsockopt, sockopt};

use super::rings::Ring;

/// Data bytes that are committed to go out before the next control frame.
const BULK: usize = 256 * 1024;
/// Socket buffer towards the agent, in bytes: a few of the largest frames.
const SOCKET_BUFFER: usize = 1024 * 1024;
/// Pieces that go out with one call.
const PIECES: usize = 64;
/// Bytes read at once.
const READ: usize = 256 * 1024;
/// When this much control waits because the agent does not read, nothing more is taken from it.
const MOST_CONTROL: usize = 8 * 1024 * 1024;
/// Bytes that are read beyond what was taken, in search of a lease.
const AHEAD: usize = 64 * 1024 * 1024;

/// What came.
#[derive(Debug)]
pub enum Received {
    Message(MasterToNode),
    Data(Data),
    /// Bytes lie in a process's ring.
    Placed(Placed),
    Relay(Relay),
}

/// Bulk that waits.
#[derive(Debug)]
enum Bulk {
    Data(Data),
    /// A whole frame; with the descriptor of a new ring, if it says where data lies.
    Frame(Bytes, Option<OwnedFd>),
}

/// Bytes that go out, and a descriptor that goes with the first of them.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    descriptor: Option<OwnedFd>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Piece {
        Piece { bytes, descriptor: None }
    }
}

/// A connection of the agent.
#[derive(Debug)]
pub struct Connection {
    /// No other has it.
    number: u64,
    /// What the agent does.
    offer: Offer,
    stream: UnixStream,
    decoder: Decoder,
    input: BytesMut,
    /// What was found before a lease, or in search of one, and its bytes.
    passed: VecDeque<Received>,
    passed_bytes: usize,
    control: VecDeque<Bytes>,
    control_bytes: usize,
    data: VecDeque<Bulk>,
    /// In the order in which they go out.
    committed: VecDeque<Piece>,
    /// The socket was full.
    pub blocked: bool,
}

impl Connection {
    /// `number`: one that no other connection has, not 0.
    pub fn new(stream: UnixStream, number: u64) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        // Without the right to more than the system's usual size it gets that.
        let _ = setsockopt(&stream, sockopt::SndBufForce, &SOCKET_BUFFER);
        Ok(Connection {
            number,
            offer: Offer::default(),
            stream,
            decoder: Decoder::new(MAX_CONTROL),
            input: BytesMut::new(),
            passed: VecDeque::new(),
            passed_bytes: 0,
            control: VecDeque::new(),
            control_bytes: 0,
            data: VecDeque::new(),
            committed: VecDeque::new(),
            blocked: false,
        })
    }

    pub fn send(&mut self, message: NodeToMaster) {
        let frame = message.to_frame();
        self.control_bytes += frame.len();
        self.control.push_back(frame);
    }

    pub fn send_data(&mut self, data: Data) {
        self.data.push_back(Bulk::Data(data));
    }

    /// A piece of a command's connection.
    pub fn send_relay(&mut self, relay: &Relay) {
        self.data.push_back(Bulk::Frame(relay.to_frame(), None));
    }

    /// Whether this agent reads rings.
    pub fn takes_placed(&self) -> bool {
        self.offer.placed
    }

    /// Whether it puts into rings what processes read.
    pub fn fills(&self) -> bool {
        self.offer.fills
    }

    /// Sends what lies in a ring: the agent gets the ring with it if it has not had it, or the bytes if that cannot be.
    pub fn send_placed(&mut self, mut placed: Placed, ring: &mut Ring) {
        let mut descriptor = None;
        if self.offer.placed && ring.known_on != self.number {
            descriptor = ring.descriptor.try_clone().ok();
            if descriptor.is_some() {
                ring.known_on = self.number;
            }
        }
        if ring.known_on != self.number {
            let length = placed.length as usize;
            let mut bytes = BytesMut::with_capacity(length);
            ring.memory.copy_out(placed.offset, length, &mut bytes);
            let Placed { id, offset, fd, eof, .. } = placed;
            return self.send_data(Data { id, offset, fd, eof, bytes: bytes.freeze() });
        }
        placed.new_ring = descriptor.is_some();
        self.push_placed(&placed, descriptor);
    }

    /// The ring of an input, for this agent alone.
    pub fn give_ring(&mut self, proc: ProcId, descriptor: OwnedFd) {
        self.push_placed(&Placed { id: proc.0, new_ring: true, ..Placed::default() }, Some(descriptor));
    }

    /// Nothing that lies in this ring will be sent any more.
    pub fn give_up(&mut self, proc: ProcId, fd: u8, ring: &Ring) {
        if ring.known_on == self.number {
            self.last_of_ring(proc, fd);
        }
    }

    /// The same of one that this agent has.
    pub fn last_of_ring(&mut self, proc: ProcId, fd: u8) {
        self.push_placed(&Placed { id: proc.0, fd, last_of_ring: true, ..Placed::default() }, None);
    }

    fn push_placed(&mut self, placed: &Placed, descriptor: Option<OwnedFd>) {
        let mut frame = BytesMut::new();
        placed.encode(&mut frame);
        self.data.push_back(Bulk::Frame(frame.freeze(), descriptor));
    }

    /// Whether more is to be read from the agent.
    pub fn takes(&self) -> bool {
        self.control_bytes < MOST_CONTROL
    }

    /// Reads once. `Ok(false)`: the agent is gone.
    ///
    /// # Errors
    /// WouldBlock, and those of a broken connection.
    pub fn fill(&mut self) -> io::Result<bool> {
        self.input.reserve(READ);
        Ok(ghost_sys::pipe::read_buf(&self.stream, &mut self.input, READ)? > 0)
    }

    /// The next frame that has arrived whole.
    ///
    /// # Errors
    /// The bytes are no frames, or no messages.
    pub fn receive(&mut self) -> Result<Option<Received>, String> {
        match self.passed.pop_front() {
            Some(received) => Ok(Some(received)),
            None => {
                self.passed_bytes = 0;
                self.decode()
            }
        }
    }

    /// Leases that have come behind what is still to be taken: an answer to them must not wait for that, which may be some thousand
    /// processes to be started. Nothing else overtakes anything.
    ///
    /// # Errors
    /// Those of [`Connection::receive`]. That the connection has ended is found later.
    pub fn leases(&mut self) -> Result<Vec<Lease>, String> {
        let mut leases = Vec::new();
        while self.passed_bytes < AHEAD {
            let read = self.fill().unwrap_or(false);
            let before = self.input.len();
            while let Some(received) = self.decode()? {
                match received {
                    Received::Message(MasterToNode::Lease(lease)) => leases.push(lease),
                    other => self.passed.push_back(other),
                }
            }
            self.passed_bytes += before - self.input.len();
            if !read {
                break;
            }
        }
        Ok(leases)
    }

    fn decode(&mut self) -> Result<Option<Received>, String> {
        loop {
            match self.decoder.next(&mut self.input).map_err(|why| why.to_string())? {
                None => return Ok(None),
                Some(Frame::Data(data)) => return Ok(Some(Received::Data(data))),
                Some(Frame::Relay(relay)) => return Ok(Some(Received::Relay(relay))),
                // The agent has taken out what is its own.
                Some(Frame::Agent(_)) => {}
                Some(Frame::Offer(offer)) => self.offer = offer,
                Some(Frame::Placed(placed)) => return Ok(Some(Received::Placed(placed))),
                Some(Frame::Control(body)) => {
                    // A message of a later version is skipped.
                    if let Some(message) = MasterToNode::decode_body(body).map_err(|why| why.to_string())? {
                        return Ok(Some(Received::Message(message)));
                    }
                }
            }
        }
    }

    /// Writes what goes without waiting.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        self.blocked = false;
        loop {
            if self.committed.is_empty() {
                self.commit();
                if self.committed.is_empty() {
                    return Ok(());
                }
            }
            // A descriptor goes with the first byte of a call.
            let plain = self.committed.iter().skip(1).position(|piece| piece.descriptor.is_some());
            let count = plain.map_or(PIECES, |plain| (plain + 1).min(PIECES));
            let pieces: Vec<IoSlice<'_>> =
                self.committed.iter().take(count).map(|piece| IoSlice::new(&piece.bytes)).collect();
            let descriptor = self.committed.front().and_then(|piece| piece.descriptor.as_ref()).map(AsFd::as_fd);
            match fdpass::send_pieces(&self.stream, &pieces, descriptor) {
                Ok(n) => self.written(n),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// All control, then some data.
    fn commit(&mut self) {
        self.control_bytes = 0;
        self.committed.extend(self.control.drain(..).map(Piece::from));
        let mut heads = BytesMut::new();
        let mut bulk = 0;
        while bulk < BULK
            && let Some(next) = self.data.pop_front()
        {
            match next {
                Bulk::Data(data) => {
                    data.put_head(&mut heads);
                    self.committed.push_back(heads.split().freeze().into());
                    bulk += data.bytes.len();
                    if !data.bytes.is_empty() {
                        self.committed.push_back(data.bytes.into());
                    }
                }
                Bulk::Frame(bytes, descriptor) => {
                    bulk += bytes.len();
                    self.committed.push_back(Piece { bytes, descriptor });
                }
            }
        }
    }

    fn written(&mut self, mut n: usize) {
        while let Some(first) = self.committed.front_mut() {
            if n > 0 {
                first.descriptor = None;
            }
            if first.bytes.len() > n {
                first.bytes.advance(n);
                break;
            }
            n -= first.bytes.len();
            self.committed.pop_front();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ghost_proto::node::{EndAll, Forget, Spawn};

    use super::*;

    fn connection(messages: &[MasterToNode]) -> (Connection, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        for message in messages {
            theirs.write_all(&message.clone().to_frame()).expect("written");
        }
        (Connection::new(ours, 1).expect("a connection"), theirs)
    }

    fn received(connection: &mut Connection) -> Vec<MasterToNode> {
        std::iter::from_fn(|| match connection.receive().expect("frames") {
            Some(Received::Message(message)) => Some(message),
            other => other.map(|other| panic!("{other:?}")),
        })
        .collect()
    }

    fn spawn(proc: u64) -> MasterToNode {
        MasterToNode::Spawn(Spawn { proc, ..Spawn::default() })
    }

    #[test]
    fn leases_overtake_what_takes_time_and_nothing_else_does() {
        let (first, second) = (Lease { seq: 1, second: false }, Lease { seq: 2, second: true });
        let mut sent: Vec<_> = (0..100).map(spawn).collect();
        sent.insert(30, MasterToNode::Forget(Forget { proc: 7 }));
        sent.insert(60, MasterToNode::Lease(first.clone()));
        sent.push(MasterToNode::Lease(second.clone()));
        sent.push(MasterToNode::EndAll(EndAll {}));
        let (mut connection, mut theirs) = connection(&sent);
        assert!(connection.fill().expect("bytes"));
        assert!(matches!(connection.receive(), Ok(Some(Received::Message(MasterToNode::Spawn(_))))));
        assert_eq!(connection.leases().expect("frames"), [first, second]);
        sent.remove(0);
        sent.retain(|message| !matches!(message, MasterToNode::Lease(_)));
        // What comes later stays behind.
        theirs.write_all(&spawn(1000).to_frame()).expect("written");
        sent.push(spawn(1000));
        assert!(connection.fill().expect("bytes"));
        assert_eq!(received(&mut connection), sent);
        assert_eq!(connection.leases().expect("frames"), []);
    }

    #[test]
    fn half_a_lease_is_none_yet() {
        let lease = MasterToNode::Lease(Lease { seq: 9, second: false }).to_frame();
        let (mut connection, mut theirs) = connection(&[spawn(1)]);
        theirs.write_all(&lease[..5]).expect("written");
        assert_eq!(connection.leases().expect("frames"), []);
        theirs.write_all(&lease[5..]).expect("written");
        // Also for what another test forks just now, and has it, too, until its exec.
        theirs.shutdown(std::net::Shutdown::Both).expect("shut down");
        assert_eq!(connection.leases().expect("frames"), [Lease { seq: 9, second: false }]);
        assert_eq!(received(&mut connection), [spawn(1)]);
        assert!(!connection.fill().expect("the end"));
    }
}

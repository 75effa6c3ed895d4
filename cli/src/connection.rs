//! A command's connection to ghostd: hello, frames, and descriptors that come along.
//!
//! Invariant: this end never waits on the socket unless [`Connection::request`] is called; bpsh's loop uses
//! [`Connection::fill`], [`Connection::next_frame`] and [`Connection::flush`], which do as much as goes at once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ghost_proto::client::{self, ClientToMaster, Hello, MasterToClient, Refused};
use ghost_proto::frame::{Data, Decoder, Frame, FrameError, MAX_CONTROL, Offer, Placed};
use ghost_proto::instance::{self, BadInstance, Instance};
use ghost_proto::{Control, VERSION};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::rope::Rope;

/// Bytes read from the socket at a time: little at first, since room costs page faults, more once it is filled.
const READ_FIRST: usize = 8 * 1024;
const READ_MOST: usize = 512 * 1024;
/// Room for what is sent that is asked for where it is bulk, in bytes.
const SEND_MOST: usize = 1024 * 1024;
/// Pieces that go out with one call.
const PIECES: usize = 64;

/// The instance that was asked for: by option, else by `GHOSTPROC_INSTANCE`, else the default.
///
/// # Errors
/// The name cannot be an instance's.
pub fn instance(option: Option<&str>) -> Result<Instance, BadInstance> {
    if let Some(name) = option {
        return name.parse();
    }
    match std::env::var(instance::ENVIRONMENT) {
        Ok(name) if !name.is_empty() => name.parse(),
        _ => Ok(Instance::default()),
    }
}

/// Set to `no`, what bpsh launches cannot reach files here by bpcp.
const REACH: &str = "GHOSTPROC_REACH";

fn features() -> Vec<String> {
    let serves = std::env::var_os(REACH).is_none_or(|value| value != "no");
    [(true, client::RESUME), (serves, client::SERVE)]
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, f)| (*f).to_owned())
        .collect()
}

/// Whether this process runs on a node, and asks the master from there.
pub fn is_on_node(instance: &Instance) -> bool {
    socket_of(instance) == instance.node_socket()
}

/// Where commands connect: to ghostd on the master, to the holder on a node, which carries it to ghostd. On a machine that is both, what
/// the cluster runs there asks the holder, as on any node.
fn socket_of(instance: &Instance) -> PathBuf {
    let (master, node) = (instance.ghostd_socket(), instance.node_socket());
    let is_cluster_process = || std::fs::read("/proc/1/comm").is_ok_and(|name| name == b"ghost-holder\n");
    if node.exists() && (!master.exists() || is_cluster_process()) { node } else { master }
}

/// Why ghostd cannot be talked to. The texts have their reasons in them: nothing is behind them in a chain.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("cannot reach ghostd at {}: {}; is ghostd running?", path.display(), plain(error))]
    Unreachable { path: PathBuf, error: io::Error },
    #[error("lost the connection to ghostd: {}", plain(.0))]
    Lost(io::Error),
    #[error("ghostd closed the connection")]
    Closed,
    #[error("ghostd sent what cannot be read: {0}")]
    Frame(FrameError),
    #[error("ghostd sent what cannot be read: {0}")]
    Message(prost::DecodeError),
    #[error("{}", .0.text)]
    Refused(Refused),
}

/// An error's text as strerror(3) has it, without Rust's number behind it.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// What ghostd has sent.
#[derive(Debug)]
pub enum Incoming {
    Message(MasterToClient),
    Data(Data),
    /// Only after [`Connection::offer`]. With the descriptor of the stream's ring if it is a new one.
    Placed(Placed, Option<OwnedFd>),
}

#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    input: BytesMut,
    output: Rope,
    /// Goes with the byte that stands behind so many in the output.
    passing: Option<(usize, OwnedFd)>,
    /// ghostd fetches input from shared memory.
    takes_placed: bool,
    descriptors: VecDeque<OwnedFd>,
    read_size: usize,
    program: String,
    features: Option<Vec<String>>,
}

impl Connection {
    /// Connects and queues the hello.
    ///
    /// # Errors
    /// [`ConnectionError::Unreachable`].
    pub fn open(instance: &Instance, program: &str) -> Result<Connection, ConnectionError> {
        let path = socket_of(instance);
        let socket = UnixStream::connect(&path).map_err(|error| ConnectionError::Unreachable { path, error })?;
        let mut connection = Connection::over(socket);
        connection.queue(ClientToMaster::Hello(Hello {
            version: VERSION,
            features: features(),
            program: format!("{program} {}", env!("CARGO_PKG_VERSION")),
        }));
        Ok(connection)
    }

    fn over(socket: UnixStream) -> Connection {
        Connection {
            socket,
            decoder: Decoder::new(MAX_CONTROL),
            input: BytesMut::new(),
            output: Rope::default(),
            passing: None,
            takes_placed: false,
            descriptors: VecDeque::new(),
            read_size: READ_FIRST,
            program: String::new(),
            features: None,
        }
    }

    /// Sends a request and waits for the answer to it; a refusal is an error.
    ///
    /// # Errors
    /// All of [`ConnectionError`] but `Unreachable`.
    pub fn request(&mut self, message: ClientToMaster) -> Result<MasterToClient, ConnectionError> {
        self.request_within(message, None)
    }

    /// As [`Self::request`], with a limit to how long the answer may take.
    ///
    /// # Errors
    /// The same, and [`ConnectionError::Lost`] with ETIMEDOUT.
    pub fn request_within(
        &mut self,
        message: ClientToMaster,
        limit: Option<Duration>,
    ) -> Result<MasterToClient, ConnectionError> {
        let end = limit.map(|limit| Instant::now() + limit);
        self.queue(message);
        self.socket.set_nonblocking(false).map_err(ConnectionError::Lost)?;
        while !self.flush()? {}
        loop {
            while let Some(incoming) = self.next_frame()? {
                match incoming {
                    Incoming::Message(MasterToClient::Refused(refused)) => {
                        return Err(ConnectionError::Refused(refused));
                    }
                    Incoming::Message(MasterToClient::Hello(hello)) => self.greeted(hello),
                    Incoming::Data(_) | Incoming::Placed(..) => {}
                    Incoming::Message(answer) => return Ok(answer),
                }
            }
            if let Some(end) = end {
                self.readable_until(end)?;
            }
            self.fill()?;
        }
    }

    fn greeted(&mut self, hello: Hello) {
        (self.program, self.features) = (hello.program, Some(hello.features));
    }

    /// Whether ghostd has a feature; waits for its hello.
    ///
    /// # Errors
    /// All of [`ConnectionError`] but `Unreachable`.
    pub fn has(&mut self, feature: &str) -> Result<bool, ConnectionError> {
        self.socket.set_nonblocking(false).map_err(ConnectionError::Lost)?;
        while !self.flush()? {}
        loop {
            if let Some(features) = &self.features {
                return Ok(features.iter().any(|known| known == feature));
            }
            match self.next_frame()? {
                Some(Incoming::Message(MasterToClient::Hello(hello))) => self.greeted(hello),
                Some(Incoming::Message(MasterToClient::Refused(refused))) => {
                    return Err(ConnectionError::Refused(refused));
                }
                Some(_) => {}
                None => self.fill()?,
            }
        }
    }

    fn readable_until(&self, end: Instant) -> Result<(), ConnectionError> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => Err(ConnectionError::Lost(Errno::ETIMEDOUT.into())),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(ConnectionError::Lost(errno.into())),
        }
    }

    /// Waits until ghostd has closed the connection.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`] with ETIMEDOUT: it has not.
    pub fn until_closed(&mut self, limit: Duration) -> Result<(), ConnectionError> {
        let end = Instant::now() + limit;
        loop {
            self.readable_until(end)?;
            match self.fill() {
                Ok(()) => {}
                Err(ConnectionError::Closed | ConnectionError::Lost(_)) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    }

    /// The socket, for other things than frames, and what has come on it already.
    pub fn into_socket(self) -> (UnixStream, BytesMut) {
        (self.socket, self.input)
    }

    /// ghostd's name and release, as its hello had it.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// From now on nothing waits.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`].
    pub fn set_nonblocking(&mut self) -> Result<(), ConnectionError> {
        self.socket.set_nonblocking(true).map_err(ConnectionError::Lost)
    }

    /// More room in the socket, for bulk that is sent: as much as an ordinary user may have (socket(7), `wmem_max`).
    pub fn widen(&self) {
        // It only goes slower without.
        let _ = setsockopt(&self.socket, sockopt::SndBuf, &SEND_MOST);
    }

    /// Tells ghostd that output may come in shared memory.
    pub fn offer(&mut self) {
        self.output.put(|bytes| Offer { placed: true, fills: false }.encode(bytes));
    }

    pub fn queue(&mut self, message: ClientToMaster) {
        self.output.put(|bytes| message.encode_frame(bytes));
    }

    pub fn queue_data(&mut self, data: Data) {
        self.output.put(|bytes| data.put_head(bytes));
        self.output.push(data.bytes);
    }

    /// Whether ghostd has said that it takes what [`Self::queue_placed`] sends: once there was a large piece of input.
    pub fn takes_placed(&self) -> bool {
        self.takes_placed
    }

    /// Says where input lies; with the descriptor of a new ring.
    pub fn queue_placed(&mut self, placed: &Placed, descriptor: Option<OwnedFd>) {
        if let Some(descriptor) = descriptor {
            self.passing = Some((self.output.len(), descriptor));
        }
        self.output.put(|bytes| placed.encode(bytes));
    }

    /// Bytes that wait to be sent.
    pub fn backlog(&self) -> usize {
        self.output.len()
    }

    /// Sends what is queued; whether all of it is out.
    ///
    /// # Errors
    /// [`ConnectionError::Lost`].
    pub fn flush(&mut self) -> Result<bool, ConnectionError> {
        while !self.output.is_empty() {
            let (most, descriptor) = match &self.passing {
                Some((0, descriptor)) => (usize::MAX, Some(descriptor.as_fd())),
                Some((before, _)) => (*before, None),
                None => (usize::MAX, None),
            };
            let pieces = self.output.slices(PIECES, most);
            match ghost_sys::fdpass::send_pieces(&self.socket, &pieces, descriptor) {
                Ok(n) => {
                    self.output.advance(n);
                    self.passing = match self.passing.take() {
                        Some((before, descriptor)) if before > 0 => Some((before - n, descriptor)),
                        _ => None,
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // Why it was closed may still be there to be read, and that it was is seen when that has been.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.output.clear(),
                Err(error) => return Err(ConnectionError::Lost(error)),
            }
        }
        Ok(true)
    }

    /// Reads once what is there.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] at the end of file, [`ConnectionError::Lost`].
    pub fn fill(&mut self) -> Result<(), ConnectionError> {
        let old = self.input.len();
        self.input.resize(old + self.read_size, 0);
        let mut arrived = Vec::new();
        let result = ghost_sys::fdpass::receive(&self.socket, &mut self.input[old..], &mut arrived);
        let n = result.as_ref().map_or(0, |n| *n);
        self.input.truncate(old + n);
        if n == self.read_size {
            self.read_size = (self.read_size * 2).min(READ_MOST);
        }
        self.descriptors.extend(arrived);
        match result {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(()),
            Err(error) => Err(ConnectionError::Lost(error)),
        }
    }

    /// The next frame that has arrived whole; messages that this version does not know are skipped.
    ///
    /// # Errors
    /// What came is no frame or no message.
    pub fn next_frame(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        while let Some(frame) = self.decoder.next(&mut self.input).map_err(ConnectionError::Frame)? {
            match frame {
                Frame::Data(data) => return Ok(Some(Incoming::Data(data))),
                Frame::Agent(_) | Frame::Relay(_) => {}
                Frame::Placed(placed) => {
                    // It came with the frame's first byte, if not before.
                    let descriptor = if placed.new_ring { self.descriptors.pop_front() } else { None };
                    return Ok(Some(Incoming::Placed(placed, descriptor)));
                }
                Frame::Offer(offer) => self.takes_placed = offer.placed,
                Frame::Control(body) => {
                    if let Some(message) = MasterToClient::decode_body(body).map_err(ConnectionError::Message)? {
                        return Ok(Some(Incoming::Message(message)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The first descriptor that has come and not been taken yet.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::client::{Launched, NodesReply, NodesRequest};
    use std::io::{Read, Write};

    #[test]
    fn a_request_skips_the_hello_and_gets_its_answer() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        let mut out = BytesMut::new();
        MasterToClient::Hello(Hello::default()).encode_frame(&mut out);
        MasterToClient::Nodes(NodesReply::default()).encode_frame(&mut out);
        theirs.write_all(&out).expect("write");
        let mut connection = Connection::over(ours);
        let request = ClientToMaster::Nodes(NodesRequest::default());
        let answer = connection.request(request.clone()).expect("answer");
        assert_eq!(answer, MasterToClient::Nodes(NodesReply::default()));
        drop(connection);
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).expect("read");
        assert_eq!(sent, request.to_frame());
    }

    #[test]
    fn what_ghostd_can_do_is_known_from_its_hello() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        let hello = Hello { features: vec!["watch".to_owned()], ..Hello::default() };
        theirs.write_all(&MasterToClient::Hello(hello).to_frame()).expect("write");
        let mut connection = Connection::over(ours);
        let has = ["watch", "fly"].map(|feature| connection.has(feature).expect("a hello"));
        assert_eq!(has, [true, false]);
        theirs.write_all(&MasterToClient::Nodes(NodesReply::default()).to_frame()).expect("write");
        assert!(connection.request(ClientToMaster::Nodes(NodesRequest::default())).is_ok(), "nothing else is taken");
    }

    #[test]
    fn a_refusal_and_an_end_are_errors() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        let refused = Refused { text: "no".to_owned(), position: Some(2) };
        theirs.write_all(&MasterToClient::Refused(refused.clone()).to_frame()).expect("write");
        let mut connection = Connection::over(ours);
        let request = ClientToMaster::Nodes(NodesRequest::default());
        match connection.request(request.clone()) {
            Err(ConnectionError::Refused(reason)) => assert_eq!(reason, refused),
            other => panic!("{other:?}"),
        }
        drop(theirs);
        assert!(matches!(connection.request(request), Err(ConnectionError::Lost(_) | ConnectionError::Closed)));
    }

    #[test]
    fn a_ring_goes_with_the_frame_that_is_about_it() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let mut connection = Connection::over(ours);
        connection.set_nonblocking().expect("nonblocking");
        let data = Data { id: 1, offset: 0, fd: 0, eof: false, bytes: vec![7; 9000].into() };
        connection.queue_data(data.clone());
        let (_memory, ring) = ghost_sys::ring::RingWriter::new(1000).expect("ring");
        let placed = Placed { id: 1, offset: 9000, length: 100, new_ring: true, ..Placed::default() };
        connection.queue_placed(&placed, Some(ring));
        connection.queue_data(data);
        assert!(connection.flush().expect("sent"));
        let (mut got, mut descriptors, mut seen) = (BytesMut::new(), Vec::new(), None);
        drop(connection);
        loop {
            got.reserve(5000);
            let n = ghost_sys::fdpass::receive_buf(&theirs, &mut got, 5000, &mut descriptors).expect("receive");
            if seen.is_none() && !descriptors.is_empty() {
                seen = Some((got.len() - n, got.len()));
            }
            if n == 0 {
                break;
            }
        }
        let mut expected = BytesMut::new();
        placed.encode(&mut expected);
        let at = got.windows(expected.len()).position(|bytes| *bytes == expected[..]).expect("the frame");
        let (before, behind) = seen.expect("a descriptor");
        assert!((before..behind).contains(&at), "with {before}..{behind}, the frame is at {at}");
        assert_eq!(descriptors.len(), 1);
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let (reader, _writer) = std::io::pipe().expect("pipe");
        let bytes = MasterToClient::Launched(Launched::default()).to_frame();
        ghost_sys::fdpass::send(&theirs, &bytes, Some(reader.as_fd())).expect("send");
        let mut connection = Connection::over(ours);
        connection.set_nonblocking().expect("nonblocking");
        connection.fill().expect("fill");
        assert!(matches!(connection.next_frame(), Ok(Some(Incoming::Message(MasterToClient::Launched(_))))));
        assert!(connection.take_descriptor().is_some());
        assert!(connection.take_descriptor().is_none());
        assert!(matches!(connection.next_frame(), Ok(None)));
    }
}

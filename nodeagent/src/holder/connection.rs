//! The agent's socket: frames in, frames out, never waiting.
//!
//! Invariant: a control frame waits for at most [`BULK`] bytes of data that were handed to the socket's queue before it.
//! What waits to go out is bounded by the streams' windows and the number of processes, not by this module.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{Data, Decoder, Frame, MAX_CONTROL};
use ghost_proto::node::{MasterToNode, NodeToMaster};
use nix::sys::socket::{setsockopt, sockopt};

/// Data bytes that are committed to go out before the next control frame.
const BULK: usize = 256 * 1024;
/// Socket buffer towards the agent, in bytes: a few of the largest frames.
const SOCKET_BUFFER: usize = 1024 * 1024;
/// Bytes read at once.
const READ: usize = 256 * 1024;
/// When this much control waits because the agent does not read, nothing more is taken from it.
const MOST_CONTROL: usize = 8 * 1024 * 1024;

/// What came.
#[derive(Debug)]
pub enum Received {
    Message(MasterToNode),
    Data(Data),
}

/// A connection of the agent.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    input: BytesMut,
    control: VecDeque<Bytes>,
    control_bytes: usize,
    data: VecDeque<Data>,
    /// In the order in which they go out.
    committed: VecDeque<Bytes>,
    /// The socket was full.
    pub blocked: bool,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        // Without the right to more than the system's usual size it gets that.
        let _ = setsockopt(&stream, sockopt::SndBufForce, &SOCKET_BUFFER);
        Ok(Connection {
            stream,
            decoder: Decoder::new(MAX_CONTROL),
            input: BytesMut::new(),
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
        self.data.push_back(data);
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
        loop {
            match self.decoder.next(&mut self.input).map_err(|why| why.to_string())? {
                None => return Ok(None),
                Some(Frame::Data(data)) => return Ok(Some(Received::Data(data))),
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
            let pieces: Vec<IoSlice<'_>> = self.committed.iter().take(64).map(|bytes| IoSlice::new(bytes)).collect();
            match (&self.stream).write_vectored(&pieces) {
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
        self.committed.append(&mut self.control);
        let mut heads = BytesMut::new();
        let mut bulk = 0;
        while bulk < BULK
            && let Some(data) = self.data.pop_front()
        {
            data.put_head(&mut heads);
            self.committed.push_back(heads.split().freeze());
            bulk += data.bytes.len();
            if !data.bytes.is_empty() {
                self.committed.push_back(data.bytes);
            }
        }
    }

    fn written(&mut self, mut n: usize) {
        while let Some(first) = self.committed.front_mut() {
            if first.len() > n {
                first.advance(n);
                break;
            }
            n -= first.len();
            self.committed.pop_front();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

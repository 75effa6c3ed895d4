//! Streams: stdin from the client to all its ranks, stdout and stderr back.

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::client::{self, MasterToClient};
use ghost_proto::frame::{ALL_RANKS, Data};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId, Stream};
use ghost_proto::launch::Stdio;
use ghost_proto::node::{self, MasterToNode};

use super::types::Stdin;
use super::{Action, ClientId, Core, LinkId};

/// Pieces of input up to this size are joined, in bytes.
const SMALL: usize = 4096;

impl Core {
    /// Standard input of a launch. It is kept until every live reader has it, so that a rank that starts later, or whose
    /// node reconnects, gets all of it.
    pub(super) fn client_data(&mut self, client: ClientId, data: Data) {
        let Some(id) = self.clients.get(&client).and_then(|c| c.launch) else {
            return self.refuse(client, "input came before a launch", None);
        };
        let floor = self.stdin_floor(id);
        let Some(launch) = self.launches.get_mut(&id) else { return };
        let end = data.offset.saturating_add(data.bytes.len() as u64);
        // One that was found may have no ghost that reads its file.
        let begun = launch.file.is_some() || launch.ranks.iter().any(Option::is_some);
        let fits = begun
            && data.id == ALL_RANKS
            && u32::from(data.fd) == Stream::Stdin.fd()
            && launch.program.descriptor(0) == Stdio::Stream
            && data.offset == launch.stdin.received
            && !launch.stdin.eof
            && end <= floor.unwrap_or(u64::MAX).saturating_add(u64::from(launch.window));
        if !fits {
            return self.refuse(client, "input does not follow what was sent before, or exceeds the window", None);
        }
        launch.stdin.received = end;
        self.counts.stream_bytes[0] += data.bytes.len() as u64;
        launch.stdin.eof = data.eof;
        if floor.is_none() {
            return;
        }
        launch.stdin.keep(data.offset, &data.bytes);
        let ranks: Vec<ProcId> = launch.ranks.iter().flatten().copied().collect();
        for process in ranks {
            self.send_stdin(process, data.offset, data.bytes.clone(), data.eof);
        }
    }

    /// The least offset that a live reader of the launch has acknowledged, `None` if nobody reads any more.
    fn stdin_floor(&self, id: LaunchId) -> Option<u64> {
        let ranks = self.launches.get(&id)?.ranks.iter().flatten();
        ranks.filter_map(|p| self.processes.get(p)).filter(|p| p.stdin_open).map(|p| p.stdin_acked).min()
    }

    fn send_stdin(&mut self, id: ProcId, offset: u64, bytes: Bytes, eof: bool) {
        let Some(process) = self.processes.get(&id) else { return };
        if !process.stdin_open || !process.remote.is_live() {
            return;
        }
        // A node whose link is down gets it all when it comes back.
        let Some(link) = self.nodes.get(&process.node).and_then(|n| n.link) else { return };
        let data = Data { id: id.0, offset, fd: 0, eof, bytes };
        self.act(Action::SendNode { node: process.node, link, data });
    }

    /// All input that a rank has not acknowledged: at its start, and after a reconnect.
    pub(super) fn send_stdin_so_far(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(launch) = self.launches.get(&process.launch) else { return };
        let acked = process.stdin_acked;
        let (eof, received) = (launch.stdin.eof, launch.stdin.received);
        let pieces: Vec<(u64, Bytes)> = launch.stdin.pieces.iter().cloned().collect();
        for (offset, bytes) in pieces {
            if offset + bytes.len() as u64 > acked {
                self.send_stdin(id, offset, bytes, false);
            }
        }
        if eof {
            self.send_stdin(id, received, Bytes::new(), true);
        }
    }

    pub(super) fn node_acked(&mut self, id: ProcId, offset: u64) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(launch) = self.launches.get(&process.launch) else { return };
        if offset <= process.stdin_acked || offset > launch.stdin.received.max(launch.stdin.before) {
            return;
        }
        process.stdin_acked = offset;
        let (launch, rank) = (process.launch, process.rank);
        self.tell_launcher(launch, MasterToClient::Ack(client::Ack { rank, fd: 0, offset }));
        self.acknowledge_stdin(launch);
    }

    pub(super) fn stdin_gone(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !std::mem::take(&mut process.stdin_open) {
            return;
        }
        let (launch, rank) = (process.launch, process.rank);
        self.tell_launcher(launch, MasterToClient::StdinGone(client::StdinGone { rank }));
        self.acknowledge_stdin(launch);
    }

    /// Drops the input that every live reader has.
    pub(super) fn acknowledge_stdin(&mut self, id: LaunchId) {
        let floor = self.stdin_floor(id).unwrap_or(u64::MAX);
        let Some(launch) = self.launches.get_mut(&id) else { return };
        while let Some((offset, bytes)) = launch.stdin.pieces.front()
            && offset + bytes.len() as u64 <= floor
        {
            launch.stdin.pieces.pop_front();
        }
    }

    /// Output of a process.
    pub(super) fn node_data(&mut self, node: NodeNumber, link: LinkId, mut data: Data) {
        if !self.is_current(node, link) {
            return;
        }
        let id = ProcId(data.id);
        let Some(process) = self.processes.get_mut(&id).filter(|p| p.node == node) else { return };
        let Some(output) = usize::from(data.fd).checked_sub(1).and_then(|i| process.outputs.get_mut(i)) else { return };
        if output.eof || output.closed {
            return;
        }
        match output.receive(&data) {
            Ok(old) => {
                data.bytes.advance(old);
                data.offset += old as u64;
            }
            Err(error) => {
                tracing::error!(node = node.0, process = id.0, "the node is disconnected: {error}");
                return self.act(Action::CloseNode { node, link });
            }
        }
        output.eof = data.eof;
        self.counts.stream_bytes[usize::from(data.fd)] += data.bytes.len() as u64;
        let launch = process.launch;
        data.id = u64::from(process.rank);
        let fd = u32::from(data.fd);
        match self.launches.get(&launch) {
            Some(launch) if launch.absent => {
                if let Some(output) = self.processes.get_mut(&id).and_then(|p| p.outputs.get_mut(fd as usize - 1)) {
                    output.waiting.push(data);
                }
            }
            Some(launch) if !launch.ended && (data.eof || !data.bytes.is_empty()) => {
                let client = launch.client;
                self.pass_on(client, id, data);
                self.acknowledge_early(id, fd);
            }
            _ => {}
        }
        self.clear_process(id);
    }

    pub(super) fn client_acked(&mut self, client: ClientId, ack: &client::Ack) {
        let Some(id) = self.rank_of(client, ack.rank) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        let output = (ack.fd as usize).checked_sub(1).and_then(|i| process.outputs.get_mut(i));
        let Some(output) = output else {
            return self.refuse(client, format!("descriptor {} is no output stream", ack.fd), None);
        };
        if ack.offset > output.receiver.received() && ack.offset <= output.skip {
            // Of what it has from a ghostd before; it comes again.
            output.early = output.early.max(ack.offset);
            return;
        }
        if ack.offset > output.receiver.received() {
            return self.refuse(client, "more output was acknowledged than was sent", None);
        }
        let new = ack.offset.saturating_sub(output.receiver.consumed());
        output.receiver.consume(new as usize);
        if new > 0 {
            let message = node::Ack { proc: id.0, fd: ack.fd, offset: ack.offset };
            let node = process.node;
            self.tell_node(node, MasterToNode::Ack(message));
            self.clear_process(id);
        }
    }

    /// Nothing more comes from a lost or never started process.
    pub(super) fn end_outputs(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (launch, rank) = (process.launch, process.rank);
        let mut ends = Vec::new();
        for (fd, output) in (1u8..).zip(&mut process.outputs) {
            if !std::mem::replace(&mut output.eof, true) && !output.closed {
                ends.push(Data {
                    id: u64::from(rank),
                    offset: output.receiver.received().max(output.skip),
                    fd,
                    eof: true,
                    bytes: Bytes::new(),
                });
            }
        }
        match self.launches.get(&launch) {
            Some(launch) if launch.absent => {
                if let Some(process) = self.processes.get_mut(&id) {
                    for data in ends {
                        process.outputs[usize::from(data.fd) - 1].waiting.push(data);
                    }
                }
            }
            Some(launch) if !launch.ended => {
                let client = launch.client;
                for data in ends {
                    self.act(Action::SendClient { client, data });
                }
            }
            _ => {}
        }
    }
}

impl Stdin {
    /// Keeps what was received. Small pieces are put together: each would keep the block alive in which it arrived.
    fn keep(&mut self, offset: u64, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self.pieces.back_mut() {
            Some((_, last)) if last.len() + bytes.len() <= SMALL => {
                let mut joined = BytesMut::with_capacity(last.len() + bytes.len());
                joined.extend_from_slice(last);
                joined.extend_from_slice(bytes);
                *last = joined.freeze();
            }
            _ if bytes.len() <= SMALL => self.pieces.push_back((offset, Bytes::copy_from_slice(bytes))),
            _ => self.pieces.push_back((offset, bytes.clone())),
        }
    }
}

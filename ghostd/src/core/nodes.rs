//! Nodes: connections, leases, and the verdict that one is lost.
//!
//! The node kills its processes when it has not heard from the master for a lease; the master declares them dead a margin
//! after that. So the master counts from the last lease that it *sent*, which the node may have received. The node cannot know
//! when that was, only that it was after its own last word: so leases go in pairs, the second right after the acknowledgement of
//! the first, which is what the node then counts from, so that little is lost. The second is not acknowledged.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ghost_proto::client::StartStage;
use ghost_proto::ids::{NodeNumber, ProcId, Stream};
use ghost_proto::node::{self, MasterToNode, NodeHello, NodeToMaster, is_hostname};
use ghost_proto::status::WaitStatus;

use super::types::{Node, Output, Remote};
use super::{Action, Core, LinkId};

/// Nodes that get a lease before they are due because others are: no more, so that no tick takes long.
const TAKEN_ALONG: usize = 100;

impl Core {
    pub(super) fn is_connected(&self, node: NodeNumber) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.link.is_some())
    }

    pub(super) fn is_current(&self, node: NodeNumber, link: LinkId) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.link == Some(link))
    }

    pub(super) fn node_connected(&mut self, number: NodeNumber, link: LinkId, hello: NodeHello, address: IpAddr) {
        let now = self.now;
        let fresh_epoch = self.next_epoch;
        let node = self.nodes.entry(number).or_insert_with(|| Node::new(address, now));
        let old_link = node.link.take();
        let resumes = node.epoch != 0 && node.epoch == hello.epoch && node.holder == hello.holder;
        let known_before = node.epoch != 0;
        if !resumes {
            node.epoch = fresh_epoch;
            self.next_epoch = fresh_epoch.wrapping_add(1);
        }
        node.holder = hello.holder;
        node.address = address;
        // It goes into tables and to node_up.
        node.hostname = if is_hostname(&hello.hostname) { hello.hostname } else { String::new() };
        let has = |name| hello.features.iter().any(|feature| feature == name);
        node.stands_in = has(ghost_proto::standin::FEATURE);
        node.has_terminals = has(ghost_proto::terminal::FEATURE);
        node.enters_host = has(ghost_proto::launch::HOST);
        node.changes_root = has(ghost_proto::node::ROOT);
        if !resumes {
            node.sent.clear();
        }
        let epoch = node.epoch;
        self.counts.node_connections += 1;
        self.counts.node_reconnections += u64::from(resumes);
        if let Some(old) = old_link {
            // The node has come anew before the old connection was seen to end.
            self.act(Action::CloseNode { node: number, link: old });
        }
        if known_before && !resumes {
            self.lose_processes(number);
        }
        if !resumes {
            self.act(Action::NoteNode { node: number, epoch, holder: hello.holder });
        }
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let met = std::mem::replace(&mut node.met, true);
        node.link = Some(link);
        // What was on its way is lost; the next is the first of a pair.
        node.lease_seq += node.lease_seq % 2;
        node.last_lease_sent = now;
        node.last_lease_acked = now;
        let welcome = node::Welcome {
            version: ghost_proto::VERSION,
            features: Vec::new(),
            epoch,
            node: number.0,
            lease_ms: u32::try_from(self.settings.lease.as_millis()).unwrap_or(u32::MAX),
        };
        self.tell_node(number, MasterToNode::Welcome(welcome));
        self.node_enters(number, resumes);
        if resumes {
            // At the end of the space all that was not there has been declared dead.
            if !met && !self.ending {
                self.meet_held(number, &hello.processes);
            }
            self.reconcile(number, &hello.processes.iter().map(|p| ProcId(p.proc)).collect::<Vec<_>>());
        }
        if self.ending {
            self.tell_node(number, MasterToNode::EndAll(node::EndAll {}));
        }
    }

    /// The node has come back in time: what it no longer knows has been lost on the way, what it still runs goes on.
    fn reconcile(&mut self, number: NodeNumber, held: &[ProcId]) {
        let held: BTreeSet<ProcId> = held.iter().copied().collect();
        let ours: Vec<(ProcId, Remote)> =
            self.processes.iter().filter(|(_, p)| p.node == number && p.held).map(|(&id, p)| (id, p.remote)).collect();
        let mut ended_launches = BTreeSet::new();
        for (id, remote) in ours {
            let is_held = held.contains(&id);
            match remote {
                Remote::Asked if !is_held && self.processes.get(&id).is_some_and(|p| p.found) => {
                    self.vanished(id);
                    continue;
                }
                // The request was lost with the connection.
                Remote::Asked if !is_held => self.ask_for(id),
                Remote::Running { .. } if !is_held => {
                    self.ended(id, WaitStatus::KILLED, true, None);
                    continue;
                }
                Remote::Ended(_) if !is_held => {
                    self.end_outputs(id);
                    self.clear_process(id);
                    continue;
                }
                _ => self.remind(number, id),
            }
            let Some(process) = self.processes.get(&id) else { continue };
            if process.is_launched() {
                self.ranks_changed(process.launch);
            }
            let Some(process) = self.processes.get(&id) else { continue };
            if remote.is_live() && self.launches.get(&process.launch).is_none_or(|l| l.ended) {
                ended_launches.insert(process.launch);
            }
            for signal in process.signals.iter().cloned().collect::<Vec<_>>() {
                self.tell_node(number, MasterToNode::Signal(signal));
            }
        }
        for launch in ended_launches {
            self.tell_node(number, MasterToNode::EndLaunch(node::EndLaunch { launch: launch.0, everything: false }));
        }
    }

    /// What was perhaps lost with the connection about a process's streams.
    fn remind(&mut self, number: NodeNumber, id: ProcId) {
        for (fd, output) in [(1, 0), (2, 1)] {
            let Some(process) = self.processes.get(&id) else { return };
            let Output { receiver, anchored, .. } = &process.outputs[output];
            let offset = receiver.consumed();
            if offset > 0 && *anchored {
                self.tell_node(number, MasterToNode::Ack(node::Ack { proc: id.0, fd, offset }));
            }
        }
        self.tell_closed_outputs(id);
        self.tell_size(id);
        self.send_stdin_so_far(id);
    }

    pub(super) fn node_said(&mut self, number: NodeNumber, link: LinkId, message: NodeToMaster) {
        if !self.is_current(number, link) {
            return;
        }
        match message {
            // Only the first message is a hello; the driver has taken it.
            NodeToMaster::Hello(_) | NodeToMaster::Renew(_) => {}
            NodeToMaster::LeaseAck(ack) => {
                let now = self.now;
                self.has_figures(number, &ack);
                if let Some(node) = self.nodes.get_mut(&number)
                    && ack.seq == node.lease_seq
                {
                    node.last_lease_acked = now;
                    if ack.seq % 2 == 1 {
                        self.counts.round_trip.observe(now.saturating_sub(node.last_lease_sent));
                        self.send_lease(number);
                    }
                }
            }
            NodeToMaster::Started(m) => self.if_there(number, m.proc, |core, id| core.started(id, &m)),
            NodeToMaster::StartFailed(m) => {
                self.if_there(number, m.proc, |core, id| {
                    if core.processes.get(&id).is_some_and(|p| p.remote == Remote::Asked) {
                        let stage = StartStage::try_from(m.stage).unwrap_or(StartStage::Prepare);
                        core.end_outputs_silently(id);
                        let text = core.root_text(id, stage).unwrap_or_else(|| m.text.clone());
                        core.start_failed(id, stage, m.errno, text);
                    }
                });
                self.let_forget(number, m.proc);
            }
            NodeToMaster::Stopped(m) => self.if_there(number, m.proc, |core, id| core.stopped(id, m.signal)),
            NodeToMaster::Continued(m) => self.if_there(number, m.proc, |core, id| core.continued(id)),
            NodeToMaster::Ended(m) => {
                if let Some(status) = WaitStatus::from_raw(m.status) {
                    let usage = m.usage.clone();
                    self.if_there(number, m.proc, |core, id| {
                        if core.processes.get(&id).is_some_and(|p| p.remote.is_live()) {
                            core.has_heir(id, ProcId(m.heir));
                            core.ended(id, status, false, usage);
                        }
                    });
                }
                self.let_forget(number, m.proc);
            }
            NodeToMaster::Ack(m) => {
                if m.fd == Stream::Stdin.fd() {
                    self.if_there(number, m.proc, |core, id| core.node_acked(id, m.offset));
                }
            }
            NodeToMaster::StdinGone(m) => self.if_there(number, m.proc, |core, id| core.stdin_gone(id)),
            NodeToMaster::SignalDone(m) => {
                self.if_there(number, m.proc, |core, id| core.signal_done(id, m.seq, m.errno))
            }
            NodeToMaster::Forked(m) => self.forked(number, &m),
            NodeToMaster::Execed(m) => self.if_there(number, m.proc, |core, id| {
                if let Some(standing) = &m.standing {
                    core.stands(id, standing);
                    core.named(id, &standing.comm);
                }
            }),
            NodeToMaster::Reaped(m) => self.if_there(number, m.proc, |core, id| core.reaped(id)),
            NodeToMaster::Sent(m) => self.if_there(number, m.proc, |core, id| core.sent(id, &m)),
        }
    }

    /// The node holds the end of a process that is forgotten here, or was to be forgotten there: it missed that.
    fn let_forget(&mut self, number: NodeNumber, proc: u64) {
        if !self.processes.get(&ProcId(proc)).is_some_and(|p| p.node == number && p.held) {
            self.tell_node(number, MasterToNode::Forget(node::Forget { proc }));
        }
    }

    /// What a node says counts for its own processes alone.
    fn if_there(&mut self, node: NodeNumber, proc: u64, then: impl FnOnce(&mut Core, ProcId)) {
        let id = ProcId(proc);
        match self.processes.get(&id) {
            Some(process) if process.node == node => then(self, id),
            Some(process) => {
                tracing::warn!(
                    node = node.0,
                    process = proc,
                    of = process.node.0,
                    "a node spoke for another node's process"
                );
            }
            None => {}
        }
    }

    pub(super) fn node_disconnected(&mut self, number: NodeNumber, link: LinkId) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        if node.link == Some(link) {
            node.link = None;
            self.node_leaves(number);
        }
    }

    pub(super) fn node_dismissed(&mut self, number: NodeNumber) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        if let Some(link) = node.link.take() {
            self.act(Action::CloseNode { node: number, link });
            self.node_leaves(number);
        }
        self.give_up_node_up(number);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.left = None;
        }
    }

    pub(super) fn tick(&mut self) {
        for number in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.tend_node(number);
        }
        self.send_leases();
        self.tend_orders();
        self.settle_signals();
        self.tell_of_others();
        self.tend_unborn();
        self.gather_strays();
        self.end_the_late();
        self.wake_launchers_again();
        self.end_launchers();
        self.view_tick();
        for id in self.restless.iter().copied().collect::<Vec<_>>() {
            self.continue_ghost(id);
        }
    }

    fn tend_node(&mut self, number: NodeNumber) {
        let (now, lease, margin) = (self.now, self.settings.lease, self.settings.margin);
        let Some(node) = self.nodes.get_mut(&number) else { return };
        match node.link {
            Some(link) if now.saturating_sub(node.last_lease_acked) > lease => {
                tracing::warn!(node = number.0, "no answer for the length of a lease: disconnected");
                node.link = None;
                self.act(Action::CloseNode { node: number, link });
                self.node_leaves(number);
            }
            None if node.epoch != 0 && now.saturating_sub(node.last_lease_sent) > lease + margin => {
                // From now on nothing of that epoch is believed.
                node.epoch = 0;
                self.give_up_node_up(number);
                self.lose_processes(number);
                // Last: who finds it noted still gives the verdict anew.
                self.act(Action::NoteNode { node: number, epoch: 0, holder: 0 });
            }
            _ => {}
        }
    }

    /// To every node that is due for one. Waking up is what costs most, here as well as where the answers arrive: so others are
    /// taken along whose turn comes soon, and nodes fall in step.
    fn send_leases(&mut self) {
        let (now, lease) = (self.now, self.settings.lease);
        let mut due = Vec::new();
        let mut soon = Vec::new();
        for (&number, node) in &self.nodes {
            let since = now.saturating_sub(node.last_lease_sent);
            match node.link {
                // The first of the pair has not been acknowledged.
                Some(_) if node.lease_seq % 2 == 1 => {}
                Some(_) if since >= lease / 4 => due.push(number),
                Some(_) if since >= lease / 8 => soon.push(number),
                _ => {}
            }
        }
        if due.is_empty() {
            return;
        }
        due.extend(soon.into_iter().take(TAKEN_ALONG));
        for number in due {
            self.send_lease(number);
        }
    }

    fn send_lease(&mut self, number: NodeNumber) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.last_lease_sent = self.now;
        node.lease_seq += 1;
        let seq = node.lease_seq;
        self.tell_node(number, MasterToNode::Lease(node::Lease { seq, second: seq.is_multiple_of(2) }));
    }

    pub(super) fn lose_processes(&mut self, number: NodeNumber) {
        let lost: Vec<ProcId> = self.processes.iter().filter(|(_, p)| p.node == number).map(|(&id, _)| id).collect();
        if !lost.is_empty() {
            self.counts.node_losses += 1;
            tracing::warn!(
                node = number.0,
                processes = lost.len(),
                "the node is lost, its processes are declared dead"
            );
        }
        for id in lost {
            if let Some(process) = self.processes.get_mut(&id) {
                process.held = false;
            }
            match self.processes.get(&id).map(|p| p.remote) {
                Some(Remote::Asked | Remote::Running { .. }) => self.ended(id, WaitStatus::KILLED, true, None),
                Some(Remote::Ended(_)) => {
                    self.end_outputs(id);
                    self.clear_process(id);
                }
                _ => {}
            }
        }
    }

    /// The space ends: every process is killed, the statuses come as always.
    pub(super) fn end(&mut self) {
        self.ending = true;
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.give_up_node_up(node);
        }
        for node in self.connected_nodes() {
            self.tell_node(node, MasterToNode::EndAll(node::EndAll {}));
        }
        let unreachable: Vec<ProcId> = self
            .processes
            .iter()
            .filter(|(_, p)| p.remote == Remote::Planned || p.remote.is_live() && !self.is_connected(p.node))
            .map(|(&id, _)| id)
            .collect();
        for id in unreachable {
            self.ended(id, WaitStatus::KILLED, true, None);
        }
    }

    /// A process that never ran has no output; its client knows that from `StartFailed`.
    pub(super) fn end_outputs_silently(&mut self, id: ProcId) {
        if let Some(process) = self.processes.get_mut(&id) {
            for output in &mut process.outputs {
                output.eof = true;
            }
        }
    }
}

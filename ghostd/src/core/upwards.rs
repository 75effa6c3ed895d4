//! Signals from remote processes to who is of the master: the launcher, its group, its session's leader, ranks on other nodes.
//!
//! On its node a process finds stand-ins with their numbers. What it sends to one of them is sent here by the process's own
//! ghost: with the rights of its user, which the kernel judges, and with the process's number. So a node can send nothing for
//! a user who has no process there. A group gets the signal as one, as by kill(2); what of it is on other nodes is reached as by
//! any signal that ghosts get, and the sender's own node is left out: its kernel has done that part.
//!
//! The node tells of each until it is done: its ghost has been told to send it. So a ghostd that is killed leaves none unsent; one that
//! is killed between the two has it sent twice.
//!
//! Invariant: only what stands above a launch that the node runs something of is a target, and what runs of that launch elsewhere.

use ghost_abi::{SignalRecord, is_realtime};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::node::{MasterToNode, Scope};
use ghost_proto::standin::{Origin, Sent, SentDone};
use ghost_sys::ghost::{Kill, KillKind};

use super::types::{Ghost, Making, Order, Process, Remote};
use super::{ClientId, Core};

/// Signals that may wait for one ghost to send them.
const MOST: usize = 4096;
/// Signals of a node whose numbers are remembered: more than its holder keeps of many processes.
const MOST_HEARD: usize = 100_000;
/// include/uapi/asm-generic/siginfo.h
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;

impl Core {
    /// What is above a client's launch.
    pub(super) fn above(&mut self, client: ClientId, origin: Origin) {
        let launch = self.clients.get(&client).and_then(|client| client.launch);
        if let Some(launch) = launch.and_then(|launch| self.launches.get_mut(&launch)) {
            launch.origin = Some(origin);
        }
    }

    /// A process has sent a signal to a stand-in on its node.
    pub(super) fn sent(&mut self, id: ProcId, sent: &Sent) {
        let Some(node) = self.processes.get(&id).map(|process| process.node) else { return };
        if !self.is_new(node, sent) {
            return;
        }
        let ordered = self.kill_of(node, sent).is_some_and(|kill| {
            let sender = self.who_sends(id);
            let ordered = self.has_room_for(sender, kill);
            if ordered {
                self.counts.signals_upwards += 1;
                self.order(sender, Order::Kill(kill, sent.seq));
            }
            ordered
        });
        if !ordered {
            self.sent_done(node, sent.seq);
        }
    }

    /// Whether this one has not come before; if it has, and was dealt with, that is said again.
    fn is_new(&mut self, node: NodeNumber, sent: &Sent) -> bool {
        let Some(heard) = self.nodes.get_mut(&node).map(|node| &mut node.sent) else { return false };
        if sent.seq == 0 {
            return true;
        }
        while heard.first_key_value().is_some_and(|(&seq, _)| seq < sent.settled) || heard.len() > MOST_HEARD {
            heard.pop_first();
        }
        match heard.get(&sent.seq) {
            None => {
                heard.insert(sent.seq, false);
                true
            }
            Some(done) => {
                if *done {
                    self.sent_done(node, sent.seq);
                }
                false
            }
        }
    }

    /// The node need not tell of it again.
    pub(super) fn sent_done(&mut self, node: NodeNumber, seq: u64) {
        if seq == 0 {
            return;
        }
        if let Some(done) = self.nodes.get_mut(&node).and_then(|node| node.sent.get_mut(&seq)) {
            *done = true;
        }
        self.tell_node(node, MasterToNode::SentDone(SentDone { seq }));
    }

    /// What a ghost is to do about it, if the node may ask for it.
    fn kill_of(&self, node: NodeNumber, sent: &Sent) -> Option<Kill> {
        let (target, signal) = (i32::try_from(sent.target).ok()?, u8::try_from(sent.signal).ok()?);
        if target <= 1 || !(1..=64).contains(&signal) {
            return None;
        }
        let beside = !sent.group && self.is_beside_a_launch_on(node, sent.target);
        if !beside && !self.is_above_a_launch_on(node, sent.target) {
            tracing::warn!(
                node = node.0,
                target,
                "a node sent a signal to somebody who is above or beside none of its launches"
            );
            return None;
        }
        Some(Kill {
            target: if sent.group { -target } else { target },
            signal,
            kind: match sent.code {
                SI_QUEUE if !sent.group => KillKind::Queue,
                SI_TKILL if !sent.group => KillKind::Thread,
                _ => KillKind::Kill,
            },
            value: sent.value,
        })
    }

    /// Standard signals that wait coalesce, as the kernel's own; real-time ones are bounded.
    fn has_room_for(&self, sender: ProcId, kill: Kill) -> bool {
        let Some(process) = self.processes.get(&sender) else { return false };
        if matches!(process.ghost, Ghost::Gone | Ghost::Leaving { .. }) {
            return false;
        }
        let mut waiting = process.orders.iter().filter_map(|order| match order {
            Order::Kill(kill, _) => Some(*kill),
            _ => None,
        });
        if is_realtime(usize::from(kill.signal)) { waiting.count() < MOST } else { waiting.all(|other| other != kill) }
    }

    /// The ghost that sends for a process: its own, if that is there. One that is still to be made may come too late,
    /// after its parent has ended and who waits for that has gone on; then its parent's sends.
    fn who_sends(&self, mut id: ProcId) -> ProcId {
        while let Some(process) = self.processes.get(&id)
            && matches!(process.ghost, Ghost::Expected { .. })
            && let Some(fork) = &process.fork
            && let Making::Asked { maker, .. } = fork.making
        {
            id = maker;
        }
        id
    }

    fn is_above_a_launch_on(&self, node: NodeNumber, number: u32) -> bool {
        let here = self.processes.values().filter(|process| process.node == node);
        let mut origins = here.filter_map(|process| self.launches.get(&process.launch)?.origin.as_ref());
        origins.any(|origin| [&origin.parent, &origin.group, &origin.session].iter().any(|who| who.pid == number))
    }

    /// A ghost is about to send what has this number at its node.
    pub(super) fn acts_for(&mut self, id: ProcId, seq: u64) {
        let Some(process) = self.processes.get(&id) else { return };
        let (pid, node) = (process.pid, process.node);
        self.acting.insert(pid, node);
        self.sent_done(node, seq);
    }

    /// Whether a group signal was sent by a process on the same node, where the whole group has had it.
    pub(super) fn has_it_already(&self, id: ProcId, record: &SignalRecord) -> bool {
        let sender = u32::try_from(record.sender_pid).ok().filter(|sender| *sender != 0);
        let from = sender.and_then(|sender| self.acting.get(&sender));
        from.is_some() && from.copied() == self.processes.get(&id).map(|process| process.node)
    }

    /// Whether a launched process is on its node in a group of the master's, with others than what it has made.
    pub(super) fn shares_group(&self, id: ProcId) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        let own = matches!(process.remote, Remote::Running { pid } if pid == self.group_there(id));
        process.is_launched() && !own && self.group_there(id) != 0
    }

    /// How a launched process gets what is meant for it and its group, as long as that is its own.
    pub(super) fn scope_of_own(&self, id: ProcId) -> Scope {
        if self.shares_group(id) { Scope::Process } else { Scope::Group }
    }

    /// What a launch's processes have forked, in these groups of nodes.
    pub(super) fn forked_in(&self, launch: LaunchId, groups: &[(NodeNumber, u32)]) -> Vec<ProcId> {
        let Some(launch) = self.launches.get(&launch).filter(|_| !groups.is_empty()) else { return Vec::new() };
        let is_there = |id: &ProcId| self.processes.get(id).is_some_and(|p| groups.contains(&(p.node, p.pgid)));
        launch.forked.values().copied().filter(is_there).collect()
    }

    /// The group of a process on its node; of one that has not started, the one that it will be in; 0: not known.
    pub(super) fn group_there(&self, id: ProcId) -> u32 {
        let Some(process) = self.processes.get(&id) else { return 0 };
        if process.pgid != 0 || !process.is_launched() {
            return process.pgid;
        }
        let Some(origin) = self.origin_there(process) else { return 0 };
        // Its siblings of the same launch there are in the same group.
        let ranks = self.launches.get(&process.launch).map(|launch| launch.ranks.as_slice()).unwrap_or_default();
        let mut siblings = ranks.iter().flatten().filter_map(|rank| self.processes.get(rank));
        let known = siblings.find(|sibling| sibling.node == process.node && sibling.pgid != 0);
        known.map_or(origin.group.pid, |sibling| sibling.pgid)
    }

    /// Whom a process's launch has above it on the node, by their numbers here.
    pub(super) fn origin_there(&self, process: &Process) -> Option<&Origin> {
        let origin = self.launches.get(&process.launch)?.origin.as_ref()?;
        self.nodes.get(&process.node).filter(|node| node.stands_in).map(|_| origin)
    }
}

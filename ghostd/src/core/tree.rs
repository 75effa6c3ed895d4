//! The tree: ghosts of the processes that remote processes fork.
//!
//! ```text
//!  node: Forked          maker is asleep: "fork"        the new ghost reads
//!  ------------> Expected ------------------------------------------------> Arriving, as a first ghost
//!                  |  not within 50 ms: another maker is asked
//!                  |  none is left: the process runs without a ghost (logged)
//! ```
//! The ghost of a child is made by its parent's ghost, so that the kernel itself keeps the tree, and reparents here when it
//! does there. Groups and sessions follow by orders to the ghosts.
//!
//! Invariants:
//! - What a ghost is to do for others (make a child, wait for one) comes before its own end.
//! - The ghost of a dead process stays a zombie until the process has been waited for on the node, as long as the ghost that
//!   made it is there.
//! - A place in the nursery belongs to one ghost, until the end of its task has been seen.

use std::time::Duration;

use ghost_host::pin::ReadToken;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::tree::{Forked, Standing, is_forked_on};
use ghost_sys::ghost::{Answer, Birth};
use nix::libc;

use super::signals::bit;
use super::types::{Fork, Ghost, Order, Output, Process, Remote};
use super::{Action, Core};

/// How long a ghost may take to make another one.
const PATIENCE: Duration = Duration::from_millis(50);
/// Makers that are tried for one ghost.
const MAKERS: u32 = 5;
/// Group signals that are remembered: as many as can be under way at once.
const CALLS: usize = 64;
/// Forked processes that one launch may have at once.
const MOST: usize = ghost_sys::ghost::NURSERY as usize;

impl Process {
    /// One that is to be launched.
    pub(super) fn planned(launch: LaunchId, rank: u32, node: NodeNumber) -> Process {
        Process {
            launch,
            rank,
            fork: None,
            orders: Default::default(),
            made: Default::default(),
            pgid: 0,
            sid: 0,
            ghost_pgid: 0,
            node,
            ghost: Ghost::Awaited,
            remote: Remote::Planned,
            pid: 0,
            killed: false,
            stopped: false,
            ghost_stopped: false,
            interrupt_wanted: false,
            signals: Default::default(),
            held: false,
            forestalled: 0,
            held_back: Some(Vec::new()),
            outputs: [Output::none(), Output::none()],
            stdin_acked: 0,
            stdin_open: false,
        }
    }

    /// Whether its ghost can be told to make another one, as far as is known.
    fn can_make(&self) -> bool {
        !self.killed && !self.ghost_stopped && matches!(self.ghost, Ghost::Asleep(_))
    }
}

impl Core {
    /// A process has forked on its node. Told again after a reconnect.
    pub(super) fn forked(&mut self, node: NodeNumber, message: &Forked) {
        let id = ProcId(message.proc);
        if !is_forked_on(id, node) || message.pid == 0 {
            tracing::warn!(node = node.0, process = message.proc, "a node named a process as it may not");
            return;
        }
        let standing = message.standing.clone().unwrap_or_default();
        if self.processes.contains_key(&id) {
            return self.stands(id, &standing);
        }
        let launch_id = LaunchId(message.launch);
        let parent = ProcId(message.parent);
        let maker = match self.processes.get(&parent) {
            Some(process) if process.node == node && process.launch == launch_id => Some(parent),
            _ => self.any_of_launch_on(launch_id, node),
        };
        let Some(maker) = maker else {
            tracing::warn!(node = node.0, pid = message.pid, "a forked process belongs to no launch of this node");
            return;
        };
        // Its groups are its parent's: what has changed there since is learnt here.
        if maker == parent {
            self.stands(parent, &standing);
        }
        let now = self.now;
        let Some(launch) = self.launches.get_mut(&launch_id) else { return };
        if launch.forked.len() >= MOST {
            tracing::warn!(node = node.0, pid = message.pid, "the launch has too many processes: one has no ghost");
            return;
        }
        let rank = launch.next_rank;
        launch.next_rank = rank.wrapping_add(1);
        launch.forked.insert(rank, id);
        let comm = name_of(&standing.comm);
        let fork = Fork { maker, place: None, comm, due: now + PATIENCE, makers: 1, reaped: false };
        let process = Process {
            fork: Some(fork),
            ghost: Ghost::Expected { next: None },
            remote: Remote::Running { pid: message.pid },
            pgid: standing.pgid,
            sid: standing.sid,
            held: true,
            ..Process::planned(launch_id, rank, node)
        };
        self.processes.insert(id, process);
        self.by_node_pid.insert((node, message.pid), id);
        self.unborn.insert(id);
        self.order_birth(id, maker);
    }

    fn any_of_launch_on(&self, launch: LaunchId, node: NodeNumber) -> Option<ProcId> {
        let launch = self.launches.get(&launch)?;
        let all = launch.ranks.iter().flatten().chain(launch.forked.values());
        all.copied().find(|id| self.processes.get(id).is_some_and(|p| p.node == node && p.can_make()))
    }

    fn order_birth(&mut self, id: ProcId, maker: ProcId) {
        if let Some(process) = self.processes.get_mut(&maker) {
            process.made.insert(id);
        }
        self.order(maker, Order::Fork(id));
    }

    /// Adds to what a ghost is to do.
    fn order(&mut self, id: ProcId, order: Order) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if matches!(process.ghost, Ghost::Gone | Ghost::Leaving { .. }) {
            return;
        }
        process.orders.push_back(order);
        self.serve_order(id);
    }

    /// Gives a sleeping ghost the next thing to do. `true`: it has got one, and is awake.
    pub(super) fn serve_order(&mut self, id: ProcId) -> bool {
        loop {
            let Some(process) = self.processes.get_mut(&id) else { return false };
            // Any answer would let a killed ghost die before its process.
            if process.killed || !matches!(process.ghost, Ghost::Asleep(_)) {
                return false;
            }
            let Some(order) = process.orders.pop_front() else { return false };
            if let Some(answer) = self.answer_of(id, order) {
                self.answer_ghost(id, answer);
                return true;
            }
        }
    }

    fn answer_of(&mut self, id: ProcId, order: Order) -> Option<Answer> {
        match order {
            Order::Fork(child) => self.birth(child).map(Answer::Fork),
            Order::Reap(pid) => Some(Answer::Reap(pid)),
            Order::Name(comm) => Some(Answer::Name(comm)),
            Order::Group(pgid) => {
                let pgid = self.master_group(id, pgid)?;
                let process = self.processes.get_mut(&id)?;
                if process.ghost_pgid == pgid {
                    return None;
                }
                process.ghost_pgid = pgid;
                Some(Answer::Group(pgid))
            }
            Order::Session => {
                let process = self.processes.get_mut(&id)?;
                process.ghost_pgid = process.pid;
                Some(Answer::Session)
            }
        }
    }

    /// The group here that stands for a group of a process's node: its leader's, or that of any other member.
    fn master_group(&self, id: ProcId, pgid: u32) -> Option<u32> {
        let node = self.processes.get(&id)?.node;
        let leader = self.by_node_pid.get(&(node, pgid)).copied();
        if leader == Some(id) {
            return self.processes.get(&id).map(|p| p.pid).filter(|&pid| pid != 0);
        }
        let member = |p: &&Process| p.node == node && p.pgid == pgid && p.ghost_pgid != 0;
        let leader = leader.and_then(|leader| self.processes.get(&leader)).filter(member);
        leader
            .or_else(|| self.processes.iter().filter(|(other, _)| **other != id).map(|(_, p)| p).find(member))
            .map(|p| p.ghost_pgid)
    }

    /// What the maker of a ghost is told.
    fn birth(&mut self, child: ProcId) -> Option<Birth> {
        let process = self.processes.get_mut(&child)?;
        let fork = process.fork.as_mut()?;
        let pid = if let Remote::Running { pid } = process.remote { pid } else { 0 };
        if !matches!(process.ghost, Ghost::Expected { .. }) {
            return None;
        }
        // A place that was given to a maker who did not use it may be in use after all.
        fork.place = None;
        let place = self.launches.get_mut(&process.launch)?.places.take()?;
        fork.place = Some(place);
        Some(Birth { rank: process.rank, pid, place, comm: fork.comm })
    }

    /// A process sleeps on the pin as the ghost of a forked process.
    pub(super) fn forked_ghost_comes(&mut self, id: ProcId, token: ReadToken, pid: u32, uid: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return self.act(Action::RefuseRead { token }) };
        let (Some(fork), Ghost::Expected { next }) = (&process.fork, &process.ghost) else {
            return self.act(Action::RefuseRead { token });
        };
        let next = *next;
        let maker = fork.maker;
        process.ghost = if next.is_some() { Ghost::Awake { next } } else { Ghost::Arriving };
        process.pid = pid;
        let maker = self.processes.get(&maker).filter(|p| !matches!(p.ghost, Ghost::Gone)).map(|p| p.pid);
        self.act(Action::Adopt { process: id, token, pid, parent: maker, uid });
    }

    /// Looks for other makers where one did not do it in time.
    pub(super) fn tend_unborn(&mut self) {
        let now = self.now;
        let late =
            |id: &ProcId| self.processes.get(id).and_then(|p| p.fork.as_ref()).is_none_or(|fork| fork.due <= now);
        for id in self.unborn.iter().copied().filter(late).collect::<Vec<_>>() {
            self.find_maker(id);
        }
    }

    fn find_maker(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else {
            self.unborn.remove(&id);
            return;
        };
        let (launch, node, over) = (process.launch, process.node, process.remote.is_over());
        let Some(fork) = &process.fork else { return };
        let (old, tried) = (fork.maker, fork.makers);
        if let Some(maker) = self.processes.get_mut(&old) {
            maker.orders.retain(|order| *order != Order::Fork(id));
            maker.made.remove(&id);
        }
        let next = if over || tried >= MAKERS {
            None
        } else {
            self.living_ancestor(old).or_else(|| self.any_of_launch_on(launch, node))
        };
        let due = self.now + PATIENCE;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(maker) = next else {
            if !over {
                tracing::warn!(node = node.0, pid = ?process.remote, "a forked process runs without a ghost: nobody could make it");
            }
            self.unborn.remove(&id);
            process.ghost = Ghost::Gone;
            return self.clear_process(id);
        };
        if let Some(fork) = &mut process.fork {
            fork.maker = maker;
            fork.makers += 1;
            fork.due = due;
        }
        self.order_birth(id, maker);
    }

    /// The nearest process above whose ghost can make one.
    fn living_ancestor(&self, from: ProcId) -> Option<ProcId> {
        let mut at = self.processes.get(&from)?.fork.as_ref()?.maker;
        loop {
            let process = self.processes.get(&at)?;
            if process.can_make() {
                return Some(at);
            }
            at = process.fork.as_ref()?.maker;
        }
    }

    /// Where a process stands now on its node.
    pub(super) fn stands(&mut self, id: ProcId, standing: &Standing) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Remote::Running { pid } = process.remote else { return };
        if standing.sid == pid && process.sid != pid {
            (process.sid, process.pgid) = (pid, pid);
            self.order(id, Order::Session);
        } else if standing.pgid != 0 && standing.pgid != process.pgid {
            process.pgid = standing.pgid;
            self.order(id, Order::Group(standing.pgid));
        }
    }

    /// A process has another name now.
    pub(super) fn named(&mut self, id: ProcId, comm: &[u8]) {
        let comm = name_of(comm);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.remote.is_over() {
            return;
        }
        if let Some(fork) = &mut process.fork {
            fork.comm = comm;
            if matches!(process.ghost, Ghost::Expected { .. }) && fork.place.is_none() {
                // It is born with it.
                return;
            }
        }
        self.order(id, Order::Name(comm));
    }

    /// A dead process's parent has waited for it.
    pub(super) fn reaped(&mut self, id: ProcId) {
        let Some(fork) = self.processes.get_mut(&id).and_then(|p| p.fork.as_mut()) else { return };
        if std::mem::replace(&mut fork.reaped, true) {
            return;
        }
        self.reap_ghost(id);
        self.clear_process(id);
    }

    /// Has a dead ghost waited for by its maker, if its process has been.
    fn reap_ghost(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(fork) = &process.fork else { return };
        if fork.reaped && matches!(process.ghost, Ghost::Gone) && process.pid != 0 {
            self.order(fork.maker, Order::Reap(process.pid));
        }
    }

    /// Whether its ghost is to be seen as a zombie yet: dead, not waited for, and not left to the host's init.
    pub(super) fn is_zombie(&self, id: ProcId) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        let Some(fork) = &process.fork else { return false };
        let orphan = self.processes.get(&fork.maker).is_none_or(|p| matches!(p.ghost, Ghost::Gone));
        !fork.reaped && process.pid != 0 && !orphan
    }

    /// The task of a ghost has ended.
    pub(super) fn ghost_of_tree_gone(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let launch = process.launch;
        self.unborn.remove(&id);
        process.orders.clear();
        // The host's init waits for the ghosts that it has made.
        let made = std::mem::take(&mut process.made);
        let place = process.fork.as_mut().and_then(|fork| fork.place.take()).filter(|_| process.pid != 0);
        if let (Some(place), Some(launch)) = (place, self.launches.get_mut(&launch)) {
            launch.places.give_back(place);
        }
        self.reap_ghost(id);
        for child in made {
            if self.unborn.contains(&child) {
                self.find_maker(child);
            } else {
                self.clear_process(child);
            }
        }
    }

    /// A process is forgotten.
    pub(super) fn leave_tree(&mut self, id: ProcId) {
        self.unborn.remove(&id);
        let Some(process) = self.processes.get(&id) else { return };
        let Some(fork) = &process.fork else { return };
        let (maker, launch, rank) = (fork.maker, process.launch, process.rank);
        if let Some(maker) = self.processes.get_mut(&maker) {
            maker.made.remove(&id);
        }
        if let Some(launch) = self.launches.get_mut(&launch) {
            launch.forked.remove(&rank);
        }
    }

    /// Whether no other ghost's record of this group signal has come before, for the same group of the same node.
    pub(super) fn is_first_of_group(&mut self, id: ProcId, call: u64) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        if process.pgid == 0 {
            // It has not started yet: its group is its own.
            return true;
        }
        let key = (call, process.node, process.pgid);
        if self.group_calls.contains(&key) {
            return false;
        }
        if self.group_calls.len() >= CALLS {
            self.group_calls.pop_front();
        }
        self.group_calls.push_back(key);
        true
    }

    /// Those of the group whose ghosts cannot be seen to get a signal at once will be seen to get it later: they have it
    /// from the node's group already.
    pub(super) fn forestall_group(&mut self, id: ProcId, signal: u16) {
        if ghost_abi::is_realtime(usize::from(signal)) || i32::from(signal) == libc::SIGKILL {
            return;
        }
        let Some(process) = self.processes.get(&id) else { return };
        let (launch, node, pgid) = (process.launch, process.node, process.pgid);
        let Some(launch) = self.launches.get(&launch) else { return };
        for other in launch.forked.values().copied().filter(|other| *other != id).collect::<Vec<_>>() {
            if let Some(other) = self.processes.get_mut(&other)
                && other.node == node
                && other.pgid == pgid
                && matches!(other.ghost, Ghost::Arriving | Ghost::Awake { .. })
            {
                other.forestalled |= bit(signal);
            }
        }
    }
}

fn name_of(comm: &[u8]) -> [u8; 15] {
    let mut name = [0; 15];
    for (to, from) in name.iter_mut().zip(comm) {
        *to = *from;
    }
    name
}

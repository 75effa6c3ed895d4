//! The tree: ghosts of the processes that remote processes fork, once they are there. How they come is [`super::births`]'s.
//!
//! The kernel itself keeps the tree here, and reparents when it does there. Groups and sessions follow by orders to the ghosts.
//!
//! Invariants:
//! - What a ghost is to do for others (make another one, wait for one) comes before its own end.
//! - The ghost of a dead process stays a zombie until the process has been waited for on the node, as long as the parent of
//!   that ghost is there.
//! - A place in the nursery belongs to one ghost, until the end of its task has been seen.

use std::collections::BTreeSet;

use ghost_proto::client::{MasterToClient, Reap};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::tree::Standing;
use ghost_sys::ghost::Answer;
use nix::libc;

use super::Core;
use super::signal_queue::MOST;
use super::signals::bit;
use super::types::{Ghost, Order, Output, Parent, Process, Remote};

/// Ticks for which a ghost tries to join a group.
const TRIES: u16 = 250;
/// So many of them in vain, and the group that was found is given up.
const VAIN: u16 = 10;
/// Group signals that are remembered: as many as can be under way at once.
const CALLS: usize = 64;

/// What a ghost's record of a signal to its group tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupCall {
    New,
    /// Another ghost of the group has told of it.
    Known,
    /// A new one, under a number that another one had.
    Again,
}

impl Process {
    /// One that is to be launched.
    pub(super) fn planned(launch: LaunchId, rank: u32, node: NodeNumber) -> Process {
        Process {
            launch,
            rank,
            fork: None,
            orders: Default::default(),
            doing: None,
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
            stop_later: None,
            ghost_stopped: false,
            interrupt_wanted: false,
            signals: Default::default(),
            found: false,
            verdict: None,
            noted: false,
            held: false,
            forestalled: 0,
            forestalled_realtime: Vec::new(),
            held_back: Some(Vec::new()),
            outputs: [Output::none(), Output::none()],
            stdin_acked: 0,
            stdin_open: false,
        }
    }
}

impl Process {
    /// Its ghost is in the group that stands for its own, as far as is known.
    fn is_in_its_group(&self) -> bool {
        let changes = |order: &Order| matches!(order, Order::Group(_) | Order::Session);
        self.ghost_pgid != 0 && !self.orders.iter().any(changes) && !self.doing.as_ref().is_some_and(changes)
    }
}

impl Core {
    /// Adds to what a ghost is to do.
    pub(super) fn order(&mut self, id: ProcId, order: Order) {
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
            let awake = match order {
                Order::Fork(child) => self.beget(id, child),
                _ => match self.answer_of(id, order) {
                    Some(answer) => {
                        self.answer_ghost(id, answer);
                        true
                    }
                    None => false,
                },
            };
            if awake {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.doing = Some(order);
                }
                return true;
            }
        }
    }

    fn answer_of(&mut self, id: ProcId, order: Order) -> Option<Answer> {
        match order {
            Order::Fork(_) => None,
            Order::Reap(pid) => Some(Answer::Reap(pid)),
            Order::Name(comm) => Some(Answer::Name(comm)),
            Order::Group(pgid) => {
                let vain = self.strays.get(&id).is_some_and(|left| *left < TRIES - VAIN);
                let own = vain.then(|| self.own_group(id, pgid)).flatten();
                let found = own.or_else(|| self.master_group(id, pgid)).or_else(|| self.own_group(id, pgid));
                let Some(pgid) = found else {
                    self.join_later(id);
                    return None;
                };
                let process = self.processes.get_mut(&id)?;
                if process.ghost_pgid == pgid {
                    self.no_stray(id);
                    return None;
                }
                process.ghost_pgid = pgid;
                Some(Answer::Group(pgid))
            }
            Order::Leave => {
                let pgid = self.group_beside(id)?;
                let process = self.processes.get_mut(&id)?;
                process.ghost_pgid = pgid;
                let (pid, node_pid) = (process.pid, process.pgid);
                // Others for whose group this one's stands, another one's must.
                let stood_for = |p: &Process| p.ghost_pgid == pid && p.pgid != node_pid && p.remote.is_live();
                let others = self.processes.iter().filter(|(other, p)| **other != id && stood_for(p));
                for other in others.map(|(&other, _)| other).collect::<Vec<_>>() {
                    if let Some(other) = self.processes.get_mut(&other) {
                        other.ghost_pgid = 0;
                    }
                    self.join_later(other);
                }
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
        let member = |p: &&Process| p.node == node && p.pgid == pgid && p.is_in_its_group();
        let leader = leader.and_then(|leader| self.processes.get(&leader)).filter(member);
        leader
            .or_else(|| self.processes.iter().filter(|(other, _)| **other != id).map(|(_, p)| p).find(member))
            .map(|p| p.ghost_pgid)
    }

    /// A group that is not its own, of the same session: each time another one of the launch's.
    fn group_beside(&self, id: ProcId) -> Option<u32> {
        let process = self.processes.get(&id)?;
        let launch = self.launches.get(&process.launch)?;
        let all =
            launch.ranks.iter().flatten().chain(launch.forked.values()).filter_map(|other| self.processes.get(other));
        let groups = all.map(|other| other.ghost_pgid).filter(|pgid| *pgid != 0 && *pgid != process.pid);
        let groups: Vec<u32> = groups.collect::<std::collections::BTreeSet<u32>>().into_iter().collect();
        let turn = usize::from(self.strays.get(&id).copied().unwrap_or(0));
        groups.get(turn.checked_rem(groups.len())?).copied()
    }

    /// All others of a group have gone, there as well as here, before this ghost could join them: a group of its own stands for it.
    fn own_group(&self, id: ProcId, pgid: u32) -> Option<u32> {
        let process = self.processes.get(&id)?;
        let of_group = |p: &Process| p.node == process.node && p.pgid == pgid && p.remote.is_live();
        let leader = self.by_node_pid.get(&(process.node, pgid)).and_then(|leader| self.processes.get(leader));
        let mut others = self.processes.iter().filter(|(other, p)| **other != id && of_group(p));
        // Who leads it, or is in it, is only not that far yet; of several without any the first leads.
        let awaited = leader.is_some_and(|leader| leader.remote.is_live())
            || others.any(|(other, p)| match self.strays.contains_key(other) {
                false => p.is_in_its_group(),
                true => *other < id && !p.stopped && !p.ghost_stopped && !p.killed,
            });
        (!awaited && process.pid != 0).then_some(process.pid)
    }

    /// A ghost is back; this is how what it was told went: 0, or an errno.
    pub(super) fn order_done(&mut self, id: ProcId, errno: u32) {
        let doing = self.processes.get_mut(&id).and_then(|process| process.doing.take());
        match doing {
            Some(Order::Fork(child)) => self.birth_done(id, child, errno),
            Some(Order::Group(_) | Order::Session) if errno == 0 => self.no_stray(id),
            Some(Order::Group(_) | Order::Session) => {
                // Who is to lead that group is not that far yet, or is not in this session. Or there is still a group of its number,
                // whose members are not that far yet.
                if let Some(process) = self.processes.get_mut(&id) {
                    process.ghost_pgid = 0;
                }
                self.join_later(id);
            }
            _ => {}
        }
    }

    fn join_later(&mut self, id: ProcId) {
        self.strays.entry(id).or_insert(TRIES);
    }

    /// At each tick: ghosts that are not in the group or session yet that stands for their process's.
    pub(super) fn gather_strays(&mut self) {
        for id in self.strays.keys().copied().collect::<Vec<_>>() {
            let left = self.strays.get_mut(&id).map_or(0, |left| {
                *left = left.saturating_sub(1);
                *left
            });
            match self.processes.get(&id).filter(|p| left > 0 && !p.remote.is_over() && p.pgid != 0) {
                Some(process) => {
                    let leads = process.remote == Remote::Running { pid: process.sid };
                    let order = if leads { Order::Session } else { Order::Group(process.pgid) };
                    if !process.orders.contains(&order) && process.doing != Some(order) {
                        if leads {
                            self.order(id, Order::Leave);
                        }
                        self.order(id, order);
                    }
                }
                None => self.no_stray(id),
            }
        }
    }

    fn no_stray(&mut self, id: ProcId) {
        self.strays.remove(&id);
        self.stop_now(id);
    }

    /// A forked ghost is there, in this group, which its maker was in.
    pub(super) fn settle_group(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id).filter(|p| p.fork.is_some() && p.pgid != 0) else { return };
        let (wanted, is) = (self.master_group(id, process.pgid), process.ghost_pgid);
        if wanted != Some(is) && process.sid != process.pid {
            let order = Order::Group(process.pgid);
            if !process.orders.contains(&order) {
                self.order(id, order);
            }
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
            if matches!(process.ghost, Ghost::Expected { .. }) && !fork.is_told() {
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

    /// Has a dead ghost waited for by its parent, if its process has been.
    fn reap_ghost(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(fork) = &process.fork else { return };
        if !fork.reaped || !matches!(process.ghost, Ghost::Gone) || process.pid == 0 {
            return;
        }
        let (launch, pid) = (process.launch, process.pid);
        match fork.parent {
            Parent::Ghost(parent) => self.order(parent, Order::Reap(pid)),
            Parent::Launcher => self.tell_launcher(launch, MasterToClient::Reap(Reap { pid })),
            Parent::Init => {}
        }
    }

    /// Whether its ghost is to be seen as a zombie yet: dead, not waited for, and not left to the host's init.
    pub(super) fn is_zombie(&self, id: ProcId) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        let Some(fork) = &process.fork else { return false };
        let has_parent = match fork.parent {
            Parent::Ghost(parent) => self.processes.get(&parent).is_some_and(|p| !matches!(p.ghost, Ghost::Gone)),
            Parent::Launcher => self.launches.get(&process.launch).is_some_and(|launch| !launch.ended),
            Parent::Init => false,
        };
        !fork.reaped && process.pid != 0 && has_parent
    }

    /// The task of a ghost has ended.
    pub(super) fn ghost_of_tree_gone(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let launch = process.launch;
        self.unborn.remove(&id);
        process.orders.clear();
        // The host's init waits for its children.
        let made = std::mem::take(&mut process.made);
        let place = process.fork.as_mut().and_then(|fork| fork.place.take()).filter(|_| process.pid != 0);
        if let (Some(place), Some(launch)) = (place, self.launches.get_mut(&launch)) {
            launch.places.give_back(place);
        }
        self.reap_ghost(id);
        for child in made {
            if self.unborn.contains(&child) {
                self.tend_birth(child);
            } else {
                self.clear_process(child);
            }
        }
    }

    /// A process is forgotten.
    pub(super) fn leave_tree(&mut self, id: ProcId) {
        self.unborn.remove(&id);
        self.strays.remove(&id);
        let Some(process) = self.processes.get(&id) else { return };
        let Some(fork) = &process.fork else { return };
        let (parent, launch, rank) = (fork.parent, process.launch, process.rank);
        if let Parent::Ghost(parent) = parent
            && let Some(parent) = self.processes.get_mut(&parent)
        {
            parent.made.remove(&id);
        }
        if let Some(launch) = self.launches.get_mut(&launch) {
            launch.forked.remove(&rank);
        }
    }

    /// Whether no other ghost's record of this group signal has come before, for the same group of the same node.
    ///
    /// A call's number can come again: each CPU knows only the calls that it has made itself. But no ghost has two records of
    /// one call (ghost_abi), so the second is of another one.
    pub(super) fn group_call(&mut self, id: ProcId, call: u64) -> GroupCall {
        let Some(process) = self.processes.get(&id) else { return GroupCall::Known };
        if process.pgid == 0 {
            // It has not started yet: its group is its own.
            return GroupCall::New;
        }
        let key = (call, process.node, process.pgid);
        if let Some((_, heard)) = self.group_calls.iter_mut().find(|(known, _)| *known == key) {
            if heard.insert(id) {
                return GroupCall::Known;
            }
            *heard = BTreeSet::from([id]);
            return GroupCall::Again;
        }
        if self.group_calls.len() >= CALLS {
            self.group_calls.pop_front();
        }
        self.group_calls.push_back((key, BTreeSet::from([id])));
        GroupCall::New
    }

    /// Those of the group whose ghosts cannot be seen to get a signal at once will be seen to get it later: they have it
    /// from the node's group already.
    pub(super) fn forestall_group(&mut self, id: ProcId, signal: u16, value: u64) {
        if i32::from(signal) == libc::SIGKILL {
            return;
        }
        let Some(process) = self.processes.get(&id) else { return };
        let (launch, node, pgid) = (process.launch, process.node, process.pgid);
        let Some(launch) = self.launches.get(&launch) else { return };
        for other in launch.forked.values().copied().filter(|other| *other != id).collect::<Vec<_>>() {
            if let Some(other) = self.processes.get_mut(&other)
                && other.node == node
                && other.pgid == pgid
                && matches!(other.ghost, Ghost::Expected { .. } | Ghost::Arriving | Ghost::Awake { .. })
            {
                if !ghost_abi::is_realtime(usize::from(signal)) {
                    other.forestalled |= bit(signal);
                } else if other.forestalled_realtime.len() < MOST {
                    other.forestalled_realtime.push((signal, value));
                }
            }
        }
    }
}

pub(super) fn name_of(comm: &[u8]) -> [u8; 15] {
    let mut name = [0; 15];
    for (to, from) in name.iter_mut().zip(comm) {
        *to = *from;
    }
    name
}

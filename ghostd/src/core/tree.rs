//! The tree: ghosts of the processes that remote processes fork, once they are there. How they come is [`super::births`]'s.
//!
//! The kernel itself keeps the tree here, and reparents when it does there. Groups and sessions are [`super::groups`]'s.
//!
//! Invariants:
//! - What a ghost is to do for others (make another one, wait for one) comes before its own end.
//! - The ghost of a dead process stays a zombie until the process has been waited for on the node, as long as the parent of
//!   that ghost is there.
//! - A place in the nursery belongs to one ghost, until the end of its task has been seen.

use std::collections::BTreeSet;

use ghost_proto::client::{MasterToClient, Reap};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_sys::ghost::Answer;
use nix::libc;

use super::Core;
use super::signal_queue::MOST;
use super::signals::bit;
use super::types::{Doing, Fork, Ghost, Order, Output, Parent, Process, Remote};

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
            takes_in: false,
            pgid: 0,
            sid: 0,
            ghost_pgid: 0,
            placed_for: 0,
            founded_for: 0,
            is_asked_for: false,
            leads: false,
            may_lead: false,
            leads_session: false,
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
            asked: None,
            forestalled: 0,
            forestalled_realtime: Vec::new(),
            held_back: Some(Vec::new()),
            outputs: [Output::none(), Output::none()],
            stdin_acked: 0,
            stdin_open: false,
        }
    }
}

impl Core {
    /// Adds to what a ghost is to do.
    pub(super) fn order(&mut self, id: ProcId, order: Order) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if matches!(process.ghost, Ghost::Gone | Ghost::Leaving { .. }) {
            return;
        }
        match order {
            // Made by now is who was made before.
            Order::Place => process.orders.push_front(order),
            _ => process.orders.push_back(order),
        }
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
            let Some(&order) = process.orders.front() else { return false };
            let waits = process.is_to_lead_first() && self.strays.contains_key(&id);
            if let Order::Fork(child) = order
                && waits
                && self.processes.get(&child).and_then(|p| p.fork.as_ref()).is_some_and(|fork| fork.failures == 0)
            {
                return false;
            }
            let Some(process) = self.processes.get_mut(&id) else { return false };
            process.orders.pop_front();
            let doing = match order {
                Order::Fork(child) => self.beget(id, child).then_some(Doing::Fork(child)),
                Order::Reap(pid) => self.tell_ghost(id, Answer::Reap(pid), Doing::Other),
                Order::TakeIn => self.tell_ghost(id, Answer::TakeIn, Doing::TakeIn),
                Order::Name(comm) => self.tell_ghost(id, Answer::Name(comm), Doing::Other),
                Order::Place | Order::Lead => match self.answer_of_place(id, order == Order::Lead) {
                    Some((answer, moving)) => self.tell_ghost(id, answer, Doing::Move(moving)),
                    None => None,
                },
                Order::Kill(kill, seq) => {
                    self.acts_for(id, seq);
                    self.tell_ghost(id, Answer::Kill(kill), Doing::Other)
                }
            };
            if doing.is_some() {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.doing = doing;
                }
                return true;
            }
        }
    }

    fn tell_ghost(&mut self, id: ProcId, answer: Answer, doing: Doing) -> Option<Doing> {
        self.answer_ghost(id, answer);
        Some(doing)
    }

    /// A ghost is back; this is how what it was told went: 0, or an errno.
    pub(super) fn order_done(&mut self, id: ProcId, errno: u32) {
        let doing = self.processes.get_mut(&id).and_then(|process| process.doing.take());
        match doing {
            Some(Doing::Fork(child)) => self.birth_done(id, child, errno),
            Some(Doing::Move(moving)) => self.moved(id, moving, errno),
            Some(Doing::TakeIn) => self.takes_in(id, errno),
            Some(Doing::Other) | None => {}
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
        if !self.awaits_heir(id) {
            self.end_now(id);
        }
        let Some(fork) = self.processes.get_mut(&id).and_then(|p| p.fork.as_mut()) else { return };
        if std::mem::replace(&mut fork.reaped, true) {
            return;
        }
        self.reap_ghost(id);
        self.clear_process(id);
    }

    /// Has a dead ghost waited for by its parent, if its process has been.
    fn reap_ghost(&mut self, id: ProcId) {
        self.place_the_rest();
        let Some(process) = self.processes.get(&id) else { return };
        let Some(fork) = &process.fork else { return };
        if !fork.reaped || !matches!(process.ghost, Ghost::Gone) || process.pid == 0 {
            return;
        }
        let (launch, pid) = (process.launch, process.pid);
        match fork.parent {
            Parent::Ghost(parent) => {
                self.order(parent, Order::Reap(pid));
                self.stop_now(parent);
            }
            Parent::Launcher => self.tell_launcher(launch, MasterToClient::Reap(Reap { pid })),
            Parent::Init => {}
        }
    }

    /// Whether its process has waited for a child whose ghost is not dead yet.
    pub(super) fn has_to_reap(&self, id: ProcId) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        process.made.iter().filter_map(|child| self.processes.get(child)).any(|child| {
            let is_made = |fork: &Fork| fork.reaped && (child.pid != 0 || fork.is_told());
            child.fork.as_ref().is_some_and(is_made) && !matches!(child.ghost, Ghost::Gone)
        })
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
        let to_reap = |order: &Order| if let Order::Reap(pid) = *order { Some(pid) } else { None };
        let dead: Vec<u32> = process.orders.iter().filter_map(to_reap).collect();
        process.orders.clear();
        let made = std::mem::take(&mut process.made);
        let place = process.fork.as_mut().and_then(|fork| fork.place.take()).filter(|_| process.pid != 0);
        self.give_back(launch, place);
        self.reap_ghost(id);
        self.hand_on(id, made, &dead);
    }

    /// A process is forgotten.
    pub(super) fn leave_tree(&mut self, id: ProcId) {
        self.unborn.remove(&id);
        self.strays.remove(&id);
        self.late_ends.remove(&id);
        self.unplaced.remove(&id);
        let Some(process) = self.processes.get(&id) else { return };
        let Some(fork) = &process.fork else { return };
        let (parent, launch, seat) = (fork.parent, process.launch, fork.seat);
        if let Parent::Ghost(parent) = parent
            && let Some(parent) = self.processes.get_mut(&parent)
        {
            parent.made.remove(&id);
        }
        self.leave_seat(launch, seat);
    }

    /// A place in the nursery is free again.
    pub(super) fn give_back(&mut self, launch: LaunchId, place: Option<u32>) {
        let host = self.host_of(launch);
        if let (Some(place), Some(launch)) = (place, self.launches.get_mut(&host)) {
            launch.places.give_back(place);
        }
    }

    /// Whether no other ghost's record of this group signal has come before, for the same group of the same node.
    ///
    /// A call's number can come again: each CPU knows only the calls that it has made itself. But no ghost has two records of
    /// one call (ghost_abi), so the second is of another one.
    pub(super) fn group_call(&mut self, id: ProcId, call: u64) -> GroupCall {
        let Some(process) = self.processes.get(&id) else { return GroupCall::Known };
        let group = self.group_there(id);
        if group == 0 {
            // It has not started yet: its group is its own.
            return GroupCall::New;
        }
        let key = (call, process.node, group);
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
        let pgid = self.group_there(id);
        let Some((node, home)) = self.processes.get(&id).map(|process| (process.node, process.ghost_pgid)) else {
            return;
        };
        let blocked = |process: &Process| match process.ghost {
            Ghost::Expected { .. } | Ghost::Arriving => process.remote != Remote::Planned,
            // What is launched is in its group as soon as it has been asked for.
            Ghost::Awake { .. } => process.remote != Remote::Planned,
            _ => false,
        };
        // Of processes that were found the groups there are not known before their node has come; the ghosts' are, and stand for them
        // where there are stand-ins.
        let stood_for = |process: &Process| {
            process.found && self.launches.get(&process.launch).is_some_and(|launch| launch.origin.is_some())
        };
        let same_group = |other: ProcId, process: &Process| match (pgid, self.group_there(other)) {
            (0, 0) => home != 0 && process.ghost_pgid == home && stood_for(process),
            (group, others) => group == others,
        };
        // Other launches may have the same group.
        let of_group = |(other, process): &(&ProcId, &Process)| {
            **other != id && process.node == node && blocked(process) && same_group(**other, process)
        };
        for other in self.processes.iter().filter(of_group).map(|(&other, _)| other).collect::<Vec<_>>() {
            if let Some(process) = self.processes.get_mut(&other) {
                if !ghost_abi::is_realtime(usize::from(signal)) {
                    process.forestalled |= bit(signal);
                } else if process.forestalled_realtime.len() < MOST {
                    process.forestalled_realtime.push((signal, value));
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

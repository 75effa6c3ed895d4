//! How the ghosts of forked processes come to be: who makes them, and what if it does not.
//!
//! ```text
//!  node: Forked              maker asleep: "fork"                maker back          reads
//!  ------------> Asked, to do -------------------> Asked, told -------------> Made -------> Arriving, as a first ghost
//!                  |   ^                              |
//!                  |   +---- another maker -----------+ (maker stopped, dead, or without success)
//!                  |
//!                  +---- nobody of the launch can: Fostered ---------------------> reads
//! ```
//! Who is asked follows from what the process is on its node:
//!
//! | on the node | here |
//! |---|---|
//! | child of a process | child of that one's ghost, made by it |
//! | made by a process as its sibling (CLONE_PARENT) | that one's ghost makes a sibling of itself |
//! | its parent has ended, or is about to (killed) | an orphan: a ghost of the launch makes it, and it is taken in by init |
//! | its parent's ghost is stopped | by a sibling below that ghost; else a child of the next ancestor's ghost, if that is of its session; else an orphan, made by another ghost of its session |
//!
//! Invariants:
//! - A process that lives has a ghost, or one is on its way: it is never given up. When all ghosts of its launch are dead, so that none
//!   can be made, it is killed.
//! - No two makers act on one process: a maker that was told is first heard of again, or told off.
//! - A ghost is watched from its fork on, so that whatever ends or stops it before it comes is known.

use std::time::Duration;

use ghost_host::pin::ReadToken;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::tree::{Forked, is_forked_on};
use ghost_sys::ghost::{Answer, Birth, Kin};

use super::found::tag_of;
use super::signals::Forward;
use super::tree::name_of;
use super::types::{Fork, Ghost, Making, Order, Parent, Process, Remote};
use super::{Action, Core};

/// How often a birth is looked after.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);
/// How long a maker may be busy with other things. Long: it may only be waiting for a processor.
const BUSY: Duration = Duration::from_secs(2);
/// How long a ghost that was made may take to read the pin, unless it is known to be stopped.
const COMING: Duration = Duration::from_secs(10);
/// Forked processes that one launch may have at once.
pub(super) const MOST: usize = ghost_sys::ghost::NURSERY as usize;

/// What a ghost can do for another one's birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// It sleeps, or comes back by itself.
    Able,
    /// It is stopped; it will be able.
    Stopped,
    /// It is dead, or will not run any more.
    Lost,
}

impl Process {
    fn as_maker(&self) -> Maker {
        match self.ghost {
            _ if self.killed => Maker::Lost,
            Ghost::Gone | Ghost::Leaving { .. } | Ghost::Awaited => Maker::Lost,
            _ if self.ghost_stopped => Maker::Stopped,
            Ghost::Asleep(_) => Maker::Able,
            // It reads once more before it stops, and does this first.
            Ghost::Awake { next: Some(Answer::Stop(_)) } | Ghost::Expected { next: Some(Answer::Stop(_)) } => {
                Maker::Able
            }
            _ if self.stop_later.is_some() => Maker::Able,
            Ghost::Awake { .. } | Ghost::Arriving | Ghost::Expected { .. } if self.stopped => Maker::Stopped,
            Ghost::Awake { .. } | Ghost::Arriving | Ghost::Expected { .. } => Maker::Able,
        }
    }

    /// It can be told at once.
    fn can_make(&self) -> bool {
        self.as_maker() == Maker::Able && matches!(self.ghost, Ghost::Asleep(_))
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
            self.meet_forked(id, node, message.pid, name_of(&standing.comm));
            return self.stands(id, &standing);
        }
        let launch_id = LaunchId(message.launch);
        let ours = |core: &Core, process: u64| {
            let id = ProcId(process);
            core.processes.get(&id).is_some_and(|p| p.node == node && p.launch == launch_id).then_some(id)
        };
        let origin = ours(self, message.parent);
        let creator = ours(self, message.creator);
        let now = self.now;
        if launch_id != LaunchId::default() && launch_id.0 < self.settings.first_id {
            // A ghostd before may have known it.
            self.ensure_launch(launch_id, standing.uid);
        }
        if !self.launches.get(&launch_id).is_some_and(|launch| launch.is_on(node)) {
            tracing::warn!(node = node.0, pid = message.pid, "a forked process belongs to no launch of this node");
            return;
        }
        let Some(rank) = self.seat(launch_id, id) else {
            tracing::warn!(node = node.0, pid = message.pid, "the launch has too many processes: one has no ghost");
            return;
        };
        let fork = Fork {
            origin,
            creator,
            parent: Parent::Init,
            making: Making::Nobody,
            place: None,
            comm: name_of(&standing.comm),
            due: now + PATIENCE,
            since: now,
            failures: 0,
            reaped: false,
            heir: None,
            seat: rank,
            launched: false,
        };
        let process = Process {
            fork: Some(fork),
            ghost: Ghost::Expected { next: None },
            remote: Remote::Running { pid: message.pid },
            pgid: standing.pgid,
            sid: standing.sid,
            held: true,
            ..Process::planned(launch_id, rank, node)
        };
        self.counts.forked += 1;
        self.processes.insert(id, process);
        self.by_node_pid.insert((node, message.pid), id);
        self.unborn.insert(id);
        self.ask_for_birth(id);
    }

    /// Chooses who makes a ghost, and asks.
    pub(super) fn ask_for_birth(&mut self, id: ProcId) {
        let now = self.now;
        let chosen = self.maker_of(id);
        if let Some(process) = self.processes.get(&id)
            && let Some(fork) = &process.fork
            && chosen.is_none_or(|(maker, _, _)| Some(maker) != fork.creator.or(fork.origin))
        {
            let origin = fork.origin.and_then(|origin| self.processes.get(&origin));
            tracing::debug!(
                pid = ?process.remote,
                ?chosen,
                failures = fork.failures,
                origin = ?origin.map(|p| (p.pid, p.as_maker(), p.killed, p.stopped, p.ghost_stopped)),
                "a ghost is not made by its process's parent"
            );
        }
        let Some(fork) = self.processes.get_mut(&id).and_then(|p| p.fork.as_mut()) else { return };
        (fork.since, fork.due) = (now, now + PATIENCE);
        let Some((maker, kin, parent)) = chosen else {
            fork.making = Making::Nobody;
            if let Some(host) = self.processes.get(&id).map(|process| self.host_of(process.launch))
                && let Some(launch) = self.launches.get_mut(&host)
            {
                launch.lacks_maker = true;
            }
            if !self.has_makers(id) && !self.is_not_made(id, 0, true) {
                // Nobody here could see or end it any more.
                self.forward(id, Forward::kill());
            }
            return;
        };
        fork.making = Making::Asked { maker, kin, told: false };
        let parent = if kin == Kin::Orphan { self.taker_from(Parent::Ghost(maker)) } else { parent };
        let Some(fork) = self.processes.get_mut(&id).and_then(|p| p.fork.as_mut()) else { return };
        fork.parent = parent;
        if let Parent::Ghost(parent) = parent
            && let Some(parent) = self.processes.get_mut(&parent)
        {
            parent.made.insert(id);
        }
        self.order(maker, Order::Fork(id));
    }

    /// Who is to make a process's ghost now, as what, and whose child it is then; nobody, if none of the launch can.
    fn maker_of(&self, id: ProcId) -> Option<(ProcId, Kin, Parent)> {
        let process = self.processes.get(&id)?;
        let fork = process.fork.as_ref()?;
        let state = |id: ProcId| self.processes.get(&id).map_or(Maker::Lost, Process::as_maker);
        // Who did not do it in all that time is taken for stopped.
        let able = |id: ProcId| state(id) == Maker::Able && fork.failures == 0;
        let session = |p: &Process| self.session_there(p);
        let same = |id: &ProcId| self.processes.get(id).is_some_and(|p| session(p) == session(process));
        if let Some(creator) = fork.creator
            && able(creator)
        {
            return Some((creator, Kin::Sibling, self.parent_of(creator)));
        }
        if let Some(origin) = fork.origin.filter(|origin| state(*origin) != Maker::Lost) {
            let can_make = |id: &ProcId| self.processes.get(id).is_some_and(Process::can_make);
            if able(origin) || can_make(&origin) {
                return Some((origin, Kin::Child, Parent::Ghost(origin)));
            }
            let below = self.processes.get(&origin).into_iter().flat_map(|origin| &origin.made).copied();
            if let Some(sibling) = below.filter(|other| *other != id && same(other)).find(can_make) {
                return Some((sibling, Kin::Sibling, Parent::Ghost(origin)));
            }
            if let Some(ancestor) = self.able_ancestor(origin).filter(same) {
                return Some((ancestor, Kin::Child, Parent::Ghost(ancestor)));
            }
        }
        // Who is in another session than its process stays there: rather nobody's child.
        let launch = self.launches.get(&self.host_of(process.launch))?;
        let all = || launch.ranks.iter().flatten().chain(launch.forked.values()).copied().filter(|other| *other != id);
        let near = fork.origin.and_then(|origin| self.able_ancestor(origin));
        let can_make = |id: &ProcId| self.processes.get(id).is_some_and(Process::can_make);
        if let Some(maker) = near.filter(same).or_else(|| all().filter(same).find(can_make)) {
            return Some((maker, Kin::Orphan, Parent::Init));
        }
        // One that is not born itself may wait for this one.
        let born =
            |id: &ProcId| self.processes.get(id).is_some_and(|other| !matches!(other.ghost, Ghost::Expected { .. }));
        if fork.failures == 0
            && let Some(maker) = all().filter(same).filter(born).find(|other| state(*other) == Maker::Able)
        {
            return Some((maker, Kin::Orphan, Parent::Init));
        }
        match near {
            Some(ancestor) if fork.origin.is_some_and(|origin| state(origin) != Maker::Lost) => {
                Some((ancestor, Kin::Child, Parent::Ghost(ancestor)))
            }
            _ => Some((near.or_else(|| all().find(can_make))?, Kin::Orphan, Parent::Init)),
        }
    }

    /// The session of a process on its node; of one that has not begun, the one in which it will: the launcher's, or the holder's.
    fn session_there(&self, process: &Process) -> u32 {
        match process.sid {
            0 => self.origin_there(process).map_or(1, |origin| origin.session.pid),
            sid => sid,
        }
    }

    /// A ghost sleeps, or is not stopped any more: it may make those for which there was nobody.
    pub(super) fn maker_comes(&mut self, maker: ProcId) {
        let maker = self.processes.get(&maker).filter(|process| process.can_make());
        let Some(id) = maker.map(|process| self.host_of(process.launch)) else { return };
        let Some(launch) = self.launches.get_mut(&id) else { return };
        if !std::mem::take(&mut launch.lacks_maker) {
            return;
        }
        let waits = |child: &ProcId| {
            let child = self.processes.get(child);
            child.is_some_and(|p| {
                self.host_of(p.launch) == id && p.fork.as_ref().is_some_and(|f| f.making == Making::Nobody)
            })
        };
        for child in self.unborn.iter().copied().filter(waits).collect::<Vec<_>>() {
            self.tend_birth(child);
        }
    }

    /// Whether some ghost of the launch can make another one, now or later.
    fn has_makers(&self, id: ProcId) -> bool {
        let host = self.processes.get(&id).map(|process| self.host_of(process.launch));
        let Some(launch) = host.and_then(|host| self.launches.get(&host)) else {
            return false;
        };
        let mut all = launch.ranks.iter().flatten().chain(launch.forked.values());
        all.any(|other| {
            let lives = |ghost: &Ghost| matches!(ghost, Ghost::Asleep(_) | Ghost::Awake { .. } | Ghost::Arriving);
            self.processes.get(other).is_some_and(|other| lives(&other.ghost) && !other.killed)
        })
    }

    /// Whose child a process's ghost is.
    fn parent_of(&self, id: ProcId) -> Parent {
        match self.processes.get(&id).map(|p| p.fork.as_ref().map(|fork| fork.parent)) {
            Some(None) => Parent::Launcher,
            Some(Some(Parent::Ghost(parent)))
                if self.processes.get(&parent).is_none_or(|p| matches!(p.ghost, Ghost::Gone)) =>
            {
                Parent::Init
            }
            Some(Some(parent)) => parent,
            None => Parent::Init,
        }
    }

    /// The nearest process above whose ghost can make one at once.
    fn able_ancestor(&self, from: ProcId) -> Option<ProcId> {
        let mut at = from;
        loop {
            at = self.processes.get(&at)?.fork.as_ref()?.origin?;
            if self.processes.get(&at)?.can_make() {
                return Some(at);
            }
        }
    }

    /// Tells a sleeping ghost to make a process's. `true`: it is awake, and does.
    pub(super) fn beget(&mut self, maker: ProcId, child: ProcId) -> bool {
        let Some(process) = self.processes.get_mut(&child) else { return false };
        let Some(fork) = process.fork.as_mut() else { return false };
        let Making::Asked { maker: asked, .. } = &fork.making else { return false };
        if *asked != maker || !matches!(process.ghost, Ghost::Expected { .. }) {
            return false;
        }
        let pid = if let Remote::Running { pid } = process.remote { pid } else { 0 };
        // A place that was given to a maker who did not use it may be in use after all.
        fork.place = None;
        let launch = process.launch;
        let host = self.host_of(launch);
        let Some(place) = self.launches.get_mut(&host).and_then(|launch| launch.places.take()) else {
            return false;
        };
        self.look_above(child);
        let Some(process) = self.processes.get_mut(&child) else { return false };
        let Some(fork) = process.fork.as_mut() else { return false };
        let Making::Asked { kin, told, .. } = &mut fork.making else { return false };
        fork.place = Some(place);
        *told = true;
        let tag = tag_of(process.node, fork.place);
        let birth = Birth { rank: fork.seat, pid, place, kin: *kin, comm: fork.comm };
        let Some(process) = self.processes.get_mut(&maker) else { return false };
        let Ghost::Asleep(token) = std::mem::replace(&mut process.ghost, Ghost::Awake { next: None }) else {
            return false;
        };
        process.interrupt_wanted = false;
        let maker = process.pid;
        self.by_read.remove(&token.unique());
        self.act(Action::Beget { token, maker, process: child, birth, tag });
        true
    }

    /// A maker is back.
    pub(super) fn birth_done(&mut self, maker: ProcId, child: ProcId, errno: u32) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&child) else { return };
        if !matches!(process.ghost, Ghost::Expected { .. }) {
            return;
        }
        let (launch, node_pid, over) = (process.launch, process.remote, process.remote.is_over());
        let Some(fork) = process.fork.as_mut() else { return };
        if !matches!(fork.making, Making::Asked { maker: asked, told: true, .. } if asked == maker) {
            return;
        }
        if errno == 0 {
            fork.making = Making::Made;
            fork.due = now + COMING;
            return;
        }
        tracing::debug!(pid = ?node_pid, errno, "a ghost could not make another one");
        fork.making = Making::Nobody;
        fork.failures += 1;
        fork.due = now + PATIENCE;
        let place = fork.place.take();
        self.give_back(launch, place);
        if self.is_not_made(child, errno, false) {
            return self.tend_birth(child);
        }
        if over {
            self.tend_birth(child);
        }
    }

    /// A maker was told off.
    pub(super) fn birth_withdrawn(&mut self, id: ProcId, in_time: bool) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(fork) = process.fork.as_mut().filter(|_| matches!(process.ghost, Ghost::Expected { .. })) else {
            return;
        };
        if in_time {
            fork.making = Making::Nobody;
            fork.due = now;
            self.tend_birth(id);
        } else {
            fork.due = now + COMING;
            self.is_made_after_all(id);
        }
    }

    /// A process sleeps on the pin as the ghost of a forked process.
    pub(super) fn forked_ghost_comes(&mut self, id: ProcId, token: ReadToken, pid: u32, uid: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return self.act(Action::RefuseRead { token }) };
        let (Some(fork), Ghost::Expected { next }) = (&process.fork, &process.ghost) else {
            return self.act(Action::RefuseRead { token });
        };
        let (next, launch) = (*next, process.launch);
        let parent = fork.parent;
        let tag = tag_of(process.node, fork.place);
        process.ghost = if next.is_some() { Ghost::Awake { next } } else { Ghost::Arriving };
        process.pid = pid;
        let parent = match parent {
            Parent::Ghost(parent) => self
                .processes
                .get(&parent)
                .filter(|p| !matches!(p.ghost, Ghost::Gone | Ghost::Leaving { .. }))
                .map(|p| p.pid),
            Parent::Launcher => self.launches.get(&launch).filter(|l| !l.ended).map(|l| l.user.pid),
            Parent::Init => None,
        };
        self.act(Action::Adopt { process: id, token, pid, parent, uid, tag });
    }

    /// Looks after those that have not come.
    pub(super) fn tend_unborn(&mut self) {
        let now = self.now;
        let late =
            |id: &ProcId| self.processes.get(id).and_then(|p| p.fork.as_ref()).is_none_or(|fork| fork.due <= now);
        for id in self.unborn.iter().copied().filter(late).collect::<Vec<_>>() {
            self.tend_birth(id);
        }
    }

    /// Looks after one birth.
    pub(super) fn tend_birth(&mut self, id: ProcId) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id) else {
            self.unborn.remove(&id);
            return;
        };
        if !matches!(process.ghost, Ghost::Expected { .. }) {
            // It has come, and is being looked at.
            return;
        }
        // One that was killed before it came is dead, whatever had stopped it.
        let (over, stopped) = (process.remote.is_over(), process.ghost_stopped && !process.killed);
        let Some(fork) = process.fork.as_mut() else { return };
        fork.due = now + PATIENCE;
        let (making, waited) = (fork.making, now.saturating_sub(fork.since));
        match making {
            Making::Nobody if over => self.give_up(id),
            Making::Nobody => self.ask_for_birth(id),
            Making::Asked { maker, told: false, .. } => {
                let state = self.processes.get(&maker).map_or(Maker::Lost, Process::as_maker);
                if over || state != Maker::Able || waited >= BUSY {
                    self.call_off(id, maker);
                    if let Some(fork) = self.processes.get_mut(&id).and_then(|p| p.fork.as_mut()) {
                        fork.failures += u32::from(state == Maker::Able);
                        fork.making = Making::Nobody;
                    }
                    if over { self.give_up(id) } else { self.ask_for_birth(id) }
                }
            }
            Making::Asked { maker, told: true, .. } => {
                let process = self.processes.get(&maker);
                let (state, pid) = process.map_or((Maker::Lost, 0), |p| (p.as_maker(), p.pid));
                if state != Maker::Able || waited >= BUSY {
                    self.call_off(id, maker);
                    self.act(Action::Withdraw { process: id, maker: pid });
                }
            }
            // Nothing is left that it could stand for: perhaps it is dead, and the record of that was lost.
            Making::Made if stopped && !over => {}
            Making::Made => {
                if waited >= COMING {
                    tracing::warn!(process = id.0, over, "a ghost has not come");
                    if let Some(fork) = self.processes.get_mut(&id).and_then(|p| p.fork.as_mut()) {
                        fork.making = Making::Nobody;
                        fork.failures += 1;
                    }
                }
            }
        }
    }

    /// Ghosts that were made, and were stopped before they came. Nobody hears of them any more if the record of their end is lost.
    pub fn stopped_unborn(&self) -> Vec<ProcId> {
        let waits = |id: &ProcId| {
            self.processes.get(id).is_some_and(|process| {
                process.ghost_stopped && process.fork.as_ref().is_some_and(|fork| matches!(fork.making, Making::Made))
            })
        };
        self.unborn.iter().copied().filter(waits).collect()
    }

    /// A maker is not to make it any more, and nobody's child it is.
    fn call_off(&mut self, id: ProcId, maker: ProcId) {
        if let Some(maker) = self.processes.get_mut(&maker) {
            maker.orders.retain(|order| *order != Order::Fork(id));
        }
        let parent = self.processes.get(&id).and_then(|p| p.fork.as_ref()).map(|fork| fork.parent);
        if let Some(Parent::Ghost(parent)) = parent
            && let Some(parent) = self.processes.get_mut(&parent)
        {
            parent.made.remove(&id);
        }
    }

    /// It has ended before anybody could make its ghost.
    fn give_up(&mut self, id: ProcId) {
        self.unborn.remove(&id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.ghost = Ghost::Gone;
        let children = std::mem::take(&mut process.made);
        self.clear_process(id);
        // Somebody else makes the ghosts of its children.
        for child in children {
            self.tend_birth(child);
        }
    }
}

//! Groups and sessions: for each group of a node that has living processes one here, whose members are their ghosts.
//!
//! What a process stands in there is told; where its ghost is to stand follows, each time anew, from where the others' ghosts are:
//!
//! | the group there | its ghosts' here |
//! |---|---|
//! | that in which processes were launched | the launcher's |
//! | another one that a stand-in leads | the one with that number, which the stand-in's original leads |
//! | one with a ghost that is placed | that one's |
//! | another one | that of its leader's ghost; a new one that nobody leads, if the leader is gone or cannot come |
//!
//! ```text
//!            told: another group             it may move now: an order            done
//!  placed ---------------------> to be placed --------------------> moving ---------------> placed
//!                                 ^   | nobody to join, nowhere to lead: again at each tick  |
//!                                 |   +--> stray                                             | refused
//!                                 +----------------------------------------------------------+
//! ```
//! Invariants:
//! - Two placed ghosts of a node's processes are in one group if and only if their processes are.
//! - A group with the number of a ghost stands for that of the ghost's own process: nobody is in the way of who is to lead one.
//! - A stopped ghost cannot move: a stray that is to stop is placed first, one that has stopped goes on for as long as it takes.

use ghost_proto::ids::{LaunchId, ProcId};
use ghost_proto::status::WaitStatus;
use ghost_proto::tree::Standing;
use ghost_sys::ghost::Answer;

use super::types::{Ghost, Moving, Order, Process, Remote};
use super::{Action, Core};

/// Ticks for which a ghost tries to get to its place.
const TRIES: u16 = 250;
/// Ticks for which the end of one waits for that.
const LATE: u8 = 20;
/// So many of them in vain, and those that are awaited are not any more.
const VAIN: u16 = 10;

/// What a ghost is to do to stand where its process does.
enum Move {
    /// It does.
    Nothing,
    Make(Moving),
    /// Somebody else has to move first.
    Wait,
}

/// Where that is.
enum Place {
    In(u32),
    New,
    /// Somebody else is to go there first.
    Awaited,
}

impl Process {
    fn is_about_to_lead(&self) -> bool {
        self.leads && !self.leads_session
    }

    fn is_placed(&self) -> bool {
        self.pgid != 0 && self.placed_for == self.pgid
    }

    /// It has a ghost, which is not about to end.
    fn is_here(&self) -> bool {
        self.remote.is_live() && self.pid != 0 && !matches!(self.ghost, Ghost::Gone | Ghost::Leaving { .. })
    }

    /// Who is made by it now belongs to the session that it does not lead yet.
    pub(super) fn is_to_lead_first(&self) -> bool {
        self.may_lead && !self.leads_session && self.remote.is_live()
    }
}

impl Core {
    /// Where a process stands now on its node.
    pub(super) fn stands(&mut self, id: ProcId, standing: &Standing) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Remote::Running { pid } = process.remote else { return };
        if standing.pgid == 0 {
            return;
        }
        // Of one that was there before this ghostd: it has placed it.
        let met = process.pgid == 0 && process.pid != 0;
        let leads = standing.sid == pid;
        let led = std::mem::replace(&mut process.leads, leads);
        (process.pgid, process.sid) = (standing.pgid, standing.sid);
        let group = (process.node, standing.pgid);
        if leads && !led {
            process.placed_for = 0;
            // A launched process, whose first group is no more.
            self.homes.remove(&group);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if met {
            process.leads_session = leads && process.ghost_pgid == process.pid;
            if !self.contradicts(id) {
                return self.placed(id);
            }
        }
        if leads && !led {
            return self.order(id, Order::Lead);
        }
        self.place(id);
    }

    /// A launched process has begun: those of its group there are in its launcher's here.
    pub(super) fn founds_home(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.ghost_pgid == 0 {
            return;
        }
        process.placed_for = process.pgid;
        let Remote::Running { pid } = process.remote else { return };
        if process.found && process.sid == pid && process.ghost_pgid == process.pid {
            // It and its ghost have come to lead sessions before.
            (process.leads, process.leads_session) = (true, true);
            return;
        }
        let (key, launch, pgid) = ((process.node, process.pgid), process.launch, process.ghost_pgid);
        let (launches, home) = self.homes.entry(key).or_default();
        // If it was another one's, that one's members on the node have gone.
        *home = pgid;
        launches.insert(launch);
    }

    /// A launch is over. Others may have begun in the same groups.
    pub(super) fn leaves_homes(&mut self, id: LaunchId) {
        self.homes.retain(|_, (launches, _)| {
            launches.remove(&id);
            !launches.is_empty()
        });
    }

    /// A forked ghost is there, in the group which its maker was in; or one has become free to move.
    pub(super) fn place(&mut self, id: ProcId) {
        match self.next_move(id) {
            Move::Nothing => {
                if self.processes.get(&id).is_some_and(|process| process.pid != 0 && !process.is_about_to_lead()) {
                    self.placed(id);
                }
            }
            Move::Wait => self.place_later(id),
            Move::Make(_) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                process.placed_for = 0;
                let rests = process.fork.is_some() && process.stopped && !process.killed;
                let rests = rests && matches!(process.ghost, Ghost::Awake { next: None });
                if !process.orders.contains(&Order::Place) {
                    self.order(id, Order::Place);
                }
                if rests {
                    // It stops again when it has moved. Nobody waits for it but another ghost.
                    self.place_later(id);
                    self.continue_ghost(id);
                }
            }
        }
    }

    /// A zombie has gone, which may have been in the way of those that could not be placed.
    pub(super) fn place_the_rest(&mut self) {
        for id in std::mem::take(&mut self.unplaced) {
            self.place_later(id);
        }
    }

    /// A ghost is asleep, and its turn has come. `None`: there is nothing to tell it.
    pub(super) fn answer_of_place(&mut self, id: ProcId, may_lead: bool) -> Option<(Answer, Moving)> {
        self.processes.get_mut(&id)?.may_lead |= may_lead;
        let moving = match self.next_move(id) {
            Move::Nothing => {
                if !self.processes.get(&id)?.is_about_to_lead() {
                    self.placed(id);
                }
                return None;
            }
            Move::Wait => {
                self.place_later(id);
                return None;
            }
            Move::Make(moving) => moving,
        };
        let process = self.processes.get_mut(&id)?;
        process.placed_for = 0;
        let answer = match moving {
            Moving::Group { to, .. } => Answer::Group(to),
            Moving::Found { stands_for } => Answer::Found(stands_for),
            Moving::Session => Answer::Session,
        };
        Some((answer, moving))
    }

    /// A ghost that was told to move is back.
    pub(super) fn moved(&mut self, id: ProcId, moving: Moving, errno: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if errno != 0 {
            // No such group any more, or in another session; or there is still a group of its number, whose members have not left yet.
            return self.place_later(id);
        }
        match moving {
            Moving::Group { to, stands_for } => {
                process.ghost_pgid = to;
                if process.pgid == stands_for && !process.is_about_to_lead() {
                    return self.placed(id);
                }
            }
            Moving::Found { stands_for } => {
                (process.is_asked_for, process.founded_for) = (true, stands_for);
                let pid = process.pid;
                return self.act(Action::AskGroup { process: id, pid });
            }
            Moving::Session => {
                process.leads_session = true;
                process.ghost_pgid = process.pid;
                return self.placed(id);
            }
        }
        self.place(id);
    }

    /// The number of the group that a ghost has founded; 0: the ghost has gone.
    pub(super) fn group_is(&mut self, id: ProcId, pgid: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.is_asked_for = false;
        if pgid != 0 {
            process.ghost_pgid = pgid;
            // It stands for what the process is in now, or another one will be found for that.
            process.placed_for = process.founded_for;
            match process.is_placed() && !process.is_about_to_lead() {
                true => self.placed(id),
                false => self.place(id),
            }
        }
    }

    fn placed(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.placed_for = process.pgid;
        let group = (process.node, process.pgid);
        self.strays.remove(&id);
        self.unplaced.remove(&id);
        self.stop_now(id);
        self.end_if_nothing_is_left(id);
        // Now there is somebody to join.
        let waits = |other: &ProcId| self.processes.get(other).is_some_and(|other| (other.node, other.pgid) == group);
        let given_up: Vec<ProcId> = self.unplaced.extract_if(.., waits).collect();
        let tries = self.strays.keys().copied().filter(waits).collect::<Vec<_>>();
        for &other in &given_up {
            self.place_later(other);
        }
        for other in tries.into_iter().chain(given_up) {
            self.place(other);
        }
    }

    fn place_later(&mut self, id: ProcId) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.placed_for = 0;
        }
        self.strays.entry(id).or_insert(TRIES);
    }

    /// At each tick: ghosts that are not in the group or session yet that stands for their process's.
    pub(super) fn gather_strays(&mut self) {
        for id in self.strays.keys().copied().collect::<Vec<_>>() {
            let left = self.strays.get_mut(&id).map_or(0, |left| {
                *left = left.saturating_sub(1);
                *left
            });
            if left > 0 && self.processes.get(&id).is_some_and(|process| !process.remote.is_over()) {
                self.place(id);
            } else {
                self.strays.remove(&id);
                if left == 0 {
                    self.unplaced.insert(id);
                }
                self.stop_now(id);
            }
        }
    }

    /// A process has ended whose ghost is still on its way to where it belongs. As a zombie it would stand in the wrong group for as
    /// long as nobody waits for it: so it ends when it is there, or soon.
    pub(super) fn ends_later(&mut self, id: ProcId, status: WaitStatus) -> bool {
        let strays = self.strays.contains_key(&id);
        let waits = |process: &Process| {
            process.fork.is_some() && !process.killed && (process.pid == 0 || strays && process.is_here())
        };
        let late = (self.processes.get(&id).is_some_and(waits) || self.awaits_heir(id))
            && self.late_ends.get(&id).is_none_or(|(_, left)| *left > 0);
        if late {
            self.late_ends.entry(id).or_insert((status, LATE));
        }
        late
    }

    /// Nothing is left for a late end to wait for.
    pub(super) fn end_now(&mut self, id: ProcId) {
        if let Some((status, left)) = self.late_ends.get_mut(&id) {
            *left = 0;
            let status = *status;
            self.ended(id, status, false, None);
        }
    }

    /// At each tick.
    pub(super) fn end_the_late(&mut self) {
        for id in self.late_ends.keys().copied().collect::<Vec<_>>() {
            if let Some((_, left)) = self.late_ends.get_mut(&id) {
                *left = left.saturating_sub(1);
                match *left {
                    0 => self.end_now(id),
                    _ => self.end_if_nothing_is_left(id),
                }
            }
        }
    }

    /// Ends one whose end waits, unless there is something left to wait for.
    pub(super) fn end_if_nothing_is_left(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let is_reaped = process.fork.as_ref().is_some_and(|fork| fork.reaped);
        if (is_reaped || process.pid != 0 && !self.strays.contains_key(&id)) && !self.awaits_heir(id) {
            self.end_now(id);
        }
    }

    fn next_move(&mut self, id: ProcId) -> Move {
        let Some(process) = self.processes.get(&id) else { return Move::Nothing };
        // A session's leader stays where it is.
        if process.pgid == 0 || process.leads_session {
            return Move::Nothing;
        }
        if process.pid == 0 || process.is_asked_for {
            return Move::Wait;
        }
        let now_in = process.ghost_pgid;
        if process.leads {
            if !process.may_lead {
                // It has children to make before.
                return Move::Nothing;
            }
            return Move::Make(Moving::Session);
        }
        let stands_for = process.pgid;
        match self.group_for(id) {
            Place::In(to) if to == now_in => Move::Nothing,
            Place::In(to) => Move::Make(Moving::Group { to, stands_for }),
            Place::New => Move::Make(Moving::Found { stands_for }),
            Place::Awaited => Move::Wait,
        }
    }

    /// The group here that stands for a process's.
    fn group_for(&self, id: ProcId) -> Place {
        let Some(process) = self.processes.get(&id) else { return Place::Awaited };
        let (node, pgid, pid) = (process.node, process.pgid, process.pid);
        if let Some((_, home)) = self.homes.get(&(node, pgid)) {
            return Place::In(*home);
        }
        let leader = self.by_node_pid.get(&(node, pgid)).copied();
        if leader.is_none()
            && self.origin_there(process).is_some_and(|origin| [origin.group.pid, origin.session.pid].contains(&pgid))
        {
            return Place::In(pgid);
        }
        if let Some(leader) = leader.filter(|leader| *leader != id).and_then(|leader| self.processes.get(&leader))
            && leader.pgid == pgid
            && leader.is_here()
            && leader.is_placed()
        {
            return Place::In(leader.ghost_pgid);
        }
        let vain = self.strays.get(&id).is_some_and(|left| *left < TRIES - VAIN);
        // Its leader may only not have been told of yet as such.
        let mut awaited = !vain && leader.is_some_and(|leader| leader != id);
        for (other, p) in self.processes.iter().filter(|(other, _)| **other != id) {
            if p.node != node || p.pgid != pgid {
                continue;
            }
            // Zombies, too, keep a group alive.
            if p.is_placed() && (p.is_here() || self.is_zombie(*other)) {
                return Place::In(p.ghost_pgid);
            }
            if !p.remote.is_live() {
                continue;
            }
            let moves = p.moving().is_some_and(|moving| moving.stands_for() == Some(pgid)) || p.is_asked_for;
            let can_move = !p.stopped && !p.ghost_stopped && !p.killed;
            // One of several leads: its leader, else the first.
            awaited |= moves || !vain && leader != Some(id) && *other < id && can_move;
        }
        match leader {
            _ if awaited => Place::Awaited,
            Some(leader) if leader == id => Place::In(pid),
            _ => Place::New,
        }
    }

    /// Whether where it was found cannot be right, as others were found.
    fn contradicts(&self, id: ProcId) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        self.processes.iter().any(|(other, p)| {
            let same = (p.pgid == process.pgid) == (p.ghost_pgid == process.ghost_pgid);
            *other != id && p.node == process.node && p.launch == process.launch && p.is_placed() && !same
        })
    }
}

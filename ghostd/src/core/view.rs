//! The view: which ghosts' `/proc` shows their process, and when nodes are asked for figures.
//!
//! ```text
//!            older than AGE               the process is dead
//!  (nothing) ------------> shown --------------------------------> leaving ---> (nothing)
//!                            |   its last answer waits meanwhile,      hidden, or MOST_WAIT is over
//!                            +---------------------------------------> (nothing)
//!                                the ghost is gone
//! ```
//! Invariants:
//! - A process that lives shorter than [`AGE`] costs nothing of all this.
//! - A ghost gets its last answer when its view is off, so that a zombie shows the kernel's own /proc; but not later than
//!   [`MOST_WAIT`] after that is wanted.
//! - A node is asked only because somebody looks; what it says counts for its own processes alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::view::{AgentToMaster, MasterToAgent, ReadPart, Sample, Sampled};
use ghost_proto::view_port::{Fetch, GhostdToServer, Look, NodeFigures, NodePart, ServerToGhostd};
use ghost_sys::ghost::Answer;

use super::types::Remote;
use super::{Action, Core, Instant, LinkId};

/// How old a ghost is before it gets a view.
const AGE: Duration = Duration::from_millis(200);
/// How long a ghost's last answer may wait for its view to be taken off.
const MOST_WAIT: Duration = Duration::from_millis(100);

/// What the core remembers of the view.
#[derive(Debug, Default)]
pub(super) struct View {
    /// It is wanted.
    on: bool,
    /// The guard is there.
    up: bool,
    /// Processes whose ghosts have no view yet, in the order in which these came.
    young: VecDeque<(Instant, ProcId)>,
    shown: BTreeMap<ProcId, Shown>,
    last_seq: u64,
}

#[derive(Debug)]
enum Shown {
    Shown,
    Leaving { answer: Answer, since: Instant },
}

impl View {
    pub(super) fn new(on: bool) -> View {
        View { on, ..View::default() }
    }

    /// Somebody waits for a view to be taken off.
    pub(super) fn is_restless(&self) -> bool {
        self.shown.values().any(|shown| matches!(shown, Shown::Leaving { .. }))
    }

    #[cfg(test)]
    pub(super) fn table_entries(&self) -> usize {
        self.young.len() + self.shown.len()
    }
}

impl Core {
    /// Whether ghosts get views.
    pub fn shows_views(&self) -> bool {
        self.view.on && self.view.up
    }

    /// A ghost is there: if its process still runs in a while, it gets a view.
    pub(super) fn view_born(&mut self, id: ProcId) {
        if self.shows_views() {
            self.view.young.push_back((self.now, id));
        }
    }

    /// Before a ghost's last answer. `true`: it is given later, when its view is off.
    pub(super) fn view_delays(&mut self, id: ProcId, answer: Answer) -> bool {
        if !matches!(answer, Answer::Exit(_) | Answer::Die(_)) {
            return false;
        }
        let since = self.now;
        let Some(shown) = self.view.shown.get_mut(&id) else { return false };
        if matches!(shown, Shown::Shown) {
            *shown = Shown::Leaving { answer, since };
            self.act(Action::HideGhost { process: id });
        }
        true
    }

    /// A ghost is gone, or forgotten.
    pub(super) fn view_over(&mut self, id: ProcId) {
        if self.view.shown.remove(&id).is_some_and(|shown| matches!(shown, Shown::Shown)) {
            self.act(Action::HideGhost { process: id });
        }
    }

    /// `/proc/GHOST` is the kernel's own again.
    pub(super) fn view_hidden(&mut self, id: ProcId) {
        if matches!(self.view.shown.get(&id), Some(Shown::Leaving { .. })) {
            self.view_leave(id);
        }
    }

    /// The guard has not taken up a ghost: it is behind. Later.
    pub(super) fn view_not_shown(&mut self, id: ProcId) {
        if matches!(self.view.shown.get(&id), Some(Shown::Shown)) {
            self.view.shown.remove(&id);
            self.view_born(id);
        }
    }

    fn view_leave(&mut self, id: ProcId) {
        if let Some(Shown::Leaving { answer, .. }) = self.view.shown.remove(&id) {
            self.answer_ghost(id, answer);
            self.see_off(id);
        }
    }

    pub(super) fn view_tick(&mut self) {
        let now = self.now;
        while self.view.up
            && let Some((_, id)) = self.view.young.pop_front_if(|(born, _)| now.saturating_sub(*born) >= AGE)
        {
            self.show(id);
        }
        let late: Vec<ProcId> = self
            .view
            .shown
            .iter()
            .filter(
                |(_, shown)| matches!(shown, Shown::Leaving { since, .. } if now.saturating_sub(*since) >= MOST_WAIT),
            )
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            tracing::debug!(process = id.0, "a ghost ends before its view is off");
            self.view_leave(id);
        }
    }

    fn show(&mut self, id: ProcId) {
        if self.view.shown.contains_key(&id) {
            // One that was found has come twice: when its node spoke of it, and when its ghost was made.
            return;
        }
        let Some(process) = self.processes.get(&id) else { return };
        let Some(launch) = self.launches.get(&process.launch) else { return };
        match process.remote {
            Remote::Running { .. } if self.by_pid.get(&process.pid) == Some(&id) => {}
            // Its node takes its time.
            Remote::Asked => return self.view.young.push_back((self.now, id)),
            _ => return,
        }
        let action = Action::ShowGhost {
            process: id,
            pid: process.pid,
            uid: launch.user.uid,
            gid: launch.user.gid,
            node: process.node,
        };
        self.view.shown.insert(id, Shown::Shown);
        self.act(action);
    }

    /// A guard has begun: it knows nothing yet.
    pub(super) fn view_up(&mut self) {
        self.view.up = true;
        if self.view.on {
            let running = self.processes.iter().filter(|(_, p)| matches!(p.remote, Remote::Running { .. }));
            self.view.young = running.map(|(&id, _)| (self.now, id)).collect();
        }
    }

    /// The guard is gone, and with it every view.
    pub(super) fn view_down(&mut self) {
        self.view.up = false;
        self.view.young.clear();
        let shown: Vec<ProcId> = self.view.shown.keys().copied().collect();
        for id in shown {
            self.view_leave(id);
        }
        self.view.shown.clear();
    }

    /// Root switches the view on or off.
    pub(super) fn view_switched(&mut self, on: bool) {
        if on == self.view.on {
            return;
        }
        self.view.on = on;
        if on && self.view.up {
            self.view_up();
        }
        if !on {
            self.view.young.clear();
            let shown = self.view.shown.iter().filter(|(_, shown)| matches!(shown, Shown::Shown));
            for id in shown.map(|(&id, _)| id).collect::<Vec<_>>() {
                self.view_over(id);
            }
        }
    }

    /// Somebody looks at ghosts, and what is known of them is too old.
    pub(super) fn looked(&mut self, what: ServerToGhostd) {
        let (node, message) = match what {
            ServerToGhostd::Look(Look { node, files, proc }) => {
                let node = NodeNumber(node);
                let processes: Vec<Sampled> = if proc == 0 {
                    self.view.shown.keys().filter_map(|&id| self.shown_on(node, id)).collect()
                } else {
                    self.shown_on(node, ProcId(proc)).into_iter().collect()
                };
                if processes.is_empty() {
                    return;
                }
                self.view.last_seq += 1;
                (node, MasterToAgent::Sample(Sample { seq: self.view.last_seq, processes, files }))
            }
            ServerToGhostd::Fetch(Fetch { node, proc, file, reading, offset }) => {
                let node = NodeNumber(node);
                let Some(Sampled { proc, pid }) = self.shown_on(node, ProcId(proc)) else { return };
                (node, MasterToAgent::ReadPart(ReadPart { reading, proc, pid, file, offset }))
            }
        };
        if let Some(link) = self.nodes.get(&node).and_then(|node| node.link) {
            self.act(Action::TellAgent { node, link, message });
        }
    }

    /// A process on that node whose ghost is shown, as the node knows it.
    fn shown_on(&self, node: NodeNumber, id: ProcId) -> Option<Sampled> {
        let process = self.processes.get(&id).filter(|process| process.node == node)?;
        match process.remote {
            Remote::Running { pid } if self.view.shown.contains_key(&id) => Some(Sampled { proc: id.0, pid }),
            _ => None,
        }
    }

    pub(super) fn agent_said(&mut self, number: NodeNumber, link: LinkId, message: AgentToMaster) {
        if !self.is_current(number, link) {
            return;
        }
        let known = |proc: u64| {
            let id = ProcId(proc);
            self.view.shown.contains_key(&id) && self.processes.get(&id).is_some_and(|p| p.node == number)
        };
        let node = number.0;
        let message = match message {
            AgentToMaster::Figures(mut figures) => {
                figures.processes.retain(|process| known(process.proc));
                GhostdToServer::Figures(NodeFigures { node, figures: Some(figures) })
            }
            AgentToMaster::Part(part) if known(part.proc) => GhostdToServer::Part(NodePart { node, part: Some(part) }),
            // The driver answers who has asked for that.
            AgentToMaster::Part(_) | AgentToMaster::Examined(_) => return,
            AgentToMaster::PowerDone(done) => return self.power_done(number, &done),
        };
        self.act(Action::TellView(message));
    }
}

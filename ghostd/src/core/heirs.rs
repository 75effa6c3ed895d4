//! Heirs: a process that has asked for it (PR_SET_CHILD_SUBREAPER, prctl(2)) gets the children that its descendants leave. Its ghost
//! gets their ghosts.
//!
//! A ghost is made such a one when it is needed first: a process has ended and left children, and its node says who inherits them.
//! The kernel marks those below who are there (kernel/sys.c, `propagate_has_child_subreaper()`), and hands their children on when they
//! end. So that end waits until the heir's ghost is ready, as an end waits for a ghost's place ([`super::groups`]).
//!
//! Invariant: whose child a ghost is said to be ([`Parent`]) follows the kernel here, not the node: from the nearest ghost above that
//! takes in children, to whoever takes in orphans if there is none.

use ghost_proto::ids::ProcId;

use super::Core;
use super::types::{Doing, Ghost, Making, Order, Parent};

impl Core {
    /// A process is ending; this one gets its children there.
    pub(super) fn has_heir(&mut self, id: ProcId, heir: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let of_same = |heir: &super::Process| (heir.node, heir.launch) == (process.node, process.launch);
        if heir == id || !self.processes.get(&heir).is_some_and(of_same) {
            return;
        }
        let Some(fork) = self.processes.get_mut(&id).and_then(|process| process.fork.as_mut()) else { return };
        fork.heir = Some(heir);
        if !self.awaits_heir(id) {
            return;
        }
        let is_told = |heir: &super::Process| heir.doing == Some(Doing::TakeIn) || heir.orders.contains(&Order::TakeIn);
        if !self.processes.get(&heir).is_some_and(is_told) {
            self.order(heir, Order::TakeIn);
        }
    }

    /// Whether its ghost has children that another ghost will take in, but cannot yet.
    pub(super) fn awaits_heir(&self, id: ProcId) -> bool {
        let Some(process) = self.processes.get(&id) else { return false };
        let Some(heir) = process.fork.as_ref().and_then(|fork| fork.heir) else { return false };
        let is_there = |ghost: &Ghost| !matches!(ghost, Ghost::Gone | Ghost::Leaving { .. });
        let will = |heir: &super::Process| {
            heir.remote.is_live() && heir.pid != 0 && !heir.killed && !heir.takes_in && is_there(&heir.ghost)
        };
        !process.made.is_empty() && is_there(&process.ghost) && self.processes.get(&heir).is_some_and(will)
    }

    /// A ghost that was told to take in children is back.
    pub(super) fn takes_in(&mut self, id: ProcId, errno: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.takes_in = errno == 0;
        let waits = |other: &ProcId| {
            let fork = self.processes.get(other).and_then(|process| process.fork.as_ref());
            fork.is_some_and(|fork| fork.heir == Some(id))
        };
        for other in self.late_ends.keys().copied().filter(waits).collect::<Vec<_>>() {
            self.end_if_nothing_is_left(other);
        }
    }

    /// Who takes in what a child of this one leaves.
    pub(super) fn taker_from(&self, mut at: Parent) -> Parent {
        while let Parent::Ghost(id) = at {
            let Some(process) = self.processes.get(&id) else { break };
            if process.takes_in && !matches!(process.ghost, Ghost::Gone) {
                return at;
            }
            at = process.fork.as_ref().map_or(Parent::Launcher, |fork| fork.parent);
        }
        Parent::Init
    }

    /// The task of a ghost has ended that had these children, and was still to wait for those of these numbers.
    pub(super) fn hand_on(&mut self, id: ProcId, made: impl IntoIterator<Item = ProcId>, dead: &[u32]) {
        let Some(process) = self.processes.get(&id) else { return };
        let fork = process.fork.as_ref();
        let (heir, taker) =
            (fork.and_then(|fork| fork.heir), self.taker_from(fork.map_or(Parent::Launcher, |f| f.parent)));
        if let Parent::Ghost(taker) = taker {
            for &pid in dead {
                self.order(taker, Order::Reap(pid));
            }
        }
        for child in made {
            let is_unborn = self.unborn.contains(&child);
            let Some(fork) = self.processes.get_mut(&child).and_then(|process| process.fork.as_mut()) else { continue };
            if is_unborn && fork.origin == Some(id) && heir.is_some() {
                fork.origin = heir;
            }
            // The ghost of one that nobody was told to make is not there.
            if !is_unborn || fork.is_told() {
                self.hang(child, taker);
            }
            if is_unborn {
                self.tend_birth(child);
            } else {
                self.clear_process(child);
            }
        }
    }

    /// A ghost is another one's child from now on.
    fn hang(&mut self, id: ProcId, parent: Parent) {
        let Some(fork) = self.processes.get_mut(&id).and_then(|process| process.fork.as_mut()) else { return };
        fork.parent = parent;
        if let Parent::Ghost(parent) = parent
            && let Some(parent) = self.processes.get_mut(&parent)
        {
            parent.made.insert(id);
        }
    }

    /// Whoever was to make a ghost was told off, but has made it.
    pub(super) fn is_made_after_all(&mut self, id: ProcId) {
        let Some(fork) = self.processes.get_mut(&id).and_then(|process| process.fork.as_mut()) else { return };
        fork.making = Making::Made;
        let parent = fork.parent;
        let is_gone = |parent: ProcId| self.processes.get(&parent).is_none_or(|p| matches!(p.ghost, Ghost::Gone));
        match parent {
            Parent::Ghost(gone) if is_gone(gone) => self.hang(id, self.taker_from(parent)),
            _ => self.hang(id, parent),
        }
    }
}

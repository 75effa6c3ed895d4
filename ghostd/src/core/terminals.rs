//! Terminals of remote programs: which nodes have them, and the sizes of their windows.

use ghost_abi::{SignalFlags, SignalRecord};
use ghost_proto::client::RankPlan;
use ghost_proto::ids::ProcId;
use ghost_proto::node::MasterToNode;
use ghost_proto::terminal::{Resize, ResizeRank};
use nix::libc;

use super::{ClientId, Core};

impl Core {
    /// Nodes that have no terminals run nothing that is to have one.
    pub(super) fn plan_terminals(&self, plans: &mut [RankPlan]) {
        let reason = "no terminals there: its nodeagent is older than this, or its kernel lacks what `nodeagent` \
                      says at its start";
        self.plan_able(plans, |node| node.has_terminals, reason);
    }

    /// The window of a rank has another size.
    pub(super) fn resized(&mut self, client: ClientId, resize: ResizeRank) {
        let Some(id) = self.rank_of(client, resize.rank) else { return };
        let Some(launch) = self.processes.get(&id).and_then(|process| self.launches.get_mut(&process.launch)) else {
            return;
        };
        // Of a launch that another ghostd has begun nothing is known here but this.
        if launch.program.terminal.is_none() && !launch.program.argv.is_empty() {
            return;
        }
        let terminal = launch.program.terminal.get_or_insert_default();
        terminal.size = resize.size.or(terminal.size);
        if self.processes.get(&id).is_some_and(|process| process.held) {
            self.tell_size(id);
        }
    }

    /// The kernel says that the window here has another size. Programs in a terminal have a window of their own: when that has the new size,
    /// the kernel there says so.
    pub(super) fn is_of_the_window_here(&self, id: ProcId, record: &SignalRecord) -> bool {
        let launch = self.processes.get(&id).and_then(|process| self.launches.get(&process.launch));
        i32::from(record.sig) == libc::SIGWINCH
            && record.has(SignalFlags::KERNEL)
            && launch.is_some_and(|launch| launch.program.terminal.is_some())
    }

    /// The size that a process's terminal has, to a node that may not know it yet.
    pub(super) fn tell_size(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let terminal = self.launches.get(&process.launch).and_then(|launch| launch.program.terminal.as_ref());
        if let Some(size) = terminal.and_then(|terminal| terminal.size) {
            self.tell_node(process.node, MasterToNode::Resize(Resize { proc: id.0, size: Some(size) }));
        }
    }
}

//! Ranks of one launch on several nodes: each node gets stand-ins of those that run on others, so that a rank finds there, by its
//! number, whom it finds on the master.
//!
//! A node is told of all of them at once, a while after something has changed: a launch that is short costs nothing, and a large
//! one little. What was told is not remembered, for it replaces what was told before.

use std::collections::BTreeSet;
use std::time::Duration;

use ghost_proto::ids::{LaunchId, NodeNumber};
use ghost_proto::node::MasterToNode;
use ghost_proto::standin::{Beside, Other};

use super::Core;
use super::types::{Process, Remote};

/// How long after a change it is told of.
const LATER: Duration = Duration::from_millis(100);
/// Ranks of a launch that a node has stand-ins of: the first ones of those that run elsewhere.
const MOST: usize = 256;

impl Core {
    /// A rank runs, or does not any more, or its node may have missed something.
    pub(super) fn ranks_changed(&mut self, id: LaunchId) {
        let due = self.now + LATER;
        if self.launches.get(&id).is_some_and(|launch| launch.ranks.len() > 1 && !launch.ended) {
            self.beside.entry(id).or_insert(due);
        }
    }

    pub(super) fn tell_of_others(&mut self) {
        let now = self.now;
        let due: Vec<LaunchId> = self.beside.iter().filter(|(_, due)| **due <= now).map(|(&id, _)| id).collect();
        for id in due {
            self.beside.remove(&id);
            self.tell_of_others_of(id);
        }
    }

    fn tell_of_others_of(&mut self, id: LaunchId) {
        let Some(launch) = self.launches.get(&id).filter(|launch| !launch.ended) else { return };
        // Of a launch that was found it is not known before its command has come.
        if !launch.plans.is_empty() && launch.plans.iter().all(|plan| plan.node == launch.plans[0].node) {
            return;
        }
        let runs = |process: &&Process| matches!(process.remote, Remote::Running { .. }) && process.pid != 0;
        let ranks: Vec<&Process> =
            launch.ranks.iter().flatten().filter_map(|rank| self.processes.get(rank)).filter(runs).collect();
        let nodes: BTreeSet<NodeNumber> = ranks.iter().map(|process| process.node).collect();
        let mut told = Vec::new();
        for node in nodes.into_iter().filter(|node| self.nodes.get(node).is_some_and(|node| node.stands_in)) {
            let others = ranks.iter().filter(|process| process.node != node).take(MOST);
            let others = others.map(|process| Other { pid: process.pid, rank: process.rank }).collect();
            told.push((node, Beside { launch: id.0, others }));
        }
        for (node, message) in told {
            self.tell_node(node, MasterToNode::Beside(message));
        }
    }

    /// Whether this is the number of a rank elsewhere, of a launch of which the node runs something.
    pub(super) fn is_beside_a_launch_on(&self, node: NodeNumber, number: u32) -> bool {
        let Some(rank) = self.by_pid.get(&number).and_then(|id| self.processes.get(id)) else { return false };
        rank.is_launched()
            && rank.node != node
            && self.processes.values().any(|process| process.node == node && process.launch == rank.launch)
    }
}

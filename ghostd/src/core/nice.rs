//! `renice` of a ghost reaches its process.
//!
//! The kernel tells nobody of a new nice value, so the driver reads those of all ghosts once a second (a system call of a
//! quarter of a microsecond each), and a difference to the last look is passed on. Whoever may not renice a process of that
//! user is refused by the kernel at the ghost.
//!
//! Invariant: only what somebody does to the ghost counts. A process that changes its own value keeps it.

use std::collections::HashMap;

use ghost_proto::ids::ProcId;
use ghost_proto::node::{MasterToNode, Renice};

use super::Core;
use super::types::{Parent, Remote};

/// What the ghosts' values were, of those whose processes have been told.
#[derive(Debug, Default)]
pub(super) struct Nice {
    known: HashMap<ProcId, i32>,
}

impl Nice {
    #[cfg(test)]
    pub(super) fn table_entries(&self) -> usize {
        self.known.len()
    }
}

impl Core {
    /// The nice values of all ghosts that live.
    pub(super) fn nice_seen(&mut self, values: &[(ProcId, i32)]) {
        let before = std::mem::take(&mut self.nice.known);
        for &(id, nice) in values {
            let Some(process) = self.processes.get(&id) else { continue };
            let node = process.node;
            let is_running = matches!(process.remote, Remote::Running { .. });
            // What it was under a ghostd before this one is not known; that one has told of it.
            let earlier = process.launch.0 < self.settings.first_id;
            let born = || if earlier { nice } else { self.nice_at_birth(id, &before) };
            let was = before.get(&id).copied().unwrap_or_else(born);
            if was == nice {
                self.nice.known.insert(id, nice);
            } else if is_running && self.nodes.get(&node).is_some_and(|node| node.link.is_some()) {
                self.tell_node(node, MasterToNode::Renice(Renice { proc: id.0, nice }));
                self.nice.known.insert(id, nice);
            } else {
                // It is told when it can be.
                self.nice.known.insert(id, was);
            }
        }
    }

    /// The value that a ghost and its process began with: the launcher's, or that of the ghost whose child it is.
    fn nice_at_birth(&self, id: ProcId, known: &HashMap<ProcId, i32>) -> i32 {
        let mut at = id;
        // No tree is deeper.
        for _ in 0..self.processes.len() {
            let Some(process) = self.processes.get(&at) else { break };
            let Some(fork) = &process.fork else {
                return self.launches.get(&process.launch).map_or(0, |launch| launch.program.nice);
            };
            let Parent::Ghost(parent) = fork.parent else {
                return self.launches.get(&process.launch).map_or(0, |launch| launch.program.nice);
            };
            if let Some(&nice) = known.get(&parent) {
                return nice;
            }
            at = parent;
        }
        0
    }
}

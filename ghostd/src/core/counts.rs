//! What the core counts of what it does, for [`crate::metrics`]; since the start of this ghostd.
//!
//! Invariant: counting is an addition, and changes no decision.

use ghost_proto::client::{Obstacle, StartStage};
use ghost_proto::ids::ProcId;
use ghost_proto::node_state::NodeStatus;
use ghost_proto::status::WaitStatus;
use nix::libc;

use super::types::Remote;
use super::{Core, Directory};
use crate::metrics::Histogram;

/// Why a process was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    UnknownNode,
    Forbidden,
    Unreachable,
    Refused,
    Create,
    Prepare,
    NotFound,
    NotExecutable,
    Files,
}

impl NotStarted {
    pub const ALL: [NotStarted; 9] = [
        NotStarted::UnknownNode,
        NotStarted::Forbidden,
        NotStarted::Unreachable,
        NotStarted::Refused,
        NotStarted::Create,
        NotStarted::Prepare,
        NotStarted::NotFound,
        NotStarted::NotExecutable,
        NotStarted::Files,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            NotStarted::UnknownNode => "unknown_node",
            NotStarted::Forbidden => "forbidden",
            NotStarted::Unreachable => "unreachable",
            NotStarted::Refused => "refused",
            NotStarted::Create => "create",
            NotStarted::Prepare => "prepare",
            NotStarted::NotFound => "not_found",
            NotStarted::NotExecutable => "not_executable",
            NotStarted::Files => "files",
        }
    }

    pub(super) const fn planned(obstacle: Obstacle) -> NotStarted {
        match obstacle {
            Obstacle::Unknown => NotStarted::UnknownNode,
            Obstacle::Forbidden => NotStarted::Forbidden,
            Obstacle::Unreachable => NotStarted::Unreachable,
            Obstacle::Other => NotStarted::Refused,
        }
    }

    pub(super) const fn at(stage: StartStage, errno: u32) -> NotStarted {
        match stage {
            StartStage::Reach => NotStarted::Unreachable,
            StartStage::Create => NotStarted::Create,
            StartStage::Prepare => NotStarted::Prepare,
            StartStage::Exec if errno == libc::ENOENT.cast_unsigned() => NotStarted::NotFound,
            StartStage::Exec => NotStarted::NotExecutable,
            StartStage::Directory | StartStage::Stdin | StartStage::Stdout | StartStage::Stderr | StartStage::Root => {
                NotStarted::Files
            }
        }
    }
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited,
    Killed,
    /// Declared dead: its node is lost, or does not know it.
    Lost,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Exited, Outcome::Killed, Outcome::Lost];

    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Exited => "exited",
            Outcome::Killed => "killed",
            Outcome::Lost => "lost",
        }
    }

    pub(super) const fn of(status: WaitStatus, lost: bool) -> Outcome {
        match status {
            _ if lost => Outcome::Lost,
            WaitStatus::Exited(_) => Outcome::Exited,
            WaitStatus::Signaled { .. } => Outcome::Killed,
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub commands: u64,
    pub commands_resumed: u64,
    pub requests_refused: u64,
    pub launches: u64,
    /// Processes of launches, and forked ones.
    pub started: u64,
    pub forked: u64,
    not_started: [u64; NotStarted::ALL.len()],
    ended: [u64; Outcome::ALL.len()],
    pub signals_forwarded: u64,
    pub signals_delivered: u64,
    pub signals_refused: u64,
    /// Sent by remote processes to processes here.
    pub signals_upwards: u64,
    /// Bytes of stdin, stdout and stderr, each once.
    pub stream_bytes: [u64; 3],
    pub node_connections: u64,
    /// Those of them that went on where the one before had ended.
    pub node_reconnections: u64,
    /// Nodes whose processes were declared dead.
    pub node_losses: u64,
    /// From a command's request to its first process.
    pub launch_time: Histogram,
    /// From the order to a node to its answer that the process has begun.
    pub start_time: Histogram,
    /// From the kernel's record to the node's answer.
    pub signal_time: Histogram,
    /// From a lease to its acknowledgement.
    pub round_trip: Histogram,
}

impl Counts {
    pub(super) fn not_started(&mut self, why: NotStarted) {
        self.not_started[why as usize] += 1;
    }

    pub(super) fn ended(&mut self, how: Outcome) {
        self.ended[how as usize] += 1;
    }

    pub fn all_not_started(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NotStarted::ALL.into_iter().map(|why| (why.name(), self.not_started[why as usize]))
    }

    pub fn all_ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::ALL.into_iter().map(|how| (how.name(), self.ended[how as usize]))
    }
}

/// What there is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Of all nodes that belong to the cluster, by number.
    pub nodes: Vec<(i32, NodeStatus)>,
    pub commands: usize,
    /// Launches whose command is there, or may come back.
    pub launches: usize,
    /// Processes that nodes have said to run.
    pub processes: usize,
    pub ghosts: usize,
    /// Signals that no node has confirmed.
    pub open_signals: usize,
}

impl Core {
    /// A process that was launched has begun.
    pub(super) fn count_start(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        self.counts.started += 1;
        if let Some(asked) = process.asked.take() {
            self.counts.start_time.observe(self.now.saturating_sub(asked));
        }
        if let Some(asked) = self.launches.get_mut(&process.launch).and_then(|launch| launch.asked.take()) {
            self.counts.launch_time.observe(self.now.saturating_sub(asked));
        }
    }

    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts what there is now. Looks at everything.
    pub fn census(&self, directory: &dyn Directory) -> Census {
        let facts = directory.nodes();
        Census {
            nodes: facts.iter().map(|facts| (facts.number.0, self.status_of(facts).0)).collect(),
            commands: self.clients.len(),
            launches: self.launches.values().filter(|launch| !launch.ended).count(),
            processes: self.processes.values().filter(|p| matches!(p.remote, Remote::Running { .. })).count(),
            ghosts: self.by_pid.len(),
            open_signals: self.processes.values().map(|process| process.signals.iter().count()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_under_its_own_name() {
        let mut counts = Counts::default();
        for why in NotStarted::ALL {
            counts.not_started(why);
        }
        for how in Outcome::ALL {
            counts.ended(how);
        }
        assert!(counts.all_not_started().chain(counts.all_ended()).all(|(_, count)| count == 1));
        let mut names: Vec<&str> = counts.all_not_started().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NotStarted::ALL.len());
        assert_eq!(NotStarted::at(StartStage::Exec, 2), NotStarted::NotFound);
        assert_eq!(NotStarted::at(StartStage::Exec, 13), NotStarted::NotExecutable);
    }
}

//! What a node that is connected is able to do: how its preparation came out, and what root has said of it.
//!
//! ```text
//!             connected anew              node_up ends with 0
//!  (nothing) ----------------> Boot ---------------------------> Up        without node_up at once Up
//!                               ^  |  anything else               |
//!                    bpctl boot |  +---------------------> Error  |  bpctl reboot, halt, pwroff
//!                               +--------------------------------+---------------------------> Leaving
//! ```
//! Root's word goes before all of it: a state that is held is the node's until another one is set. Who is not connected is down.
//!
//! Invariants:
//! - A node that is in Boot has a run of node_up, or gets one when it is connected: nothing waits for one that is gone.
//! - What a run that was given up says is not heard.

use ghost_proto::ids::NodeNumber;
use ghost_proto::node::LeaseAck;
use ghost_proto::node_state::NodeStatus;
use ghost_proto::nodeset::NodeState;

use super::types::{NodeFacts, NodeFigures};
use super::{Action, Core};

/// Who has set a state that is held.
const BY_ROOT: &str = "set by root";

/// Of a node in the epoch in which it is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Up,
    /// node_up runs for it.
    Boot,
    /// Why its preparation has failed.
    Error(String),
    /// It was told to go: reboot, halt or pwroff.
    Leaving(NodeStatus),
}

impl Stage {
    /// For a ghostd after this one: a word, and the reason.
    pub fn to_note(&self) -> String {
        match self {
            Stage::Up => NodeStatus::Up.name().to_owned(),
            Stage::Boot => NodeStatus::Boot.name().to_owned(),
            // A note is one line.
            Stage::Error(why) => format!("{} {}", NodeStatus::Error, why.replace(char::is_control, " ")),
            Stage::Leaving(status) => status.name().to_owned(),
        }
    }

    /// What [`Stage::to_note`] has made; of anything else `None`.
    pub fn from_note(note: &str) -> Option<Stage> {
        let (word, why) = note.split_once(' ').unwrap_or((note, ""));
        match word.parse().ok()? {
            NodeStatus::Up => Some(Stage::Up),
            NodeStatus::Boot => Some(Stage::Boot),
            NodeStatus::Error => Some(Stage::Error(why.to_owned())),
            status @ (NodeStatus::Reboot | NodeStatus::Halt | NodeStatus::PowerOff) => Some(Stage::Leaving(status)),
            NodeStatus::Down | NodeStatus::Unavailable => None,
        }
    }
}

impl Core {
    /// A node's state, and why it is not up.
    pub(super) fn status_of(&self, facts: &NodeFacts) -> (NodeStatus, String) {
        let node = self.nodes.get(&facts.number);
        let Some(node) = node.filter(|node| node.link.is_some()) else {
            let why = match (facts.held, node.and_then(|node| node.left)) {
                (Some(NodeStatus::Down), _) => BY_ROOT,
                (_, Some(NodeStatus::Reboot)) => "restarts by root's order",
                (_, Some(NodeStatus::Halt)) => "halted by root's order",
                (_, Some(NodeStatus::PowerOff)) => "switched off by root's order",
                _ => facts.reason.as_str(),
            };
            return (NodeStatus::Down, why.to_owned());
        };
        match (&node.stage, facts.held) {
            (Stage::Leaving(status), _) => (*status, "by root's order".to_owned()),
            (_, Some(status)) => (status, BY_ROOT.to_owned()),
            (Stage::Boot, None) => (NodeStatus::Boot, "node_up runs".to_owned()),
            (Stage::Error(why), None) => (NodeStatus::Error, why.clone()),
            (Stage::Up, None) => (NodeStatus::Up, String::new()),
        }
    }

    /// The nodes that there are, for a node list.
    pub(super) fn node_states<'a>(&'a self, facts: &'a [NodeFacts]) -> Vec<NodeState<'a>> {
        let state = |facts: &'a NodeFacts| {
            let node = self.nodes.get(&facts.number);
            let name = node.map_or(facts.hostname.as_str(), |n| n.hostname.as_str());
            NodeState { number: facts.number, status: self.status_of(facts).0, name }
        };
        facts.iter().map(state).collect()
    }

    /// A node has connected. Who goes on with what it was is what it was.
    pub(super) fn node_enters(&mut self, number: NodeNumber, resumes: bool) {
        let prepares = self.settings.node_up;
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.left = None;
        node.figures = None;
        if !resumes {
            self.give_up_node_up(number);
            self.set_stage(number, if prepares { Stage::Boot } else { Stage::Up });
        } else if node.stage == Stage::Boot && !prepares {
            // It was another ghostd's, which had one.
            self.set_stage(number, Stage::Up);
        }
        if self.nodes.get(&number).is_some_and(|node| node.stage == Stage::Boot && node.node_up.is_none()) {
            self.run_node_up(number);
        }
    }

    /// A node's connection has ended.
    pub(super) fn node_leaves(&mut self, number: NodeNumber) {
        if let Some(node) = self.nodes.get_mut(&number)
            && let Stage::Leaving(status) = node.stage
        {
            node.left = Some(status);
        }
        self.has_gone_as_ordered(number);
    }

    /// What a node says of its load, if it is news.
    pub(super) fn has_figures(&mut self, number: NodeNumber, ack: &LeaseAck) {
        if ack.mem_total_kib != 0
            && let Some(node) = self.nodes.get_mut(&number)
        {
            node.figures = Some(NodeFigures {
                load_centi: ack.load_centi,
                mem_available_kib: ack.mem_available_kib,
                mem_total_kib: ack.mem_total_kib,
            });
        }
    }

    pub(super) fn set_stage(&mut self, number: NodeNumber, stage: Stage) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        if node.stage != stage {
            tracing::info!(node = number.0, "{}", stage.to_note());
            node.stage = stage.clone();
            self.act(Action::NoteStage { node: number, stage });
        }
    }

    fn run_node_up(&mut self, number: NodeNumber) {
        let run = self.fresh_id();
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.node_up = Some(run);
        let (hostname, address) = (node.hostname.clone(), node.address);
        self.act(Action::RunNodeUp { node: number, run, hostname, address });
    }

    /// Nobody is interested any more in how it ends.
    pub(super) fn give_up_node_up(&mut self, number: NodeNumber) {
        if let Some(run) = self.nodes.get_mut(&number).and_then(|node| node.node_up.take()) {
            self.act(Action::StopNodeUp { run });
        }
    }

    pub(super) fn node_up_ended(&mut self, number: NodeNumber, run: u64, outcome: Result<(), String>) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        if node.node_up != Some(run) {
            return;
        }
        node.node_up = None;
        if node.stage == Stage::Boot {
            self.set_stage(number, outcome.map_or_else(Stage::Error, |()| Stage::Up));
        }
    }

    /// Root has set a node's state; what is kept of that is kept.
    pub(super) fn state_is_set(&mut self, number: NodeNumber, status: NodeStatus) {
        match status {
            NodeStatus::Boot if self.settings.node_up => {
                self.give_up_node_up(number);
                if self.is_connected(number) {
                    self.set_stage(number, Stage::Boot);
                    self.run_node_up(number);
                }
            }
            NodeStatus::Up => {
                self.give_up_node_up(number);
                self.set_stage(number, Stage::Up);
            }
            NodeStatus::Down => self.end_node(number),
            NodeStatus::Boot
            | NodeStatus::Error
            | NodeStatus::Unavailable
            | NodeStatus::Reboot
            | NodeStatus::Halt
            | NodeStatus::PowerOff => {}
        }
    }

    /// What runs there is killed; the statuses come as always.
    fn end_node(&mut self, number: NodeNumber) {
        use ghost_proto::node::{EndAll, MasterToNode};
        self.give_up_node_up(number);
        self.tell_node(number, MasterToNode::EndAll(EndAll {}));
    }
}

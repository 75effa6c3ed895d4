//! Nodes that are told to restart, to halt or to switch themselves off: their agents run the command that the node's
//! configuration has for it.
//!
//! A node has done what it was told when its agent says so, or when its connection ends. Whoever asked is answered when that is
//! known of all.

use std::collections::BTreeMap;
use std::time::Duration;

use ghost_proto::client::{self, MasterToClient, NodeFailure};
use ghost_proto::ids::NodeNumber;
use ghost_proto::node_state::NodeStatus;
use ghost_proto::view::{MasterToAgent, Power, PowerDone};
use ghost_proto::words::harmless;

use super::node_life::Stage;
use super::types::Instant;
use super::{Action, ClientId, Core};

/// How long an agent may take to say how the command has ended: longer than it gives the command.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of a node's words about what went wrong, so many characters.
const LONGEST_WORDS: usize = 500;

/// An order to some nodes.
#[derive(Debug)]
pub(super) struct PowerOrder {
    client: ClientId,
    /// Those that have not said anything yet, with what they were before.
    waiting: BTreeMap<NodeNumber, Stage>,
    failures: Vec<NodeFailure>,
    until: Instant,
}

impl Core {
    pub(super) fn order_power(
        &mut self,
        client: ClientId,
        state: NodeStatus,
        nodes: Vec<NodeNumber>,
        mut failures: Vec<NodeFailure>,
    ) {
        let seq = self.fresh_id();
        let mut waiting = BTreeMap::new();
        for number in nodes {
            let Some(link) = self.nodes.get(&number).and_then(|node| node.link) else {
                failures.push(NodeFailure { node: number.0, text: "its connection has just ended".to_owned() });
                continue;
            };
            self.give_up_node_up(number);
            waiting.insert(number, self.nodes.get(&number).map(|node| node.stage.clone()).unwrap_or_default());
            self.set_stage(number, Stage::Leaving(state));
            let message = MasterToAgent::Power(Power { seq, state: state.name().to_owned() });
            self.act(Action::TellAgent { node: number, link, message });
        }
        self.power_orders.insert(seq, PowerOrder { client, waiting, failures, until: self.now + PATIENCE });
        self.answer_order(seq);
    }

    /// An agent has said how it went.
    pub(super) fn power_done(&mut self, number: NodeNumber, done: &PowerDone) {
        let Some(order) = self.power_orders.get_mut(&done.seq) else { return };
        let Some(before) = order.waiting.remove(&number) else { return };
        if !done.error.is_empty() {
            order.failures.push(NodeFailure { node: number.0, text: harmless(&done.error, LONGEST_WORDS) });
            self.set_stage(number, before);
        }
        self.answer_order(done.seq);
    }

    /// A node's connection has ended: if it was told to go, it does.
    pub(super) fn has_gone_as_ordered(&mut self, number: NodeNumber) {
        for seq in self.power_orders.keys().copied().collect::<Vec<_>>() {
            if let Some(order) = self.power_orders.get_mut(&seq)
                && order.waiting.remove(&number).is_some()
            {
                self.answer_order(seq);
            }
        }
    }

    pub(super) fn tend_orders(&mut self) {
        let late: Vec<u64> =
            self.power_orders.iter().filter(|(_, order)| order.until <= self.now).map(|(&seq, _)| seq).collect();
        for seq in late {
            let Some(order) = self.power_orders.get_mut(&seq) else { continue };
            let silent = std::mem::take(&mut order.waiting);
            order.failures.extend(silent.keys().map(|node| NodeFailure {
                node: node.0,
                text: format!(
                    "its nodeagent has not said within {} s how it went; it may be of an older release",
                    PATIENCE.as_secs()
                ),
            }));
            silent.into_iter().for_each(|(number, before)| self.set_stage(number, before));
            self.answer_order(seq);
        }
    }

    fn answer_order(&mut self, seq: u64) {
        if self.power_orders.get(&seq).is_some_and(|order| order.waiting.is_empty())
            && let Some(mut order) = self.power_orders.remove(&seq)
        {
            order.failures.sort_by_key(|failure| failure.node);
            self.tell_client(order.client, MasterToClient::Changed(client::Changed { failures: order.failures }));
        }
    }
}

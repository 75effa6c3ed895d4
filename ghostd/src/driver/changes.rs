//! What users change of nodes is kept and written to the log before it counts.

use std::collections::BTreeMap;

use ghost_proto::ids::NodeNumber;
use ghost_proto::nodeset::fold;

use super::Driver;
use crate::core::{Event, NodesChange};

impl Driver {
    pub(super) fn change_nodes(&mut self, change: Box<NodesChange>) {
        let NodesChange { client, pid, uid, what, .. } = *change;
        let numbers: Vec<NodeNumber> = change.nodes.iter().map(|(number, _)| *number).collect();
        if let (Some(setting), false) = (&change.setting, numbers.is_empty())
            && let Err(why) = self.membership.set(&numbers, setting)
        {
            tracing::warn!(asker_pid = pid, uid, nodes = fold(&numbers), what, "not changed: {why}");
            return self.answer_admin(client, Err(format!("nothing has changed: {why}")));
        }
        let mut by_old: BTreeMap<&str, Vec<NodeNumber>> = BTreeMap::new();
        for (number, old) in &change.nodes {
            by_old.entry(old).or_default().push(*number);
        }
        for (old, nodes) in by_old {
            tracing::info!(asker_pid = pid, uid, nodes = fold(&nodes), "{what} {old} -> {}", change.new);
        }
        let refused: Vec<NodeNumber> = change.failures.iter().map(|failure| NodeNumber(failure.node)).collect();
        if !refused.is_empty() {
            tracing::warn!(asker_pid = pid, uid, nodes = fold(&refused), "{what} -> {} refused", change.new);
        }
        self.events.push_back(Event::NodesChanged(change));
    }
}

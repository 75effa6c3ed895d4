//! Tests of the core: each transition by itself, and all of them against models of what surrounds it, in virtual time.

mod askers;
mod counts;
mod found;
mod groups;
mod heirs;
mod host;
mod hostile_node;
mod last_word;
mod leases;
mod nested;
mod nice;
mod node_states;
mod simulation;
mod terminals;
mod transitions;
mod tree;
mod upwards;

use super::{Directory, NodeFacts, User};
use ghost_proto::ids::NodeNumber;

/// Nodes 0 to 3; everybody may use them, but nobody but root the last one.
struct FourNodes;

const ONLY_ROOT: NodeNumber = NodeNumber(3);

impl Directory for FourNodes {
    fn nodes(&self) -> Vec<NodeFacts> {
        (0..4).filter_map(|number| self.node(NodeNumber(number))).collect()
    }

    fn node(&self, number: NodeNumber) -> Option<NodeFacts> {
        (0..4).contains(&number.0).then(|| NodeFacts {
            number,
            mode: if number == ONLY_ROOT { 0o100 } else { 0o111 },
            uid: 0,
            gid: 0,
            address: None,
            hostname: format!("n{number}"),
            reason: "not connected".into(),
            held: None,
            root: String::new(),
        })
    }

    fn may_use(&self, number: NodeNumber, user: &User) -> bool {
        number != ONLY_ROOT || user.uid == 0
    }
}

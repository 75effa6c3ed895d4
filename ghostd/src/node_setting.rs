//! What can be set of a node at run time, and is kept.

use ghost_proto::node_state::NodeStatus;

/// `None`: what the configuration says; no state of root's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSetting {
    Owner(Option<u32>),
    Group(Option<u32>),
    Mode(Option<u32>),
    /// The state that the node has, whatever it does, until root sets another one.
    Held(Option<NodeStatus>),
    /// Root directory of the programs that are placed there from now on; empty: the node's own.
    Root(String),
}

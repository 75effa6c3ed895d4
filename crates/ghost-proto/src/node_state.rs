//! The states that a node can be in, by BProc's names.

use std::fmt;
use std::str::FromStr;

/// What a node is able to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeStatus {
    /// Not connected.
    Down,
    /// Connected, not ready yet.
    Boot,
    /// Runs programs.
    Up,
    /// Connected, but its preparation failed.
    Error,
    /// Set aside: for root only.
    Unavailable,
    Reboot,
    Halt,
    PowerOff,
}

impl NodeStatus {
    pub const ALL: [NodeStatus; 8] = [
        NodeStatus::Down,
        NodeStatus::Boot,
        NodeStatus::Up,
        NodeStatus::Error,
        NodeStatus::Unavailable,
        NodeStatus::Reboot,
        NodeStatus::Halt,
        NodeStatus::PowerOff,
    ];

    /// The name as users write and read it.
    pub const fn name(self) -> &'static str {
        match self {
            NodeStatus::Down => "down",
            NodeStatus::Boot => "boot",
            NodeStatus::Up => "up",
            NodeStatus::Error => "error",
            NodeStatus::Unavailable => "unavailable",
            NodeStatus::Reboot => "reboot",
            NodeStatus::Halt => "halt",
            NodeStatus::PowerOff => "pwroff",
        }
    }
}

/// The text is no state's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state of a node")]
pub struct UnknownStatus(pub String);

impl FromStr for NodeStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<NodeStatus, UnknownStatus> {
        NodeStatus::ALL.into_iter().find(|s| s.name() == text).ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

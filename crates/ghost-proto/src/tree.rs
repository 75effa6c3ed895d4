//! What started processes make of themselves on a node: the tree below each of them.
//!
//! The node names the processes that are forked there: [`forked_id`] gives names that no other node gives, and that the
//! master's own counter does not reach. After a reconnect every living one is told again; the master takes note of what it
//! did not know.

use bytes::Bytes;

use crate::ids::{NodeNumber, ProcId};

/// Set in the name of every forked process.
const FORKED: u64 = 1 << 63;
/// Bits of the counter in such a name.
const COUNTER_BITS: u32 = 40;

/// The name of the `counter`th process that is forked on a node; only the low 40 bits of the counter are used.
pub const fn forked_id(node: NodeNumber, counter: u64) -> ProcId {
    let node = (node.0 as u32 & 0xffff) as u64;
    ProcId(FORKED | node << COUNTER_BITS | counter & ((1 << COUNTER_BITS) - 1))
}

/// Whether this is the name of a forked process.
pub const fn is_forked(process: ProcId) -> bool {
    process.0 & FORKED != 0
}

/// Whether `node` may have given this name.
pub const fn is_forked_on(process: ProcId, node: NodeNumber) -> bool {
    process.0 & FORKED != 0 && (process.0 & !FORKED) >> COUNTER_BITS == (node.0 as u32 & 0xffff) as u64
}

/// Where a process stands among its groups, and whose it is; numbers as the node's cluster PID namespace counts them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Standing {
    #[prost(uint32, tag = "1")]
    pub pgid: u32,
    /// 0, or the holder's number: the session in which launched processes begin.
    #[prost(uint32, tag = "2")]
    pub sid: u32,
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// The name in `/proc/PID/comm`, at most 15 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub comm: Bytes,
}

/// A process of the launch has forked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Forked {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// The nearest living ancestor that the master knows; 0: the namespace's init.
    #[prost(fixed64, tag = "2")]
    pub parent: u64,
    #[prost(fixed64, tag = "3")]
    pub launch: u64,
    /// Its number on the node.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    #[prost(message, optional, tag = "5")]
    pub standing: Option<Standing>,
    /// The process that has made it, if that is not its parent (CLONE_PARENT) and the master knows it; else 0.
    #[prost(fixed64, tag = "6")]
    pub creator: u64,
}

/// A process has executed another program, or its groups were seen to have changed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Execed {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(message, optional, tag = "2")]
    pub standing: Option<Standing>,
}

/// A dead process is no zombie any more. Follows its `Ended`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reaped {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_nodes_own() {
        for (node, counter) in [(0, 0), (1, 1), (65_535, u64::MAX), (7, 1 << 40)] {
            let id = forked_id(NodeNumber(node), counter);
            assert!(is_forked_on(id, NodeNumber(node)));
            assert!(!is_forked_on(id, NodeNumber(node ^ 1)));
        }
        assert!(!is_forked_on(ProcId(5), NodeNumber(0)));
    }
}

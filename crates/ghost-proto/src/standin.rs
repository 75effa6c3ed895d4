//! Who of the master has a stand-in on a node: the parent of what is launched, its process group and its session. Programs there
//! find them by the numbers they have on the master; a signal to one of them travels back.

use bytes::Bytes;

/// Feature of a node's hello: it makes stand-ins, and tells what is sent to them.
pub const FEATURE: &str = "stand-ins";

/// A process of the master that a node has a stand-in of.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Original {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Real user: who may signal it.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    /// The name in `/proc/PID/comm`, at most 15 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub comm: Bytes,
}

/// Where the ghosts of a launch stand on the master. Two of these may be the same process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Origin {
    /// The launcher.
    #[prost(message, required, tag = "1")]
    pub parent: Original,
    /// The leader of its process group, or what is known of who was.
    #[prost(message, required, tag = "2")]
    pub group: Original,
    /// The leader of its session, or what is known of who was.
    #[prost(message, required, tag = "3")]
    pub session: Original,
}

/// A process on the node has sent a signal to a stand-in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sent {
    /// The sender.
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// Number on the master, of a process or a group.
    #[prost(uint32, tag = "2")]
    pub target: u32,
    /// It is meant for the group. Its members on the sender's node have it already.
    #[prost(bool, tag = "3")]
    pub group: bool,
    /// 1 to 64.
    #[prost(uint32, tag = "4")]
    pub signal: u32,
    /// The sender's si_code.
    #[prost(sint32, tag = "5")]
    pub code: i32,
    /// si_value as 64 bits.
    #[prost(fixed64, tag = "6")]
    pub value: u64,
    /// The holder's number for it, from 1 on; it comes again under it until it is said to be done ([`SentDone`]). 0: it never does.
    #[prost(uint64, tag = "7")]
    pub seq: u64,
    /// None below this number comes again.
    #[prost(uint64, tag = "8")]
    pub settled: u64,
}

/// The ranks of a launch that run on other nodes, all of them that a node is to have stand-ins of. It replaces what was said before;
/// none of what was said outlasts the launch's processes on the node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Beside {
    #[prost(fixed64, tag = "1")]
    pub launch: u64,
    #[prost(message, repeated, tag = "2")]
    pub others: Vec<Other>,
}

/// A rank that runs on another node.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Other {
    /// Its ghost's number on the master.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    #[prost(uint32, tag = "2")]
    pub rank: u32,
}

/// A signal to a stand-in has been sent on the master, or refused there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SentDone {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
}

//! What `bpctl doctor` hears of the master and of each node.
//!
//! ```text
//! bpctl                 ghostd                  nodeagent
//!   Admin::Examine  ->    Examine          ->     looks at its host
//!                         Examined         <-
//!   Examination     <-    when all have answered, or after some seconds
//! ```

/// "Look whether all is well where you are."
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Examine {
    /// The answer has it, too.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
}

/// How much is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Gravity {
    Fine = 0,
    /// It works, with less than there could be.
    Less = 1,
    /// It does not work.
    Broken = 2,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Finding {
    #[prost(enumeration = "Gravity", tag = "1")]
    pub gravity: i32,
    /// What was looked at.
    #[prost(string, tag = "2")]
    pub what: String,
    /// What was found; if it is not fine, what it means, and the way out.
    #[prost(string, tag = "3")]
    pub found: String,
}

/// The state of a node's host.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Examined {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// Release of nodeagent.
    #[prost(string, tag = "2")]
    pub release: String,
    /// `uname -r`.
    #[prost(string, tag = "3")]
    pub kernel: String,
    /// The wall clock: milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub wall_ms: u64,
    #[prost(message, repeated, tag = "5")]
    pub findings: Vec<Finding>,
}

/// All of it: first the master, then the nodes in order.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Examination {
    #[prost(message, repeated, tag = "1")]
    pub hosts: Vec<Host>,
}

/// What was found out about one host.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Host {
    /// -1: the master.
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// Host name, if it is known.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Of its daemon, if it has answered.
    #[prost(string, tag = "3")]
    pub release: String,
    #[prost(string, tag = "4")]
    pub kernel: String,
    #[prost(message, repeated, tag = "5")]
    pub findings: Vec<Finding>,
}

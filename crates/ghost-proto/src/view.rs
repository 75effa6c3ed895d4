//! The view: what `/proc/GHOST` shows comes from the process's own /proc on its node. These messages pass between ghostd and
//! nodeagent itself, in frames of their own kind, so that the holder has nothing to do with them.
//!
//! ```text
//! ghostd                         nodeagent
//!   Sample            ->                     somebody looks at ghosts of this node
//!                     <-  Figures …          as many as it takes, the last one marked
//!   ReadPart 0        ->                     somebody opens one file, which may be large
//!                     <-  Part 0
//!   ReadPart n        ->                     when that has come
//!                     <-  Part n …           the last one marked
//! ```
//! nodeagent reads what it is asked for and nothing else; while nobody looks, nothing is sent. An answer that is lost is not
//! missed: the next look asks again. Of a file that is read in parts one part is on its way at a time, and nodeagent reads on
//! where it stopped, through the descriptor that it opened for the first.

use crate::control::direction;
use crate::examine::{Examine, Examined};

direction!(ToAgentEnvelope, MasterToAgent, "MasterToAgent", "1, 2, 3, 20", crate::frame::KIND_AGENT);
direction!(FromAgentEnvelope, AgentToMaster, "AgentToMaster", "1, 2, 3, 20", crate::frame::KIND_AGENT);

/// Bytes of file content that one [`Figures`] carries, unless a single process has more.
pub const FIGURES_SIZE: usize = 48 * 1024;
/// The most of a file that [`Figures`] carry, in bytes; the rest is cut off. Files of any size come in [`Part`]s.
pub const LARGEST_FILE: usize = 512 * 1024;
/// Bytes of a [`Part`].
pub const PART_SIZE: usize = 128 * 1024;

/// What ghostd may say to nodeagent.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum MasterToAgent {
    #[prost(message, tag = "1")]
    Sample(Sample),
    #[prost(message, tag = "2")]
    ReadPart(ReadPart),
    /// Not for the view: look at the host.
    #[prost(message, tag = "3")]
    Examine(Examine),
    /// Nothing to do with the view: the node is to be restarted or switched off.
    #[prost(message, tag = "20")]
    Power(Power),
}

/// What nodeagent may say to ghostd.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AgentToMaster {
    #[prost(message, tag = "1")]
    Figures(Figures),
    #[prost(message, tag = "2")]
    Part(Part),
    #[prost(message, tag = "3")]
    Examined(Examined),
    #[prost(message, tag = "20")]
    PowerDone(PowerDone),
}

/// "Read these files of these processes."
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sample {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(message, repeated, tag = "2")]
    pub processes: Vec<Sampled>,
    /// Names below `/proc/PID`, each one of:
    /// - a file (`stat`, `maps`): its content;
    /// - a symbolic link (`exe`): its target;
    /// - `fd`: for each descriptor its number, a colon, the permission bits of its link in octal, NUL, its target, NUL;
    /// - a file of `fdinfo` or `net` (`fdinfo/0`, `net/tcp`): its content;
    /// - `task/*/NAME`: that file of every thread, in [`ProcessFigures::threads`].
    ///
    /// One that nodeagent does not give out is answered with EACCES.
    #[prost(string, repeated, tag = "3")]
    pub files: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Sampled {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// Its number in the cluster's PID namespace of the node.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

/// An answer to [`Sample`], or a part of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Figures {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// The answer is complete with this.
    #[prost(bool, tag = "2")]
    pub last: bool,
    #[prost(message, repeated, tag = "3")]
    pub processes: Vec<ProcessFigures>,
    /// As they were asked for: `files` of a process stand in this order.
    #[prost(string, repeated, tag = "4")]
    pub files: Vec<String>,
    /// Bytes of a page of memory there.
    #[prost(uint32, tag = "5")]
    pub page_size: u32,
}

/// What was read of a process. One that does not exist any more is absent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessFigures {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// Owner of its directory in /proc: the effective user, or root where the process has forbidden dumps of itself
    /// (proc_pid(5)).
    #[prost(uint32, tag = "2")]
    pub owner: u32,
    /// In the order of [`Figures::files`], without those of threads.
    #[prost(message, repeated, tag = "3")]
    pub files: Vec<FileFigures>,
    #[prost(message, repeated, tag = "4")]
    pub threads: Vec<ThreadFigures>,
    /// More threads of this process follow in the next [`Figures`] of the same answer.
    #[prost(bool, tag = "5")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ThreadFigures {
    /// In the cluster's PID namespace of the node; 0: the first thread, whose number is the process's.
    #[prost(uint32, tag = "1")]
    pub tid: u32,
    /// In the order of the `task/*/` names in [`Figures::files`].
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<FileFigures>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FileFigures {
    /// Not 0: it could not be read, for this reason.
    #[prost(uint32, tag = "1")]
    pub errno: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub content: bytes::Bytes,
}

/// "Read on in this file of this process."
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadPart {
    /// Names this reading; another one begins anew.
    #[prost(fixed64, tag = "1")]
    pub reading: u64,
    #[prost(fixed64, tag = "2")]
    pub proc: u64,
    /// As in [`Sampled`].
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// As in [`Sample::files`], but for links, and for files of threads.
    #[prost(string, tag = "4")]
    pub file: String,
    /// Where the last part ended; 0 opens the file.
    #[prost(uint64, tag = "5")]
    pub offset: u64,
}

/// An answer to [`ReadPart`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Part {
    #[prost(fixed64, tag = "1")]
    pub reading: u64,
    #[prost(fixed64, tag = "2")]
    pub proc: u64,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// As in [`ProcessFigures`]; root, too, when it was not the same at all times of the reading.
    #[prost(uint32, tag = "4")]
    pub owner: u32,
    /// Not 0: it could not be read, for this reason. ESTALE: the reading is not known any more.
    #[prost(uint32, tag = "5")]
    pub errno: u32,
    #[prost(bytes = "bytes", tag = "6")]
    pub content: bytes::Bytes,
    /// The file ends with this part.
    #[prost(bool, tag = "7")]
    pub last: bool,
}

/// "Run the command that this node's configuration has for it." Asked by root of the master alone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Power {
    /// Given back in [`PowerDone`].
    #[prost(fixed64, tag = "1")]
    pub seq: u64,
    /// `reboot`, `halt` or `pwroff`.
    #[prost(string, tag = "2")]
    pub state: String,
}

/// The command has ended well, or why not.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PowerDone {
    #[prost(fixed64, tag = "1")]
    pub seq: u64,
    /// Empty: it has ended with status 0.
    #[prost(string, tag = "2")]
    pub error: String,
}

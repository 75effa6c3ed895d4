//! Between ghostd and a node's holder. nodeagent carries these frames between its TLS session and the holder's socket and
//! looks only at the hello and the welcome.
//!
//! ```text
//! ghostd                                   holder (through nodeagent)
//!                     <-  Hello            what it runs, of which epoch
//!   Welcome           ->                   another epoch: everything of the old one is killed first
//!   Lease, every third of the lease ->
//!                     <-  LeaseAck
//!   Spawn             ->
//!                     <-  Started | StartFailed
//!   Data stdin, Ack   <-> Data stdout/stderr, Ack, StdinGone
//!   Signal            ->                   in order for one process
//!                     <-  SignalDone (where asked for), Stopped, Continued
//!                     <-  Forked, Execed   what the started processes make of themselves (see [`crate::tree`])
//!                     <-  Ended            as soon as it is dead; repeated after a reconnect until Forget
//!                     <-  Reaped           its parent there has waited for it
//!                     <-  Sent             a signal for somebody of the master (see [`crate::standin`]); repeated after a reconnect until SentDone
//!                                          output follows until each stream's end of file
//!   Forget            ->
//! ```

use crate::control::direction;
use crate::launch::{Credentials, ProgramSpec};
use crate::standin::{Beside, Origin, Sent, SentDone};
use crate::status::Usage;
use crate::terminal::Resize;
use crate::tree::{Execed, Forked, Reaped};

direction!(ToNodeEnvelope, MasterToNode, "MasterToNode", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16");
direction!(FromNodeEnvelope, NodeToMaster, "NodeToMaster", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15");

/// What ghostd may say to a node.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum MasterToNode {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Lease(Lease),
    #[prost(message, tag = "3")]
    Spawn(Spawn),
    #[prost(message, tag = "4")]
    Signal(Signal),
    /// Output has arrived where it was meant to go, up to here.
    #[prost(message, tag = "5")]
    Ack(Ack),
    /// The reader of this output is gone: the pipe's reading end is closed.
    #[prost(message, tag = "6")]
    CloseStream(CloseStream),
    /// Kill (SIGKILL) what the launch started and the kernel has not reparented to the namespace's init.
    #[prost(message, tag = "7")]
    EndLaunch(EndLaunch),
    /// The status was received: the process may be forgotten.
    #[prost(message, tag = "8")]
    Forget(Forget),
    /// The process space ends: kill all cluster processes of this master. The statuses still come.
    #[prost(message, tag = "9")]
    EndAll(EndAll),
    /// The ghost has another nice value: so is its process to have. What the master's kernel allowed is allowed.
    #[prost(message, tag = "10")]
    Renice(Renice),
    #[prost(message, tag = "11")]
    SentDone(SentDone),
    /// Ranks of a launch that run on other nodes.
    #[prost(message, tag = "12")]
    Beside(Beside),
    /// The window of a process's terminal has another size, or still this one.
    #[prost(message, tag = "16")]
    Resize(Resize),
}

/// What a node may say to ghostd.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum NodeToMaster {
    #[prost(message, tag = "1")]
    Hello(NodeHello),
    #[prost(message, tag = "2")]
    LeaseAck(LeaseAck),
    #[prost(message, tag = "3")]
    Started(Started),
    #[prost(message, tag = "4")]
    StartFailed(StartFailed),
    #[prost(message, tag = "5")]
    Stopped(Stopped),
    #[prost(message, tag = "6")]
    Continued(Continued),
    #[prost(message, tag = "7")]
    Ended(Ended),
    /// stdin has been taken by the program up to here.
    #[prost(message, tag = "8")]
    Ack(Ack),
    /// Nobody reads this process's stdin any more.
    #[prost(message, tag = "9")]
    StdinGone(StdinGone),
    #[prost(message, tag = "10")]
    SignalDone(SignalDone),
    #[prost(message, tag = "11")]
    Forked(Forked),
    #[prost(message, tag = "12")]
    Execed(Execed),
    #[prost(message, tag = "13")]
    Reaped(Reaped),
    /// A process there has sent a signal to who is of the master.
    #[prost(message, tag = "14")]
    Sent(Sent),
    /// Instead of a hello: another certificate is wanted. Answered as a request to join is ([`crate::join::JoinToNode`]), and that is all.
    #[prost(message, tag = "15")]
    Renew(Renew),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renew {
    /// Certificate signing request, DER.
    #[prost(bytes = "bytes", tag = "1")]
    pub request: bytes::Bytes,
}

/// First message of a node on each connection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeHello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(string, repeated, tag = "2")]
    pub features: Vec<String>,
    #[prost(string, tag = "3")]
    pub program: String,
    #[prost(string, tag = "4")]
    pub hostname: String,
    /// The epoch of what the holder runs; 0 if it has never heard of a master.
    #[prost(fixed64, tag = "5")]
    pub epoch: u64,
    /// A random number the holder drew at its start: another one means that all its processes are dead.
    #[prost(fixed64, tag = "6")]
    pub holder: u64,
    /// What it runs or has statuses of, in that epoch.
    #[prost(message, repeated, tag = "7")]
    pub processes: Vec<HeldProcess>,
}

/// Longest host name, as in DNS.
const MAX_HOSTNAME: usize = 253;

/// Validates what a machine says its name is: it goes into tables, logs and environments.
pub fn is_hostname(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    (1..=MAX_HOSTNAME).contains(&text.len()) && letters
}

/// A process that the holder knows.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeldProcess {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// For a master that has no memory of it: whose it is.
    #[prost(fixed64, tag = "3")]
    pub launch: u64,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// stdin has been taken by the program up to here.
    #[prost(uint64, tag = "5")]
    pub stdin: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(string, repeated, tag = "2")]
    pub features: Vec<String>,
    #[prost(fixed64, tag = "3")]
    pub epoch: u64,
    #[prost(sint32, tag = "4")]
    pub node: i32,
    /// How long the node may go on without hearing from its master, in milliseconds (1,000 to 40,000).
    #[prost(uint32, tag = "5")]
    pub lease_ms: u32,
}

/// The lease lasts anew, counted from the last word that the master had from the node when it sent this.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Lease {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// It answers an acknowledgement, and wants none itself.
    #[prost(bool, tag = "2")]
    pub second: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseAck {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// 1-minute load average times 100.
    #[prost(uint32, tag = "2")]
    pub load_centi: u32,
    /// MemAvailable in KiB.
    #[prost(uint64, tag = "3")]
    pub mem_available_kib: u64,
    /// MemTotal in KiB; 0: this answer has no figures, the last ones still hold.
    #[prost(uint64, tag = "4")]
    pub mem_total_kib: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Spawn {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(fixed64, tag = "2")]
    pub launch: u64,
    #[prost(uint32, tag = "3")]
    pub rank: u32,
    /// Number of ranks in the launch.
    #[prost(uint32, tag = "4")]
    pub ranks: u32,
    /// The ghost's PID: the process gets the same number if it is free here.
    #[prost(uint32, tag = "5")]
    pub pid: u32,
    #[prost(message, optional, tag = "6")]
    pub credentials: Option<Credentials>,
    #[prost(message, optional, tag = "7")]
    pub program: Option<ProgramSpec>,
    /// Largest number of bytes of each stream beyond its acknowledged offset.
    #[prost(uint32, tag = "8")]
    pub window: u32,
    /// Whom its ghost has above it; none: it is the holder's child, and leads a group of its own.
    #[prost(message, optional, boxed, tag = "9")]
    pub origin: Option<Box<Origin>>,
    /// The root directory that it gets; none: the node's own.
    #[prost(message, optional, boxed, tag = "20")]
    pub root: Option<Box<Root>>,
}

/// The feature of nodes that give programs another root directory.
pub const ROOT: &str = "root";

/// A directory of the node that is a program's root directory.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Root {
    /// Absolute.
    #[prost(string, tag = "1")]
    pub path: String,
}

/// A signal that was sent to a ghost.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Signal {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// Names the signal, together with the process or, if it is for a group, with `group`; given back in [`SignalDone`]. What
    /// was not confirmed before a connection broke comes again on the next one, under the same number, and is sent once.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// 1 to 64.
    #[prost(uint32, tag = "3")]
    pub signal: u32,
    #[prost(enumeration = "Scope", tag = "4")]
    pub scope: i32,
    /// si_value as 64 bits.
    #[prost(fixed64, tag = "5")]
    pub value: u64,
    /// si_pid and si_uid for the handler.
    #[prost(uint32, tag = "6")]
    pub sender_pid: u32,
    #[prost(uint32, tag = "7")]
    pub sender_uid: u32,
    #[prost(uint32, tag = "8")]
    pub sender_euid: u32,
    /// The kernel, or a sender with CAP_KILL: kill(2)'s permission rule does not apply.
    #[prost(bool, tag = "9")]
    pub privileged: bool,
    /// The sender's si_code; SI_USER and SI_KERNEL arrive as SI_QUEUE.
    #[prost(sint32, tag = "10")]
    pub code: i32,
    /// Answer with [`SignalDone`].
    #[prost(bool, tag = "11")]
    pub confirm: bool,
    /// Of a signal to a group: which one, as the master has it; 0: the process's own, which nobody else is known to be in.
    #[prost(uint32, tag = "12")]
    pub group: u32,
    /// Signals with lower numbers do not come again.
    #[prost(uint64, tag = "13")]
    pub settled: u64,
}

/// Whom a signal was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Scope {
    /// This process alone.
    Process = 0,
    /// Its process group: on the node, all members of the process's group.
    Group = 1,
    /// Its first thread alone (tgkill(2)). Who does not know this takes it for the process.
    Thread = 2,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignalDone {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// 0, or why it was not sent (EPERM, ESRCH).
    #[prost(uint32, tag = "3")]
    pub errno: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ack {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(uint32, tag = "2")]
    pub fd: u32,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CloseStream {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(uint32, tag = "2")]
    pub fd: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EndLaunch {
    #[prost(fixed64, tag = "1")]
    pub launch: u64,
    /// Also what its programs have left behind (daemons); else that is spared.
    #[prost(bool, tag = "2")]
    pub everything: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Forget {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EndAll {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renice {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// -20 to 19.
    #[prost(sint32, tag = "2")]
    pub nice: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Started {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Not 0: errno of the chdir that failed; it runs in `/`.
    #[prost(uint32, tag = "3")]
    pub cwd_errno: u32,
    /// Its process group there; 0: its own.
    #[prost(uint32, tag = "4")]
    pub pgid: u32,
    /// Its session there; 0: the holder's.
    #[prost(uint32, tag = "5")]
    pub sid: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartFailed {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(enumeration = "crate::client::StartStage", tag = "2")]
    pub stage: i32,
    #[prost(uint32, tag = "3")]
    pub errno: u32,
    #[prost(string, tag = "4")]
    pub text: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Stopped {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU.
    #[prost(uint32, tag = "2")]
    pub signal: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Continued {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ended {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// wait(2)'s status word.
    #[prost(sint32, tag = "2")]
    pub status: i32,
    #[prost(message, optional, tag = "3")]
    pub usage: Option<Usage>,
    /// The process that inherits its children, having asked for it (PR_SET_CHILD_SUBREAPER, prctl(2)); 0: none that the master was
    /// told of.
    #[prost(fixed64, tag = "4")]
    pub heir: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StdinGone {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
}

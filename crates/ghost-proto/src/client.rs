//! Between a command (bpsh, bpstat, bpctl) and ghostd, over the Unix socket.
//!
//! A launch:
//! ```text
//! bpsh                                   ghostd
//!   Hello            ->
//!                    <-  Hello
//!   Launch           ->                                      refused as a whole: Refused, end
//!                    <-  Launched (+ pin descriptor)         ranks that cannot start carry their reason
//!   clones a ghost for every other rank; each reads the pin
//!                    <-  Started | StartFailed   per rank
//!   Data stdin, Ack  <-> Data stdout/stderr, Ack, StdinGone
//!                    <-  Ended                   per rank, as soon as it is dead; output follows until each stream's end of file
//!   closes
//! ```
//! When ghostd is started again, a command that has the feature `resume` connects anew and says how far it has come: `Resume`. What it
//! does not hear of then is as it was. When the command ends the connection before the last `Ended`, ghostd ends the launch: what it started dies by SIGKILL.

use crate::control::direction;
use crate::launch::ProgramSpec;
use crate::metrics::{MetricsReply, MetricsRequest};
use crate::status::Usage;
use crate::terminal::ResizeRank;

direction!(
    ToMasterEnvelope,
    ClientToMaster,
    "ClientToMaster",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 20, 21, 22, 30, 31, 32"
);
direction!(
    ToClientEnvelope,
    MasterToClient,
    "MasterToClient",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 21, 22, 23, 30, 31"
);

/// What a command may say to ghostd.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ClientToMaster {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Launch(Launch),
    /// Output of a rank has been written out up to here: more may follow.
    #[prost(message, tag = "3")]
    Ack(Ack),
    /// The reader of a rank's output is gone: its writer gets EPIPE.
    #[prost(message, tag = "4")]
    CloseStream(CloseStream),
    /// A rank's ghost could not be created here: the rank is not started.
    #[prost(message, tag = "5")]
    NoGhost(NoGhost),
    #[prost(message, tag = "6")]
    Nodes(NodesRequest),
    #[prost(message, tag = "7")]
    Processes(ProcessesRequest),
    #[prost(message, tag = "8")]
    Admin(AdminRequest),
    /// A rank's ghost is dead although ghostd has not yet said `Ended` or `StartFailed` for it (seen with
    /// `waitid(WEXITED | WNOWAIT)`: it stays a zombie until then).
    #[prost(message, tag = "9")]
    GhostDied(GhostDied),
    /// Instead of `Launch`, on a new connection: what was launched goes on. Answered by `Resumed`, or `Refused`.
    #[prost(message, tag = "10")]
    Resume(Resume),
    /// `Ended` or `StartFailed` of a rank has come: it need not be told again. With the feature [`RESUME`].
    #[prost(message, tag = "11")]
    Noted(Noted),
    /// Everything that was launched dies by SIGKILL, also what the programs have left behind. The connection goes on: what has been
    /// written still comes, and the ends.
    #[prost(message, tag = "12")]
    Terminate(Terminate),
    /// Instead of cloning a rank's ghost, after a `Launched` that says so.
    #[prost(message, tag = "20")]
    MakeGhost(MakeGhost),
    /// The command runs on a node: what it got there is meant for what it launched.
    #[prost(message, tag = "21")]
    SignalRanks(SignalRanks),
    /// The command runs on a node, and wants bpcp's other end run on the master, by the bpsh that all this was begun with.
    #[prost(message, tag = "22")]
    Reach(Reach),
    /// Change what nodes are or who may use them. Answered by `Changed`, or `Refused`.
    #[prost(message, tag = "30")]
    Change(Change),
    /// Answered by `Nodes` as soon as it would be another answer than the last one: the newest, however often it has changed since.
    #[prost(message, tag = "31")]
    Watch(Watch),
    /// Answered by `Metrics`, whoever asks. With the feature [`crate::metrics::FEATURE`].
    #[prost(message, tag = "32")]
    Metrics(MetricsRequest),
    /// The window of a rank's terminal has another size.
    #[prost(message, tag = "16")]
    Resize(ResizeRank),
}

/// What ghostd may say to a command.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum MasterToClient {
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// The request as a whole is refused; nothing was started. The connection ends.
    #[prost(message, tag = "2")]
    Refused(Refused),
    /// Sent together with one descriptor (SCM_RIGHTS): the pin file of this launch.
    #[prost(message, tag = "3")]
    Launched(Launched),
    #[prost(message, tag = "4")]
    Started(Started),
    #[prost(message, tag = "5")]
    StartFailed(StartFailed),
    /// A rank's stdin has been taken by its program up to here.
    #[prost(message, tag = "6")]
    Ack(Ack),
    /// A rank reads no more: it is no longer waited for.
    #[prost(message, tag = "7")]
    StdinGone(StdinGone),
    #[prost(message, tag = "8")]
    Ended(Ended),
    #[prost(message, tag = "9")]
    Nodes(NodesReply),
    #[prost(message, tag = "10")]
    Processes(ProcessesReply),
    #[prost(message, tag = "11")]
    Admin(AdminReply),
    /// A ghost that is the client's child without having been made by it has ended, and so has its process: to be waited for.
    #[prost(message, tag = "12")]
    Reap(Reap),
    #[prost(message, tag = "13")]
    Resumed(Resumed),
    /// To a command on a node, which has no ghosts that it could see stop and go on.
    #[prost(message, tag = "20")]
    RankStopped(RankStopped),
    #[prost(message, tag = "21")]
    RankContinued(RankContinued),
    /// What follows on this connection, both ways, is that end's input and output.
    #[prost(message, tag = "22")]
    Reached(Reached),
    /// To a bpsh with the feature [`SERVE`], with a socket (SCM_RIGHTS): bpcp is to be run so, with that as input and output.
    #[prost(message, tag = "23")]
    Serve(Serve),
    #[prost(message, tag = "30")]
    Changed(Changed),
    #[prost(message, tag = "31")]
    Metrics(MetricsReply),
}

/// The feature of commands that go on with a ghostd that was started again.
pub const RESUME: &str = "resume";

/// The feature of commands that run bpcp for what they have launched.
pub const SERVE: &str = "serve";

/// Whether these are arguments by which bpcp is one of its ends: nothing else is run on the master for a command on a node.
pub fn is_an_end_of_bpcp(arguments: &[bytes::Bytes]) -> bool {
    arguments.first().is_some_and(|first| *first == "--receive" || *first == "--send")
}

/// The feature of a ghostd that tells of changes of the nodes: [`Watch`].
pub const WATCH: &str = "watch";

/// First message in both directions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Features by name that the sender has beyond version 1; both use what both have.
    #[prost(string, repeated, tag = "2")]
    pub features: Vec<String>,
    /// The sender's name and release for the log, as `bpsh 0.1.0`.
    #[prost(string, tag = "3")]
    pub program: String,
}

/// "Start this program on these nodes."
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Launch {
    /// A node list as the user typed it (`0,2-3`, `up`); resolved by ghostd, which knows the nodes. A node that stands
    /// twice runs two ranks.
    #[prost(string, tag = "1")]
    pub nodes: String,
    #[prost(message, optional, tag = "2")]
    pub program: Option<ProgramSpec>,
    /// The command has nothing to tell of a single rank but its output, as it is, and how it ended: when that is killed by SIGKILL
    /// while everything stands still, the command may be killed in the same way instead of being continued to say so.
    #[prost(bool, tag = "3")]
    pub plain: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Launched {
    #[prost(fixed64, tag = "1")]
    pub launch: u64,
    /// One entry a rank, in order of rank.
    #[prost(message, repeated, tag = "2")]
    pub ranks: Vec<RankPlan>,
    /// At most this many bytes of a stream lie beyond its acknowledged offset.
    #[prost(uint32, tag = "3")]
    pub window: u32,
    /// No pin comes along: the command runs on a node, and ghosts are made on the master when it says [`MakeGhost`].
    #[prost(bool, tag = "4")]
    pub makes_ghosts: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MakeGhost {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reach {
    /// Of bpcp: the first is `--receive` or `--send`.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub arguments: Vec<bytes::Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Reached {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Serve {
    /// As in [`Reach`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub arguments: Vec<bytes::Bytes>,
}

/// "Send this to my ranks, as from me."
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignalRanks {
    /// All of them, if it is not given.
    #[prost(uint32, optional, tag = "1")]
    pub rank: Option<u32>,
    /// 1 to 64.
    #[prost(uint32, tag = "2")]
    pub signal: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RankStopped {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    /// SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU.
    #[prost(uint32, tag = "2")]
    pub signal: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RankContinued {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RankPlan {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// Not empty: this rank does not start, for this reason (`down`, `Operation not permitted`).
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(enumeration = "Obstacle", tag = "3")]
    pub obstacle: i32,
    /// The node's host name; empty if it never joined.
    #[prost(string, tag = "4")]
    pub name: String,
}

/// What kind of reason keeps a rank from being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Obstacle {
    /// None, or one that has no name here.
    Other = 0,
    Unknown = 1,
    Unreachable = 2,
    Forbidden = 3,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Started {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    /// The process's number on the node; equal to the ghost's unless that number was taken.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Not 0: the working directory could not be entered there (this errno), the program runs in `/`.
    #[prost(uint32, tag = "3")]
    pub cwd_errno: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartFailed {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    #[prost(enumeration = "StartStage", tag = "2")]
    pub stage: i32,
    /// Why, as errno(3); 0 if `text` says it all.
    #[prost(uint32, tag = "3")]
    pub errno: u32,
    #[prost(string, tag = "4")]
    pub text: String,
}

/// How far a start came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum StartStage {
    /// The node could not be asked, or not any more.
    Reach = 0,
    /// No process could be made (EAGAIN: limits of the user there).
    Create = 1,
    /// The process could not become what it must be (credentials, descriptors).
    Prepare = 2,
    /// The program could not be executed: the shell's 127 for ENOENT, 126 otherwise.
    Exec = 3,
    /// The directory that it must not do without could not be entered.
    Directory = 4,
    /// The file that was to be its standard input, output or error could not be opened.
    Stdin = 5,
    Stdout = 6,
    Stderr = 7,
    /// The root directory that the node's programs are to have could not be entered; `text` names it.
    Root = 8,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ack {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    #[prost(uint32, tag = "2")]
    pub fd: u32,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CloseStream {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    #[prost(uint32, tag = "2")]
    pub fd: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NoGhost {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    #[prost(uint32, tag = "2")]
    pub errno: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reap {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StdinGone {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
}

/// A rank's process is dead and its ghost has its answer: it can be waited for. Output may still follow: each output stream
/// that is forwarded ends with a data frame that carries the end-of-file flag.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ended {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    /// wait(2)'s status word.
    #[prost(sint32, tag = "2")]
    pub status: i32,
    /// The node was lost: the status is a verdict (SIGKILL), not an observation.
    #[prost(bool, tag = "3")]
    pub lost: bool,
    #[prost(message, optional, tag = "4")]
    pub usage: Option<Usage>,
}

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refused {
    /// For people: what is wrong, and the way out.
    #[prost(string, tag = "1")]
    pub text: String,
    /// Position in the node list, in characters from 0, when the list is what is wrong.
    #[prost(uint32, optional, tag = "2")]
    pub position: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GhostDied {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    /// wait(2)'s status word of the ghost.
    #[prost(sint32, tag = "2")]
    pub status: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Noted {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Terminate {}

/// How far a launch has come, as its command sees it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resume {
    #[prost(fixed64, tag = "1")]
    pub launch: u64,
    /// As the program was launched with.
    #[prost(enumeration = "crate::launch::Stdio", repeated, tag = "2")]
    pub stdio: Vec<i32>,
    /// The input from here on comes again.
    #[prost(uint64, tag = "3")]
    pub stdin: u64,
    #[prost(message, repeated, tag = "4")]
    pub ranks: Vec<ResumedRank>,
    /// So much of the input was sent before.
    #[prost(uint64, tag = "5")]
    pub sent: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResumedRank {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// It has ended or never begun, and that is known.
    #[prost(bool, tag = "2")]
    pub over: bool,
    /// It has not said that it reads no more.
    #[prost(bool, tag = "3")]
    pub reads: bool,
    /// stdout and stderr.
    #[prost(message, repeated, tag = "4")]
    pub outputs: Vec<ResumedOutput>,
    /// So much of the input it is known to have taken.
    #[prost(uint64, tag = "5")]
    pub taken: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResumedOutput {
    /// So much has come, and so much of it has been written out.
    #[prost(uint64, tag = "1")]
    pub received: u64,
    #[prost(uint64, tag = "2")]
    pub consumed: u64,
    /// Its end has come, or nobody reads it.
    #[prost(bool, tag = "3")]
    pub done: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resumed {
    /// As in [`Launched`].
    #[prost(uint32, tag = "1")]
    pub window: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodesRequest {
    /// A node list; empty means all.
    #[prost(string, tag = "1")]
    pub nodes: String,
    /// That nobody is in such a state now is an answer, too, an empty one, and no mistake.
    #[prost(bool, tag = "2")]
    pub perhaps_none: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodesReply {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NodeInfo>,
}

/// A node as everybody may know it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NodeInfo {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// `up`, `down`, ….
    #[prost(string, tag = "2")]
    pub status: String,
    /// Permission bits, as of a file: the execute bits count.
    #[prost(uint32, tag = "3")]
    pub mode: u32,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    /// IP address without port; empty if it never connected.
    #[prost(string, tag = "6")]
    pub address: String,
    #[prost(string, tag = "7")]
    pub hostname: String,
    /// Why it is not up; empty if it is.
    #[prost(string, tag = "8")]
    pub reason: String,
    /// Programs that are placed there have this root directory; empty: the node's own.
    #[prost(string, tag = "9")]
    pub root: String,
    /// 1-minute load average times 100; with `mem_total_kib` 0 it is not known.
    #[prost(uint32, tag = "10")]
    pub load_centi: u32,
    #[prost(uint64, tag = "11")]
    pub mem_available_kib: u64,
    #[prost(uint64, tag = "12")]
    pub mem_total_kib: u64,
    /// Processes of the cluster that run there.
    #[prost(uint32, tag = "13")]
    pub processes: u32,
}

/// "Tell me when the nodes are not any more what I have heard last."
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Watch {
    /// A node list; empty means all. One in which nobody is left is answered by an empty list.
    #[prost(string, tag = "1")]
    pub nodes: String,
}

/// One change of some nodes: what a user may not change of a node is refused for that node alone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Change {
    #[prost(string, tag = "1")]
    pub nodes: String,
    #[prost(oneof = "NodeChange", tags = "2, 3, 4, 5, 6")]
    pub change: Option<NodeChange>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum NodeChange {
    /// A state's name: for root. `reboot`, `halt` and `pwroff` make the node do it.
    #[prost(string, tag = "2")]
    State(String),
    /// Permission bits: for its owner and root.
    #[prost(message, tag = "3")]
    Mode(Setting),
    /// For root.
    #[prost(message, tag = "4")]
    Owner(Setting),
    /// For root; for its owner if he is in that group.
    #[prost(message, tag = "5")]
    Group(Setting),
    /// Root directory of programs that are placed there from now on; empty: the node's own. For root.
    #[prost(string, tag = "6")]
    Root(String),
}

/// A value; none: what the configuration says.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Setting {
    #[prost(uint32, optional, tag = "1")]
    pub value: Option<u32>,
}

/// What was asked for is done, but for these nodes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Changed {
    #[prost(message, repeated, tag = "1")]
    pub failures: Vec<NodeFailure>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeFailure {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// For people: why, and the way out.
    #[prost(string, tag = "2")]
    pub text: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessesRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessesReply {
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<ProcessInfo>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessInfo {
    /// The ghost's number here.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    #[prost(sint32, tag = "2")]
    pub node: i32,
    /// The process's number there, 0 if it has not started yet.
    #[prost(uint32, tag = "3")]
    pub node_pid: u32,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
}

/// Administration: for root (and, where it says so, for everybody).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AdminRequest {
    #[prost(oneof = "Admin", tags = "1, 2, 3, 4, 5, 6, 7, 20")]
    pub admin: Option<Admin>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Admin {
    #[prost(message, tag = "1")]
    Token(TokenRequest),
    #[prost(message, tag = "2")]
    AddNodes(NodeRequest),
    #[prost(message, tag = "3")]
    RemoveNodes(NodeRequest),
    #[prost(message, tag = "4")]
    RevokeNodes(NodeRequest),
    #[prost(message, tag = "5")]
    ReplaceNodes(NodeRequest),
    #[prost(message, tag = "6")]
    View(ViewRequest),
    /// The program that is installed now goes on in ghostd's place, with everything that runs.
    #[prost(message, tag = "7")]
    Handover(HandoverRequest),
    /// Look at the master and all nodes.
    #[prost(message, tag = "20")]
    Examine(ExamineRequest),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ExamineRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TokenRequest {
    /// Node list the token is good for; empty: any.
    #[prost(string, tag = "1")]
    pub nodes: String,
    /// How often; 0 means once for every node of the list, or once if the list is empty.
    #[prost(uint32, tag = "2")]
    pub uses: u32,
    /// Seconds until it is void; 0 means the default of an hour.
    #[prost(uint64, tag = "3")]
    pub expires_s: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRequest {
    #[prost(string, tag = "1")]
    pub nodes: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HandoverRequest {}

/// Whether `/proc/GHOST` shows the node's process, until ghostd starts anew.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ViewRequest {
    #[prost(bool, tag = "1")]
    pub on: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AdminReply {
    /// Lines for stdout (a token, what was done).
    #[prost(string, repeated, tag = "1")]
    pub lines: Vec<String>,
    /// The answer to [`Admin::Examine`].
    #[prost(message, optional, tag = "2")]
    pub examination: Option<crate::examine::Examination>,
}

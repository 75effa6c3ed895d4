//! Everything that can happen to the holder, and everything it can do.

use bytes::Bytes;
use ghost_abi::tree::Process as TreeProcess;
use ghost_proto::client::StartStage;
use ghost_proto::frame::{Data, Placed};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::node::{MasterToNode, NodeToMaster, Scope};
use ghost_proto::standin::{Origin, Other};
use ghost_proto::status::Usage;
use ghost_proto::terminal::{Size, Terminal};
use ghost_sys::spawn::Program;

use super::standins::Sent;

/// What wakes the holder.
#[derive(Debug)]
pub enum Event {
    /// A new connection of the agent, in place of any other.
    Linked,
    Unlinked,
    Message(MasterToNode),
    Data(Data),
    /// Bytes of an input lie in its ring.
    InputPlaced(Placed),
    /// [`Action::Create`] made a process.
    Created {
        proc: ProcId,
        pid: u32,
        /// Its process group and its session; 0: its own, the holder's.
        pgid: u32,
        sid: u32,
    },
    /// It executes its program now.
    Executed {
        proc: ProcId,
        directory_errno: u32,
    },
    StartFailed {
        proc: ProcId,
        stage: StartStage,
        errno: u32,
    },
    /// Bytes came out of an output's pipe.
    Read {
        proc: ProcId,
        fd: u8,
        bytes: Bytes,
    },
    /// Bytes came out of an output's pipe and lie in its ring, at the stream's end.
    Placed {
        proc: ProcId,
        fd: u8,
        length: usize,
    },
    /// Nothing more will be read from it: all writers are gone, or what a dead process had written is read.
    OutputOver {
        proc: ProcId,
        fd: u8,
    },
    /// The pipe of stdin has taken this many bytes.
    Written {
        proc: ProcId,
        bytes: usize,
    },
    /// The pipe of stdin has no reader.
    InputGone {
        proc: ProcId,
    },
    /// [`Action::Signal`] was carried out; `errno` is 0, or why not. EAGAIN: to be tried again.
    Signaled {
        proc: ProcId,
        errno: i32,
    },
    Reaped {
        pid: u32,
        status: i32,
        usage: Usage,
    },
    Stopped {
        pid: u32,
        signal: u8,
    },
    Continued {
        pid: u32,
    },
    /// What the kernel programs have seen.
    Tree(TreeEvent),
    /// A signal to a stand-in.
    Sent(Sent),
    /// The namespace is empty.
    NoChildren,
    /// Time has passed.
    Tick,
}

/// What happens to processes of the namespace, launched ones and all others.
#[derive(Debug)]
pub enum TreeEvent {
    /// `launch`: whose cgroup it is in, if its parent is the holder or a stand-in (`by_us`).
    Forked {
        process: TreeProcess,
        by_us: bool,
        launch: Option<LaunchId>,
    },
    Executed(TreeProcess),
    /// The group and session of one that is about to be told of as stopped or ended: afterwards its ghost changes nothing.
    Stands {
        pid: u32,
        pgid: u32,
        sid: u32,
    },
    /// What all are now.
    Compared {
        all: Vec<TreeProcess>,
        /// How many records there were before.
        seen: u64,
    },
    /// Its last thread is gone.
    Ended {
        key: u64,
        status: i32,
        /// Key of who inherits its children; 0: the namespace's init, or it is not known.
        heir: u64,
    },
    /// It has been waited for.
    Reaped {
        key: u64,
    },
    /// By this signal; `None`: it goes on.
    Stopped {
        key: u64,
        signal: Option<u8>,
    },
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Action {
    Send(NodeToMaster),
    SendData(Data),
    /// What lies in an output's ring.
    SendPlaced(Placed),
    /// Answer a lease with this node's load.
    AckLease {
        seq: u64,
    },
    /// Close the connection; the reason is for the log.
    Disconnect(String),
    Create(Box<Creation>),
    /// Answered by [`Event::Signaled`].
    Signal {
        proc: ProcId,
        pid: u32,
        order: Order,
    },
    /// stdin has bytes to be written ([`super::core::Core::input`]), or is to be closed.
    FeedInput {
        proc: ProcId,
    },
    /// There is room again for an output, or its reader has gone.
    ServeOutput {
        proc: ProcId,
        fd: u8,
    },
    /// The process is dead: read what its pipes hold now, then [`Event::OutputOver`]; close its stdin.
    Drain {
        proc: ProcId,
    },
    /// It is forgotten: close all that is open of it.
    Release {
        proc: ProcId,
    },
    /// SIGKILL for the launch's processes ([`super::core::Core::living`]) and their descendants; or for everything that has come
    /// from them.
    EndLaunch {
        launch: LaunchId,
        everything: bool,
    },
    /// Have stand-ins of these ranks of the launch, which run on other nodes, and of no others.
    Beside {
        launch: LaunchId,
        others: Vec<Other>,
    },
    /// SIGKILL for everything in the namespace.
    KillEverything,
    /// Give its terminal's window this size.
    Resize {
        proc: ProcId,
        size: Size,
    },
    /// Give the process this nice value.
    Renice {
        pid: u32,
        nice: i32,
    },
    /// This is the node's number: forked processes get theirs from its slice.
    Steer {
        node: NodeNumber,
    },
}

/// A process to be made.
#[derive(Debug)]
pub struct Creation {
    pub proc: ProcId,
    pub launch: LaunchId,
    /// 0: any.
    pub pid: u32,
    pub program: Program,
    /// Which of the descriptors 0, 1, 2 are streams.
    pub streams: [bool; 3],
    /// Who is above it on the master.
    pub origin: Option<Origin>,
    /// Descriptors 0, 1 and 2 are a terminal like this; its bytes are the streams 0 and 1.
    pub terminal: Option<Box<Terminal>>,
    /// It is put into the node's own namespaces.
    pub host: bool,
}

/// A signal to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub signal: u8,
    pub scope: Scope,
    pub code: i32,
    pub value: u64,
    pub sender_pid: u32,
    pub sender_uid: u32,
    pub sender_euid: u32,
    /// The sender's rights are not to be looked at.
    pub privileged: bool,
    /// Of a signal to a group: which one, should the process be gone; 0: not known.
    pub group: u32,
}

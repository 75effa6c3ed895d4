//! What the core knows, is told and wants done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use ghost_abi::SignalRecord;
use ghost_host::pin::ReadToken;
use ghost_proto::client::{self, Admin, ClientToMaster, MasterToClient};
use ghost_proto::frame::Data;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::launch::ProgramSpec;
use ghost_proto::node::{MasterToNode, NodeHello, NodeToMaster};
use ghost_proto::node_state::NodeStatus;
use ghost_proto::standin::Origin;
use ghost_proto::status::WaitStatus;
use ghost_proto::stream::{BadData, Receiver};
use ghost_proto::view::{AgentToMaster, MasterToAgent};
use ghost_proto::view_port::{GhostdToServer, ServerToGhostd};
use ghost_sys::ghost::{Answer, Birth, Kill, Kin};

use super::changes::NodesChange;
use super::found::Found;
use super::node_life::Stage;
use super::signal_queue::SignalQueue;

/// Time since the daemon's start (CLOCK_BOOTTIME).
pub type Instant = Duration;

/// A connection of a command. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A connection of a node. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Figures that the core works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First epoch; each node that is lost gets the next.
    pub epoch: u64,
    pub lease: Duration,
    /// What the master waits longer than the lease.
    pub margin: Duration,
    /// For hellos, as `ghostd 0.1.0`.
    pub program: String,
    /// Whether `/proc/GHOST` shows the process.
    pub view: bool,
    /// Whether something is to be run for a node that comes.
    pub node_up: bool,
    /// Names given are above this; those of a ghostd before are below.
    pub first_id: u64,
}

/// Who is at the other end of a client's socket, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// A node as the membership knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    pub number: NodeNumber,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub address: Option<IpAddr>,
    pub hostname: String,
    /// Why it is not up, if it is not connected.
    pub reason: String,
    /// The state that root has set.
    pub held: Option<NodeStatus>,
    /// Root directory of the programs that are placed there; empty: the node's own.
    pub root: String,
}

/// Which nodes there are and who may use them.
pub trait Directory {
    fn nodes(&self) -> Vec<NodeFacts>;
    fn node(&self, number: NodeNumber) -> Option<NodeFacts>;
    fn may_use(&self, number: NodeNumber, user: &User) -> bool;
}

/// All that can happen to the master.
#[derive(Debug)]
pub enum Event {
    ClientJoined {
        client: ClientId,
        user: User,
    },
    /// The same of a command that a process runs on its node, as [`super::Core::asker`] has it.
    ClientRelayed {
        client: ClientId,
        user: User,
        process: ProcId,
    },
    ClientSaid {
        client: ClientId,
        message: ClientToMaster,
    },
    ClientData {
        client: ClientId,
        data: Data,
    },
    ClientGone {
        client: ClientId,
    },
    /// A command goes on with its launch; `launch`: what the kernel has its task under.
    Resume {
        client: ClientId,
        launch: Option<LaunchId>,
        message: client::Resume,
    },
    /// The first event, if there was a ghostd before this one.
    Found(Found),
    /// What stands above a client's launch, after [`Action::Launched`].
    Above {
        client: ClientId,
        origin: Origin,
    },
    /// Answer to [`Action::LookAbove`].
    AboveLaunch {
        launch: LaunchId,
        origin: Origin,
    },
    /// Answer to [`Action::OpenPin`].
    PinOpened {
        client: ClientId,
        file: u64,
    },
    /// A node whose certificate was accepted has said hello.
    NodeConnected {
        node: NodeNumber,
        link: LinkId,
        hello: NodeHello,
        address: IpAddr,
    },
    NodeSaid {
        node: NodeNumber,
        link: LinkId,
        message: NodeToMaster,
    },
    NodeData {
        node: NodeNumber,
        link: LinkId,
        data: Data,
    },
    NodeDisconnected {
        node: NodeNumber,
        link: LinkId,
    },
    /// The node no longer belongs to the cluster.
    NodeDismissed {
        node: NodeNumber,
    },
    /// A process sleeps on a pin file; `pid` is the kernel's word, the offset its own.
    PinRead {
        token: ReadToken,
        file: u64,
        pid: u32,
        offset: u64,
    },
    PinInterrupted {
        unique: u64,
    },
    /// Answer to [`Action::Adopt`].
    Adopted {
        process: ProcId,
        ok: bool,
        /// The ghost's process group.
        pgid: u32,
    },
    /// Answer to [`Action::AskGroup`]; 0: that number is not this ghost any more.
    GroupIs {
        process: ProcId,
        pgid: u32,
    },
    /// Answer to [`Action::Withdraw`]; `in_time`: it had not been made, and will not be.
    Withdrawn {
        process: ProcId,
        in_time: bool,
    },
    Signal(SignalRecord),
    GhostExited {
        ghost: u64,
        launcher: bool,
        /// The number of the task that has ended; 0 if it is not known.
        pid: u32,
    },
    /// Records were lost: what the kernel kept for a ghost. Bit n-1 of `signals`: signal n was sent.
    GhostState {
        process: ProcId,
        signals: u64,
        exited: bool,
    },
    /// Somebody looks at ghosts' views, and what is known is too old.
    Looked(ServerToGhostd),
    /// A node's agent has read what it was asked for.
    AgentSaid {
        node: NodeNumber,
        link: LinkId,
        message: AgentToMaster,
    },
    /// The view's guard has begun.
    ViewUp,
    /// The view's guard has gone, and no ghost has a view any more.
    ViewDown,
    /// Root has switched the view.
    ViewSwitched {
        on: bool,
    },
    /// Answer to [`Action::HideGhost`].
    GhostHidden {
        process: ProcId,
    },
    /// Answer to [`Action::ShowGhost`] where it cannot be done now.
    GhostNotShown {
        process: ProcId,
    },
    /// The nice values of all ghosts that live.
    NiceSeen {
        values: Vec<(ProcId, i32)>,
    },
    /// [`Action::ChangeNodes`] is done, and kept.
    NodesChanged(Box<NodesChange>),
    /// Whether something is to be run for a node that comes, from now on.
    NodeUpSwitched {
        on: bool,
    },
    /// [`Action::RunNodeUp`] has ended: well, or why not.
    NodeUpEnded {
        node: NodeNumber,
        run: u64,
        outcome: Result<(), String>,
    },
    Tick,
    /// The process space ends.
    End,
}

/// What the driver is to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    TellClient {
        client: ClientId,
        message: MasterToClient,
    },
    SendClient {
        client: ClientId,
        data: Data,
    },
    /// Once everything told so far has gone out.
    CloseClient {
        client: ClientId,
    },
    TellNode {
        node: NodeNumber,
        link: LinkId,
        message: MasterToNode,
    },
    SendNode {
        node: NodeNumber,
        link: LinkId,
        data: Data,
    },
    CloseNode {
        node: NodeNumber,
        link: LinkId,
    },
    /// Open a pin file for the client's launch, keep it for [`Action::Launched`], and watch the client's own signals under
    /// this launch.
    OpenPin {
        client: ClientId,
        launch: LaunchId,
    },
    /// Tell the client, together with its pin file; then find out what is above it ([`Event::Above`]).
    Launched {
        client: ClientId,
        message: MasterToClient,
    },
    /// Make sure that the sleeper is of user `uid`, and watched as this process's ghost since its fork or a child of `parent`
    /// (of anybody: `None`); watch it, and answer its read with [`Answer::Armed`]; or refuse it. Report by [`Event::Adopted`].
    Adopt {
        process: ProcId,
        token: ReadToken,
        pid: u32,
        parent: Option<u32>,
        uid: u32,
        /// To be kept with the task.
        tag: u32,
    },
    /// Remember that this node is believed in this epoch, for a ghostd after this one; 0: in none.
    NoteNode {
        node: NodeNumber,
        epoch: u64,
        holder: u64,
    },
    /// Remember this, too, in that epoch.
    NoteStage {
        node: NodeNumber,
        stage: Stage,
    },
    /// Keep this, write it to the log, and report it by [`Event::NodesChanged`]; or tell the client why not.
    ChangeNodes(Box<NodesChange>),
    /// Run what is to be run for a node that comes. Reported by [`Event::NodeUpEnded`].
    RunNodeUp {
        node: NodeNumber,
        run: u64,
        hostname: String,
        address: IpAddr,
    },
    /// End that, if it runs still. Not reported.
    StopNodeUp {
        run: u64,
    },
    AnswerGhost {
        token: ReadToken,
        answer: Answer,
    },
    /// [`Answer::Fork`] for the ghost with number `maker`; what it makes is `process`'s ghost from the fork on.
    Beget {
        token: ReadToken,
        maker: u32,
        process: ProcId,
        birth: Birth,
        /// To be kept with the new ghost's task.
        tag: u32,
    },
    /// Which group is the ghost with this number in? Reported by [`Event::GroupIs`].
    AskGroup {
        process: ProcId,
        pid: u32,
    },
    /// The ghost with number `maker` is not to make `process`'s ghost any more. Reported by [`Event::Withdrawn`].
    Withdraw {
        process: ProcId,
        maker: u32,
    },
    /// EINTR: the ghost is to look at its signals.
    InterruptGhost {
        token: ReadToken,
    },
    /// EPERM: this process has no business here.
    RefuseRead {
        token: ReadToken,
    },
    /// Let `/proc/PID` show the process, if that number is still this ghost.
    ShowGhost {
        process: ProcId,
        pid: u32,
        uid: u32,
        gid: u32,
        node: NodeNumber,
    },
    /// Let `/proc/PID` be the kernel's own again. Reported by [`Event::GhostHidden`].
    HideGhost {
        process: ProcId,
    },
    /// To nodeagent itself.
    TellAgent {
        node: NodeNumber,
        link: LinkId,
        message: MasterToAgent,
    },
    /// For the view's server.
    TellView(GhostdToServer),
    /// SIGCONT, if that number is still this ghost.
    ContinueGhost {
        process: ProcId,
        pid: u32,
    },
    /// SIGCONT to the launcher: it stopped because all its ghosts had.
    ContinueLauncher {
        client: ClientId,
    },
    /// SIGKILL to a launcher that stands still: what it launched was killed, and it has nothing to say about it.
    KillLauncher {
        client: ClientId,
    },
    /// Connect a command on a node with the end of bpcp that another command is to run here.
    Serve {
        client: ClientId,
        server: ClientId,
        arguments: Vec<Bytes>,
    },
    /// Find out what is above this launch, whose launcher's ghost has this number. Reported by [`Event::AboveLaunch`], before
    /// any other read of the pin.
    LookAbove {
        launch: LaunchId,
        pid: u32,
        uid: u32,
    },
    /// SIGCONT to one that has not come back, if that number still is the launcher.
    ContinueAbsent {
        launch: LaunchId,
        pid: u32,
    },
    /// Somebody wants to know what ghostd counts: the driver answers.
    TellMetrics {
        client: ClientId,
    },
    /// Root asks for a change of the membership: done by the driver, which answers the client.
    Admin {
        client: ClientId,
        admin: Admin,
    },
}

#[derive(Debug)]
pub(super) struct Client {
    pub user: User,
    pub greeted: bool,
    /// It goes on with a ghostd that was started again.
    pub resumes: bool,
    pub launch: Option<LaunchId>,
    /// It runs bpcp for what it has launched.
    pub serves: bool,
    /// The process that it is, if it runs on a node.
    pub via: Option<ProcId>,
}

impl Client {
    pub(super) const fn new(user: User) -> Client {
        Client { user, greeted: false, resumes: false, launch: None, serves: false, via: None }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub link: Option<LinkId>,
    pub address: IpAddr,
    pub hostname: String,
    /// It makes stand-ins of the master's processes.
    pub stands_in: bool,
    /// It gives programs another root directory.
    pub changes_root: bool,
    pub stage: Stage,
    /// The run of node_up for it.
    pub node_up: Option<u64>,
    /// It was told to, and has gone.
    pub left: Option<NodeStatus>,
    /// What it has said last of its load.
    pub figures: Option<NodeFigures>,
    /// Programs can have terminals there.
    pub has_terminals: bool,
    /// Programs can run in its own namespaces.
    pub enters_host: bool,
    /// What the node must be of to be believed.
    pub epoch: u64,
    /// The holder's own random number.
    pub holder: u64,
    /// It has said what it holds from before this ghostd: what it names later and is not known here is forgotten.
    pub met: bool,
    /// The last lease that was sent: odd while the first of a pair waits for its acknowledgement.
    pub lease_seq: u64,
    pub last_lease_sent: Instant,
    pub last_lease_acked: Instant,
    /// Signals that its processes have sent, by its numbers: whether they have been dealt with.
    pub sent: BTreeMap<u64, bool>,
}

impl Node {
    /// One that has not spoken yet.
    pub fn new(address: IpAddr, now: Instant) -> Node {
        Node {
            link: None,
            address,
            hostname: String::new(),
            stands_in: false,
            changes_root: false,
            stage: Stage::default(),
            node_up: None,
            left: None,
            figures: None,
            has_terminals: false,
            enters_host: false,
            epoch: 0,
            holder: 0,
            met: false,
            lease_seq: 0,
            last_lease_sent: now,
            last_lease_acked: now,
            sent: BTreeMap::new(),
        }
    }
}

/// A node's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeFigures {
    pub load_centi: u32,
    pub mem_available_kib: u64,
    pub mem_total_kib: u64,
}

#[derive(Debug)]
pub(super) struct Launch {
    pub client: ClientId,
    pub user: User,
    pub program: ProgramSpec,
    /// See [`ghost_proto::client::Launch::plain`].
    pub plain: bool,
    /// When it was asked for, until its first process has begun.
    pub asked: Option<Instant>,
    /// Its launcher, and the group and the session of that.
    pub origin: Option<Origin>,
    /// Its launcher's process, if that runs on a node; and the launch in whose memory its ghosts live then.
    pub via: Option<ProcId>,
    pub host: Option<LaunchId>,
    pub file: Option<u64>,
    /// By rank; `None` for one that could not be planned.
    pub ranks: Vec<Option<ProcId>>,
    /// What its processes have forked, by the rank that their ghosts read as: numbers above the true ranks.
    pub forked: BTreeMap<u32, ProcId>,
    pub next_rank: u32,
    /// A ghost is to be made, and nobody could make it when last looked.
    pub lacks_maker: bool,
    pub places: Places,
    pub plans: Vec<client::RankPlan>,
    /// Nodes on which it has another root directory than the node's own.
    pub roots: BTreeMap<NodeNumber, String>,
    pub window: u32,
    pub stdin: Stdin,
    /// Somebody has stopped the launcher itself by SIGSTOP.
    pub launcher_stopped: bool,
    /// Its client goes on with a ghostd that was started again.
    pub resumes: bool,
    /// The client was another ghostd's, and has not come to this one yet.
    pub absent: bool,
    /// The client is gone: what still runs is being killed.
    pub ended: bool,
}

/// The client's standard input: kept from the first byte that a live reader has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    pub received: u64,
    /// So much a ghostd before had received: nodes may acknowledge it.
    pub before: u64,
    pub eof: bool,
    pub pieces: VecDeque<(u64, Bytes)>,
}

#[derive(Debug)]
pub(super) struct Process {
    pub launch: LaunchId,
    pub rank: u32,
    /// Another ghost makes its ghost, or has: it was forked by a process of the launch, or launched from a node.
    pub fork: Option<Fork>,
    /// What the ghost is to do besides, in this order.
    pub orders: VecDeque<Order>,
    /// What it was told to do last, until it is back.
    pub doing: Option<Doing>,
    /// Processes whose ghosts are this one's children, or are to be.
    pub made: BTreeSet<ProcId>,
    /// Its ghost gets the children that those below it leave.
    pub takes_in: bool,
    /// Process group and session on the node; 0: as at the start.
    pub pgid: u32,
    pub sid: u32,
    /// The ghost's process group, and which of the node's it stands for; 0: it is not where it belongs, or not known to be.
    pub ghost_pgid: u32,
    pub placed_for: u32,
    /// It has founded a group that stands for this one; which, is being asked.
    pub founded_for: u32,
    pub is_asked_for: bool,
    /// It leads a session there; its ghost is to, and does.
    pub leads: bool,
    pub may_lead: bool,
    pub leads_session: bool,
    pub node: NodeNumber,
    pub ghost: Ghost,
    pub remote: Remote,
    pub pid: u32,
    /// SIGKILL has been sent to the ghost.
    pub killed: bool,
    /// The process is stopped, as far as the node has said; it may say so before it says that it has started.
    pub stopped: bool,
    /// The ghost is to stop by this signal when it is in its group.
    pub stop_later: Option<u8>,
    /// The ghost has been stopped by SIGSTOP (not by us), and not continued since.
    pub ghost_stopped: bool,
    /// Its read was interrupted, and is to end when the node has confirmed the SIGSTOP that is on its way.
    pub interrupt_wanted: bool,
    pub signals: SignalQueue,
    /// It was there before this ghostd; its node has not spoken of it yet.
    pub found: bool,
    /// How it ended, until the client has noted it.
    pub verdict: Option<MasterToClient>,
    /// The client had that from a ghostd before.
    pub noted: bool,
    /// The node holds the process until it is told to forget it.
    pub held: bool,
    /// When the node was asked to begin it, until it has.
    pub asked: Option<Instant>,
    /// Group signals already forwarded in this ghost's place, before it was watched.
    pub forestalled: u64,
    /// The same of real-time signals, which count: signal and value.
    pub forestalled_realtime: Vec<(u16, u64)>,
    /// Real-time signals that the ghost got before it had acted on all that waited for it, blocked, at its birth: they come
    /// after those. `None` once its next read has shown that it has.
    pub held_back: Option<Vec<SignalRecord>>,
    pub outputs: [Output; 2],
    pub stdin_acked: u64,
    pub stdin_open: bool,
}

/// What there is to know about a process whose ghost another ghost makes: a forked one's.
#[derive(Debug)]
pub(super) struct Fork {
    /// Its parent on the node when it was told of; `None`: the namespace's init.
    pub origin: Option<ProcId>,
    /// Who has made it, if that was not its parent (CLONE_PARENT).
    pub creator: Option<ProcId>,
    /// Whose child its ghost is, or is to be.
    pub parent: Parent,
    pub making: Making,
    /// Where the ghost's stack lies, once a maker was told.
    pub place: Option<u32>,
    pub comm: [u8; 15],
    /// When it is to be looked at again, and since when the present maker has been chosen.
    pub due: Instant,
    pub since: Instant,
    /// Makers that could not.
    pub failures: u32,
    /// Its parent on the node has waited for it.
    pub reaped: bool,
    /// Who gets its children there, if that is not the namespace's init. Known at its end.
    pub heir: Option<ProcId>,
    /// What its ghost reads as.
    pub seat: u32,
    /// It was not forked, but launched from a node: see [`super::nested`].
    pub launched: bool,
}

impl Fork {
    /// A maker may have acted on it.
    pub fn is_told(&self) -> bool {
        !matches!(self.making, Making::Nobody | Making::Asked { told: false, .. })
    }
}

/// Whose child a forked process's ghost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    Ghost(ProcId),
    Launcher,
    /// Whoever takes in orphans here.
    Init,
}

/// How far a forked process's ghost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    /// Nobody is to make it.
    Nobody,
    /// This ghost is to make it, as its kin; `told`: it has been answered so, and may have done it.
    Asked { maker: ProcId, kin: Kin, told: bool },
    /// It is there, and will read the pin, or its end will be seen.
    Made,
}

/// What a ghost is to do besides sleeping, stopping and ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Make this process's ghost.
    Fork(ProcId),
    /// Wait for a dead child.
    Reap(u32),
    Name([u8; 15]),
    /// Stand where its process does, in its session as it is.
    Place,
    /// Lead a session: its process does. Whom it has made before is not of that session.
    Lead,
    /// Be who gets the children of those below: its process is.
    TakeIn,
    /// Send a signal that the process has sent; its number at the node.
    Kill(Kill, u64),
}

/// What a ghost does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Fork(ProcId),
    Move(Moving),
    TakeIn,
    Other,
}

/// A step on the way to where a ghost belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moving {
    /// Into this group, which stands for that one of the node.
    Group { to: u32, stands_for: u32 },
    /// Into a new group, which stands for that one of the node.
    Found { stands_for: u32 },
    /// It is to lead a session.
    Session,
}

impl Moving {
    pub const fn stands_for(self) -> Option<u32> {
        match self {
            Moving::Group { stands_for, .. } | Moving::Found { stands_for } => Some(stands_for),
            Moving::Session => None,
        }
    }
}

impl Process {
    pub fn moving(&self) -> Option<Moving> {
        if let Some(Doing::Move(moving)) = self.doing { Some(moving) } else { None }
    }
}

impl Launch {
    /// Whether it has, or had, a rank on this node.
    pub fn is_on(&self, node: NodeNumber) -> bool {
        // Of one that was found it is not known before its command comes; if it does.
        self.plans.is_empty() || self.plans.iter().any(|plan| plan.node == node.0 && plan.reason.is_empty())
    }
}

/// Which stacks of a launch's nursery are free.
#[derive(Debug, Default)]
pub(super) struct Places {
    free: Vec<u32>,
    next: u32,
}

impl Places {
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let place = self.next;
            (place < ghost_sys::ghost::NURSERY).then(|| {
                self.next += 1;
                place
            })
        })
    }

    /// This one is somebody's already.
    pub fn taken(&mut self, place: u32) {
        self.next = self.next.max(place.saturating_add(1));
    }

    /// Perhaps the next ones are, too.
    pub fn skip(&mut self, count: u32) {
        self.next = self.next.saturating_add(count);
    }

    pub fn give_back(&mut self, place: u32) {
        self.free.push(place);
    }
}

/// stdout or stderr on its way to the client.
#[derive(Debug)]
pub(super) struct Output {
    pub receiver: Receiver,
    pub eof: bool,
    /// The client's reader is gone: nothing of it is passed on.
    pub closed: bool,
    /// Of a process that was found: the receiver knows where the stream goes on.
    pub anchored: bool,
    /// So much the client had got, and used up, from a ghostd before.
    pub skip: u64,
    pub early: u64,
    /// For a client that has not come yet.
    pub waiting: Vec<Data>,
}

impl Output {
    pub fn new(window: u32, eof: bool) -> Output {
        Output {
            receiver: Receiver::new(window),
            eof,
            closed: false,
            anchored: true,
            skip: 0,
            early: 0,
            waiting: Vec::new(),
        }
    }

    /// Of a process that writes to another one's.
    pub fn none() -> Output {
        Output::new(0, true)
    }

    /// Of a process that was there before this ghostd.
    pub fn found(window: u32) -> Output {
        Output { anchored: false, ..Output::new(window, false) }
    }

    /// Takes what its node sends of it.
    ///
    /// # Errors
    /// It leaves a gap or exceeds the window.
    pub fn receive(&mut self, data: &Data) -> Result<usize, BadData> {
        if !self.anchored {
            // The node begins where the stream was acknowledged.
            self.receiver = Receiver::from(self.receiver.window(), data.offset);
            self.anchored = true;
        }
        self.receiver.receive(data.offset, data.bytes.len())
    }

    /// All of it has reached the client and been acknowledged: the node need not keep any of it.
    pub fn is_done(&self) -> bool {
        self.closed || self.eof && self.waiting.is_empty() && self.receiver.consumed() == self.receiver.received()
    }
}

/// Where a ghost is.
#[derive(Debug)]
pub(super) enum Ghost {
    /// The client has not made it yet.
    Awaited,
    /// Another ghost is to make it; `next` is for when it has come.
    Expected {
        next: Option<Answer>,
    },
    /// It is being checked and watched.
    Arriving,
    Asleep(ReadToken),
    /// Not in a read; `next` is for when it comes back.
    Awake {
        next: Option<Answer>,
    },
    /// It has its last answer, and is not dead yet: a stop signal may have been quicker.
    Leaving {
        last: Answer,
    },
    /// Dead, or never ours.
    Gone,
}

impl Ghost {
    /// Takes the read to be answered, if there is one; the answer is kept otherwise.
    pub fn wake(&mut self, answer: Answer) -> Option<ReadToken> {
        let after = match answer {
            Answer::Exit(_) | Answer::Die(_) => Ghost::Leaving { last: answer },
            _ => Ghost::Awake { next: None },
        };
        match std::mem::replace(self, after) {
            Ghost::Asleep(token) => return Some(token),
            Ghost::Awake { .. } | Ghost::Arriving => *self = Ghost::Awake { next: Some(answer) },
            Ghost::Expected { .. } => *self = Ghost::Expected { next: Some(answer) },
            other @ (Ghost::Awaited | Ghost::Leaving { .. } | Ghost::Gone) => *self = other,
        }
        None
    }

    /// Nothing more is to be said to it.
    pub fn is_settled(&self) -> bool {
        matches!(self, Ghost::Gone | Ghost::Awaited)
    }
}

/// Where a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// Not asked for yet.
    Planned,
    Asked,
    Running {
        pid: u32,
    },
    Ended(WaitStatus),
    /// It never ran.
    Failed,
}

impl Remote {
    /// It may be running there, as far as is known here.
    pub const fn is_live(self) -> bool {
        matches!(self, Remote::Asked | Remote::Running { .. })
    }

    /// Nothing more will come of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Remote::Ended(_) | Remote::Failed)
    }
}

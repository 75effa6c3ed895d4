//! The master's decisions: a pure state machine. Events in, actions out; no system call, no clock.
//!
//! A process in its life:
//! ```text
//!            Launch           ghost sleeps        node says Started      node says Ended / is lost
//!  (nothing) ------> Planned ------------> Asked --------------> Running --------------------> Ended
//!                       |                    |  StartFailed                                      ^
//!                       +--------------------+---------------------------------------------------+
//! ```
//! and its ghost:
//! ```text
//!  Awaited --first read--> Asleep --answer--> Awake        (stopped, or between two reads)
//!     |                     |    <---read-------'|
//!     |  GhostDied          | last answer        | dies
//!     |                     v                    v
//!     |                  Leaving --dies------> Gone
//!     +-----------------------------------------^
//! ```
//! Invariants:
//! - A process is spawned only after its ghost sleeps and is watched; a ghost that dies takes its process with it (SIGKILL),
//!   and nobody reaps it before the process is dead.
//! - A killed ghost's read is answered only when its process is dead.
//! - Every process ends in exactly one `Ended` or `StartFailed` towards the client.
//! - What a node says counts only for processes that this table places on that node.

mod askers;
mod beside;
mod births;
mod changes;
mod clients;
mod counts;
mod found;
mod ghosts;
mod groups;
mod heirs;
mod host;
mod last_word;
mod launches;
mod nested;
mod nice;
mod node_life;
mod nodes;
mod power;
mod signal_queue;
mod signals;
mod streams;
mod terminals;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod upwards;
mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ghost_proto::client::{self, MasterToClient};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::node::MasterToNode;
use ghost_proto::status::WaitStatus;
use ghost_sys::ghost::Answer;

pub use changes::NodesChange;
pub use counts::{Census, Counts};
pub use found::{Found, FoundGhost, FoundLauncher};
use nice::Nice;
pub use node_life::Stage;
pub use types::{Action, ClientId, Directory, Event, Instant, LinkId, NodeFacts};
use types::{Client, Launch, Node, Process, Remote};
pub use types::{Settings, User};
use view::View;
use watch::Watchers;

/// The state of the process space.
pub struct Core {
    settings: Settings,
    now: Instant,
    /// See [`Core::is_gathering`].
    gathers_until: Instant,
    clients: HashMap<ClientId, Client>,
    /// Those of them that run on nodes, by the processes that they are there.
    askers: BTreeSet<(ProcId, ClientId)>,
    nodes: BTreeMap<NodeNumber, Node>,
    launches: BTreeMap<LaunchId, Launch>,
    processes: BTreeMap<ProcId, Process>,
    /// Processes by the number of their ghost.
    by_pid: BTreeMap<u32, ProcId>,
    /// Processes by the pin read in which their ghost sleeps.
    by_read: HashMap<u64, ProcId>,
    /// Launches by the number of their pin file.
    by_file: HashMap<u64, LaunchId>,
    /// Living processes by their number on their node.
    by_node_pid: HashMap<(NodeNumber, u32), ProcId>,
    /// Forked processes whose ghosts have not come yet.
    unborn: BTreeSet<ProcId>,
    /// Ghosts that could not join their process's group yet, and how often they try still.
    strays: BTreeMap<ProcId, u16>,
    /// How those of them have ended whose ghosts are to get to their places before, and the ticks that they have for it.
    late_ends: BTreeMap<ProcId, (WaitStatus, u8)>,
    /// Those that have tried in vain for long.
    unplaced: BTreeSet<ProcId>,
    /// The groups of launched processes on their nodes: of which launches, and the launchers' group.
    homes: HashMap<(NodeNumber, u32), (BTreeSet<LaunchId>, u32)>,
    /// Group signals that were sent on lately: the sender's call, node and group there.
    /// Each with the processes whose ghosts have told of it.
    group_calls: VecDeque<((u64, NodeNumber, u32), BTreeSet<ProcId>)>,
    /// Ghosts that send signals for their processes, by their numbers: the node, where the group has it already.
    acting: HashMap<u32, NodeNumber>,
    /// Ghosts that are awake and should not be: looked at again at each tick.
    restless: BTreeSet<ProcId>,
    /// Launches whose nodes are to be told of the ranks on others, and when.
    beside: BTreeMap<LaunchId, Instant>,
    /// Launchers that are being continued, and how often still: one may have decided to stop just before.
    waking: BTreeMap<LaunchId, u8>,
    /// Launchers that end with what they launched as soon as its output is told; ticks until they have to tell it themselves.
    dying: BTreeMap<LaunchId, u8>,
    /// Nodes that were told to go, and who waits for them to.
    power_orders: BTreeMap<u64, power::PowerOrder>,
    watchers: Watchers,
    changes: changes::Pace,
    view: View,
    nice: Nice,
    /// The newest record of a signal, those below which nothing comes again, and those below which soon nothing will.
    last_record: u64,
    settled: u64,
    next_settled: u64,
    /// Names signals of which no record tells.
    unrecorded: u64,
    next_id: u64,
    next_epoch: u64,
    ending: bool,
    counts: Counts,
    actions: Vec<Action>,
}

impl Core {
    pub fn new(settings: Settings) -> Core {
        Core {
            next_epoch: settings.epoch,
            view: View::new(settings.view),
            nice: Nice::default(),
            power_orders: BTreeMap::new(),
            watchers: Watchers::default(),
            changes: changes::Pace::default(),
            unrecorded: settings.epoch.rotate_left(32),
            next_id: settings.first_id,
            settings,
            now: Instant::ZERO,
            gathers_until: Instant::ZERO,
            clients: HashMap::new(),
            askers: BTreeSet::new(),
            nodes: BTreeMap::new(),
            launches: BTreeMap::new(),
            processes: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            by_read: HashMap::new(),
            by_file: HashMap::new(),
            by_node_pid: HashMap::new(),
            unborn: BTreeSet::new(),
            strays: BTreeMap::new(),
            late_ends: BTreeMap::new(),
            unplaced: BTreeSet::new(),
            homes: HashMap::new(),
            group_calls: VecDeque::new(),
            acting: HashMap::new(),
            restless: BTreeSet::new(),
            beside: BTreeMap::new(),
            waking: BTreeMap::new(),
            dying: BTreeMap::new(),
            last_record: 0,
            settled: 0,
            next_settled: 0,
            ending: false,
            counts: Counts::default(),
            actions: Vec::new(),
        }
    }

    /// Takes an event at a time; gives what is to be done, in this order. `directory` answers who may use which node.
    pub fn handle(&mut self, event: Event, now: Instant, directory: &dyn Directory) -> Vec<Action> {
        self.now = now;
        match event {
            Event::ClientJoined { client, user } => self.client_joined(client, user),
            Event::ClientRelayed { client, user, process } => self.client_relayed(client, user, process),
            Event::ClientSaid { client, message } => self.client_said(client, message, directory),
            Event::ClientData { client, data } => self.client_data(client, data),
            Event::Resume { client, launch, message } => self.resume(client, launch, message),
            Event::Found(found) => self.found(found),
            Event::ClientGone { client } => self.client_gone(client),
            Event::Above { client, origin } => self.above(client, origin),
            Event::AboveLaunch { launch, origin } => self.above_launch(launch, origin),
            Event::PinOpened { client, file } => self.pin_opened(client, file),
            Event::NodeConnected { node, link, hello, address } => self.node_connected(node, link, hello, address),
            Event::NodeSaid { node, link, message } => self.node_said(node, link, message),
            Event::NodeData { node, link, data } => self.node_data(node, link, data),
            Event::NodeDisconnected { node, link } => self.node_disconnected(node, link),
            Event::NodeDismissed { node } => self.node_dismissed(node),
            Event::PinRead { token, file, pid, offset } => self.pin_read(token, file, pid, offset),
            Event::PinInterrupted { unique } => self.pin_interrupted(unique),
            Event::Adopted { process, ok, pgid } => self.ghost_adopted(process, ok, pgid),
            Event::GroupIs { process, pgid } => self.group_is(process, pgid),
            Event::Withdrawn { process, in_time } => self.birth_withdrawn(process, in_time),
            Event::Signal(record) => self.signal_seen(record),
            Event::GhostExited { ghost, launcher, pid } => self.ghost_exited(ghost, launcher, pid),
            Event::GhostState { process, signals, exited } => self.ghost_state(process, signals, exited),
            Event::Looked(what) => self.looked(what),
            Event::AgentSaid { node, link, message } => self.agent_said(node, link, message),
            Event::ViewUp => self.view_up(),
            Event::ViewDown => self.view_down(),
            Event::ViewSwitched { on } => self.view_switched(on),
            Event::GhostHidden { process } => self.view_hidden(process),
            Event::GhostNotShown { process } => self.view_not_shown(process),
            Event::NiceSeen { values } => self.nice_seen(&values),
            Event::NodesChanged(change) => self.nodes_changed(*change),
            Event::NodeUpSwitched { on } => self.settings.node_up = on,
            Event::NodeUpEnded { node, run, outcome } => self.node_up_ended(node, run, outcome),
            Event::Tick => {
                self.tick();
                self.look_for_watchers(directory);
            }
            Event::End => self.end(),
        }
        std::mem::take(&mut self.actions)
    }

    /// Everything has ended and all ghosts have been told: the daemon may go.
    pub fn is_over(&self) -> bool {
        self.ending && self.processes.values().all(|p| p.ghost.is_settled())
    }

    /// Whether [`Event::Tick`] is wanted every 20 ms or so rather than every few hundred.
    pub fn is_restless(&self) -> bool {
        !self.restless.is_empty()
            || !self.beside.is_empty()
            || !self.waking.is_empty()
            || !self.dying.is_empty()
            || !self.unborn.is_empty()
            || !self.strays.is_empty()
            || !self.late_ends.is_empty()
            || self.view.is_restless()
            || self.ending
    }

    /// Something has begun that another ghostd could not go on with: a command, other than this one, has not asked for
    /// anything yet, or what it launched has not been started.
    pub fn is_starting(&self, except: ClientId) -> bool {
        let fresh = |(id, client): (&ClientId, &Client)| {
            *id != except && client.launch.is_none() && !self.watchers.contains(*id)
        };
        let starting =
            |process: &Process| process.is_launched() && matches!(process.remote, Remote::Planned | Remote::Asked);
        self.clients.iter().any(fresh) || self.processes.values().any(starting)
    }

    /// Nodes that are up, and processes that live.
    pub fn figures(&self) -> (usize, usize) {
        (self.nodes.values().filter(|n| n.link.is_some()).count(), self.by_pid.len())
    }

    /// Ghosts whose pending signals have to be read after records were lost: process and PID.
    pub fn watched_ghosts(&self) -> Vec<(ProcId, u32)> {
        self.by_pid.iter().map(|(&pid, &process)| (process, pid)).collect()
    }

    /// Tables that hold something only while a command, a launch or a ghost is there, and do, with the number of their entries.
    #[cfg(test)]
    fn filled_tables(&self) -> Vec<(&'static str, usize)> {
        let all = [
            ("clients", self.clients.len()),
            ("askers", self.askers.len()),
            ("launches", self.launches.len()),
            ("processes", self.processes.len()),
            ("by_pid", self.by_pid.len()),
            ("by_read", self.by_read.len()),
            ("by_file", self.by_file.len()),
            ("by_node_pid", self.by_node_pid.len()),
            ("unborn", self.unborn.len()),
            ("strays", self.strays.len()),
            ("late_ends", self.late_ends.len()),
            ("unplaced", self.unplaced.len()),
            ("homes", self.homes.len()),
            ("acting", self.acting.len()),
            ("restless", self.restless.len()),
            ("beside", self.beside.len()),
            ("waking", self.waking.len()),
            ("dying", self.dying.len()),
            ("view", self.view.table_entries()),
            ("nice", self.nice.table_entries()),
            ("power_orders", self.power_orders.len()),
            ("watchers", self.watchers.len()),
            ("actions", self.actions.len()),
        ];
        all.into_iter().filter(|(_, entries)| *entries > 0).collect()
    }

    /// Nodes that are connected now.
    pub fn connected_nodes(&self) -> Vec<NodeNumber> {
        self.nodes.iter().filter(|(_, n)| n.link.is_some()).map(|(&number, _)| number).collect()
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn tell_client(&mut self, client: ClientId, message: MasterToClient) {
        if self.clients.contains_key(&client) {
            self.act(Action::TellClient { client, message });
        }
    }

    fn refuse(&mut self, client: ClientId, text: impl Into<String>, position: Option<u32>) {
        self.counts.requests_refused += 1;
        self.tell_client(client, MasterToClient::Refused(client::Refused { text: text.into(), position }));
        self.act(Action::CloseClient { client });
    }

    /// To a node that is connected. Nothing is kept for one that is not, or lost on the way to one that goes: all that it
    /// must know follows from these tables when it is back.
    fn tell_node(&mut self, node: NodeNumber, message: MasterToNode) {
        if let Some(link) = self.nodes.get(&node).and_then(|n| n.link) {
            self.act(Action::TellNode { node, link, message });
        }
    }

    /// Gives a ghost what it waits for, now or when it reads next.
    fn answer_ghost(&mut self, id: ProcId, answer: Answer) {
        if self.view_delays(id, answer) {
            return;
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let Some(token) = process.ghost.wake(answer) {
            process.interrupt_wanted = false;
            self.by_read.remove(&token.unique());
            self.act(Action::AnswerGhost { token, answer });
        }
    }
}

//! The clock, the connections, and what happens when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ghost_abi::{Scope, SignalFlags, SignalRecord};
use ghost_proto::client::{ClientToMaster, MasterToClient};
use ghost_proto::frame::Data;
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{MasterToNode, NodeToMaster};
use ghost_proto::status::WaitStatus;

use super::super::super::{Action, Core, Event, LinkId, Settings};
use super::super::FourNodes;
use super::bpsh::Command;
use super::ghosts::{Ghost, Place, Record};
use super::holder::{Node, Truth};
use super::random::Random;

pub const LEASE: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_millis(700);
const FAST_TICK: Duration = Duration::from_millis(20);
const SLOW_TICK: Duration = Duration::from_millis(250);
/// When what has not ended is made to end.
const CURTAIN: Duration = Duration::from_secs(4);
/// By then all must be over: a lease and a margin after the last cut, and the longest of all other delays.
const LIMIT: Duration = Duration::from_secs(40);
const NODES: usize = 4;

pub enum Happening {
    StartCommand(usize),
    Disturb(usize),
    CloseOutput(usize),
    KillCommand(usize),
    FromClient(usize, ClientToMaster),
    DataFromClient(usize, Data),
    ClientGone(usize),
    ToClient(usize, MasterToClient),
    DataToClient(usize, Data),
    PinOpened(usize, u64),
    Written {
        client: usize,
        rank: usize,
        channel: usize,
    },
    GhostStep {
        pid: u32,
        step: u64,
    },
    TakeUp {
        pid: u32,
        unique: u64,
    },
    Interrupted {
        unique: u64,
    },
    GhostSeenDead {
        client: usize,
        rank: u32,
        status: WaitStatus,
    },
    Signal {
        pid: u32,
        signal: u16,
    },
    Drain,
    ConnectNode(usize),
    FromNode(LinkId, NodeToMaster),
    DataFromNode(LinkId, Data),
    ToNode(LinkId, MasterToNode),
    DataToNode(LinkId, Data),
    NodeSeesCut(LinkId),
    MasterSeesCut(LinkId),
    CutNode(usize),
    RestartHolder(usize),
    LookAtLease(usize),
    ViewUp,
    ViewDown,
    GhostHidden(ProcId),
    ProcessStep {
        node: usize,
        proc: u64,
    },
    Lie(usize),
    End,
    Curtain,
    /// All its ghosts were killed long ago.
    HasEnded(usize),
}

/// How often what is to be tested has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub processes: u64,
    pub outcomes: u64,
    pub verdicts: u64,
    pub returns_with_processes: u64,
    pub signals_again: u64,
    pub killed_asleep: u64,
    pub killed_awake: u64,
    pub stopped_asleep: u64,
    pub output: u64,
    pub input: u64,
}

impl Tally {
    pub fn counts(&self) -> [u64; 10] {
        [
            self.processes,
            self.outcomes,
            self.verdicts,
            self.returns_with_processes,
            self.signals_again,
            self.killed_asleep,
            self.killed_awake,
            self.stopped_asleep,
            self.output,
            self.input,
        ]
    }
}

pub struct Chances {
    pub lost_record: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    ToClient(u64),
    FromClient(usize),
    ToNode(LinkId),
    FromNode(LinkId),
    Opener,
}

struct Link {
    node: usize,
    cut: bool,
}

pub struct World {
    pub random: Random,
    pub now: Duration,
    pub core: Core,
    pub chances: Chances,
    pub clients: Vec<Command>,
    pub nodes: Vec<Node>,
    links: BTreeMap<LinkId, Link>,
    pub ghosts: BTreeMap<u32, Ghost>,
    pub readers: BTreeMap<u64, u32>,
    pub ring: VecDeque<(u32, Record)>,
    pub records_lost: bool,
    pub truth: BTreeMap<u64, Truth>,
    by_rank: BTreeMap<(u64, u32), u64>,
    lost: BTreeSet<u64>,
    /// Processes whose ghosts have a view.
    views: BTreeSet<ProcId>,
    pub next_pid: u32,
    pub next_unique: u64,
    /// Numbers of calls are below these.
    pub last_record: u64,
    pub ending: bool,
    happenings: BTreeMap<(Duration, u64), Happening>,
    happened: u64,
    /// When the last control message and the last piece of bulk of a channel arrive.
    channels: BTreeMap<Channel, [Duration; 2]>,
    next: VecDeque<Event>,
    next_tick: Duration,
    pub tally: Tally,
    loud: bool,
}

impl World {
    pub fn new(seed: u64, loud: bool) -> World {
        let settings = Settings {
            epoch: 77,
            lease: LEASE,
            margin: MARGIN,
            program: "ghostd test".into(),
            view: true,
            first_id: 0,
        };
        let mut world = World {
            random: Random::new(seed),
            now: Duration::ZERO,
            core: Core::new(settings),
            chances: Chances { lost_record: 0 },
            clients: Vec::new(),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            readers: BTreeMap::new(),
            ring: VecDeque::new(),
            records_lost: false,
            truth: BTreeMap::new(),
            by_rank: BTreeMap::new(),
            lost: BTreeSet::new(),
            views: BTreeSet::new(),
            next_pid: 100,
            next_unique: 0,
            last_record: 1 << 40,
            ending: false,
            happenings: BTreeMap::new(),
            happened: 0,
            channels: BTreeMap::new(),
            next: VecDeque::new(),
            next_tick: Duration::ZERO,
            tally: Tally::default(),
            loud,
        };
        world.set_scene();
        world
    }

    /// Draws what this run is about; quiet runs find what loud ones hide.
    fn set_scene(&mut self) {
        self.chances.lost_record = self.random.one_of(&[0, 0, 5, 30]);
        for number in 0..NODES {
            let holder = self.random.next() | 1;
            self.nodes.push(Node::new(holder));
            if number < 2 || self.random.percent(60) {
                let delay = self.random.micros(100_000);
                self.after(delay, Happening::ConnectNode(number));
            }
        }
        let cuts = self.random.percent(40);
        let commands = 1 + self.random.below(3) as usize;
        for index in 0..commands {
            let command = self.new_command(index);
            self.clients.push(command);
            let start = Duration::from_millis(100) + self.random.micros(1_500_000);
            self.after(start, Happening::StartCommand(index));
            for _ in 0..self.random.one_of(&[0, 1, 2, 6]) {
                let when = start + self.random.micros(1_500_000);
                self.after(when, Happening::Disturb(index));
                if cuts && self.random.percent(30) {
                    // Right behind a signal, so that it, or its confirmation, is lost.
                    let (node, delay) = (self.random.below(3) as usize, self.random.micros(1_500));
                    self.after(when + delay, Happening::CutNode(node));
                }
            }
            if self.random.percent(20) {
                let when = start + self.random.micros(1_500_000);
                self.after(when, Happening::CloseOutput(index));
            }
            if self.random.percent(25) {
                let most = self.random.one_of(&[3_000, 2_000_000]);
                let when = start + self.random.micros(most);
                self.after(when, Happening::KillCommand(index));
            }
        }
        for _ in 0..self.random.one_of(&[0, 0, 1, 3]) {
            let (node, when) = (self.random.below(NODES as u64) as usize, self.random.micros(3_500_000));
            self.after(when, Happening::CutNode(node));
        }
        if self.random.percent(10) {
            let (node, when) = (self.random.below(2) as usize, self.random.micros(3_000_000));
            self.after(when, Happening::RestartHolder(node));
        }
        for _ in 0..self.random.one_of(&[0, 10]) {
            let (node, when) = (self.random.below(NODES as u64) as usize, self.random.micros(4_000_000));
            self.after(when, Happening::Lie(node));
        }
        if self.random.percent(80) {
            self.after(Duration::ZERO, Happening::ViewUp);
            if self.random.percent(20) {
                let when = self.random.micros(3_000_000);
                self.after(when, Happening::ViewDown);
                self.after(when + Duration::from_millis(300), Happening::ViewUp);
            }
        }
        if self.random.percent(15) {
            let when = self.random.micros(4_000_000);
            self.after(when, Happening::End);
        }
        self.after(CURTAIN, Happening::Curtain);
    }

    pub fn run(mut self) -> Tally {
        while self.now < LIMIT {
            let tick = self.next_tick;
            let first = self.happenings.first_key_value().map(|(&(when, _), _)| when);
            match first {
                Some(when) if when <= tick => {
                    let Some((_, happening)) = self.happenings.pop_first() else { break };
                    self.now = when;
                    self.happen(happening);
                }
                _ => {
                    self.now = tick;
                    self.feed(Event::Tick);
                    self.next_tick = tick + if self.core.is_restless() { FAST_TICK } else { SLOW_TICK };
                    if self.now > CURTAIN && self.is_quiet() {
                        break;
                    }
                }
            }
        }
        self.check_end();
        self.tally
    }

    fn is_quiet(&self) -> bool {
        self.core.table_entries() == 0
            && self.clients.iter().all(|c| c.gone || !c.joined)
            && self.ghosts.values().all(|g| g.place == Place::Dead)
            && self.nodes.iter().all(|n| n.held() == 0)
    }

    fn check_end(&self) {
        for index in 0..self.clients.len() {
            self.check_command(index);
        }
        for (pid, ghost) in &self.ghosts {
            assert!(ghost.place == Place::Dead, "3: ghost {pid} is left: {ghost:?}");
        }
        for (number, node) in self.nodes.iter().enumerate() {
            assert!(node.living().is_empty(), "3: node {number} still runs {:?}", node.living());
            assert!(node.held() == 0, "3: node {number} was never told to forget");
        }
        assert_eq!(self.core.table_entries(), 0, "3: the core's tables are not empty");
        assert!(self.views.is_empty(), "3: views of {:?} were never taken off", self.views);
        assert!(!self.ending || self.core.is_over());
    }

    pub fn after(&mut self, delay: Duration, happening: Happening) {
        self.happened += 1;
        self.happenings.insert((self.now + delay, self.happened), happening);
    }

    /// As [`World::after`], but never before what was sent on this channel earlier.
    fn send(&mut self, channel: Channel, happening: Happening) {
        let at = self.now + self.random.delay();
        let [control, bulk] = self.channels.entry(channel).or_default();
        let delay = match happening {
            // Control overtakes bulk, never the other way.
            Happening::DataToClient(..) | Happening::DataToNode(..) | Happening::DataFromNode(..) => {
                *bulk = at.max(*bulk).max(*control);
                *bulk - self.now
            }
            _ => {
                *control = at.max(*control);
                *control - self.now
            }
        };
        self.after(delay, happening);
    }

    pub fn feed_next(&mut self, event: Event) {
        self.next.push_back(event);
    }

    /// An event, and those that follow from it at once.
    pub fn feed(&mut self, event: Event) {
        self.next.push_back(event);
        while let Some(event) = self.next.pop_front() {
            if self.loud && !matches!(event, Event::Tick | Event::NodeData { .. } | Event::ClientData { .. }) {
                println!("{:?} {event:?}", self.now);
            }
            for action in self.core.handle(event, self.now, &FourNodes) {
                if self.loud && !matches!(action, Action::SendClient { .. } | Action::SendNode { .. }) {
                    println!("    {action:?}");
                }
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::TellClient { client, message } | Action::Launched { client, message } => {
                let index = client.0 as usize - 1;
                if let MasterToClient::Ended(ended) = &message
                    && ended.lost
                {
                    self.check_verdict(index, ended.rank);
                }
                self.send(Channel::ToClient(client.0), Happening::ToClient(index, message));
            }
            Action::SendClient { client, data } => {
                self.send(Channel::ToClient(client.0), Happening::DataToClient(client.0 as usize - 1, data));
            }
            Action::CloseClient { client } => self.client_closes(client.0 as usize - 1),
            Action::TellNode { link, message, .. } => {
                if let MasterToNode::Spawn(spawn) = &message {
                    self.by_rank.insert((spawn.launch, spawn.rank), spawn.proc);
                }
                self.send(Channel::ToNode(link), Happening::ToNode(link, message));
            }
            Action::SendNode { link, data, .. } => self.send(Channel::ToNode(link), Happening::DataToNode(link, data)),
            Action::CloseNode { link, .. } => self.cut(link),
            Action::OpenPin { client, launch } => {
                self.clients[client.0 as usize - 1].launch = launch.0;
                self.send(Channel::Opener, Happening::PinOpened(client.0 as usize - 1, launch.0 + 500));
            }
            Action::Adopt { process, token, pid, .. } => self.attach(process, token, pid),
            Action::Beget { .. } | Action::Withdraw { .. } => unreachable!("nothing forks here"),
            Action::AnswerGhost { token, answer } => self.answer(token.unique(), Some(answer)),
            Action::InterruptGhost { token } => self.answer(token.unique(), None),
            Action::RefuseRead { token } => self.refuse_read(token.unique()),
            Action::ContinueGhost { process, pid } => self.continue_ghost(process, pid),
            Action::ShowGhost { process, .. } => assert!(self.views.insert(process), "shown twice: {process:?}"),
            Action::HideGhost { process } => {
                assert!(self.views.remove(&process), "hidden without being shown: {process:?}");
                // Sometimes the guard is too late.
                let delay = if self.random.percent(90) { self.random.delay() } else { Duration::from_secs(1) };
                self.after(delay, Happening::GhostHidden(process));
            }
            // Nobody looks.
            Action::TellAgent { .. } | Action::Figures { .. } => {}
            // bpsh is never stopped here.
            Action::ContinueLauncher { .. }
            | Action::ContinueAbsent { .. }
            | Action::NoteNode { .. }
            | Action::Admin { .. } => {}
        }
    }

    fn check_verdict(&mut self, index: usize, rank: u32) {
        if let Some(&proc) = self.by_rank.get(&(self.clients[index].launch, rank)) {
            self.lost.insert(proc);
            self.tally.verdicts += 1;
            assert!(self.ending || !self.lives(proc), "2: process {proc} is declared lost while it lives");
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::StartCommand(index) => self.start_command(index),
            Happening::Disturb(index) => self.disturb(index),
            Happening::CloseOutput(index) if !self.clients[index].gone => self.close_output(index),
            Happening::CloseOutput(_) => {}
            Happening::KillCommand(index) => self.kill_command(index),
            Happening::FromClient(index, message) => {
                self.feed(Event::ClientSaid { client: self.clients[index].id, message });
            }
            Happening::DataFromClient(index, data) => {
                self.feed(Event::ClientData { client: self.clients[index].id, data });
                self.check_input(index);
            }
            Happening::ClientGone(index) => self.feed(Event::ClientGone { client: self.clients[index].id }),
            Happening::ToClient(index, message) => self.client_hears(index, message),
            Happening::DataToClient(index, data) => self.client_receives(index, &data),
            Happening::PinOpened(index, file) => {
                self.clients[index].file = file;
                self.feed(Event::PinOpened { client: self.clients[index].id, file });
            }
            Happening::Written { client, rank, channel } => self.written(client, rank, channel),
            Happening::GhostStep { pid, step } => self.ghost_step(pid, step),
            Happening::TakeUp { pid, unique } => self.take_up(pid, unique),
            Happening::Interrupted { unique } => self.interrupted(unique),
            Happening::GhostSeenDead { client, rank, status } => self.ghost_seen_dead(client, rank, status),
            Happening::Signal { pid, signal } => self.signal_ghost(pid, signal, Scope::Process, 0),
            Happening::Drain => self.drain_ring(),
            Happening::ViewUp => self.feed(Event::ViewUp),
            Happening::ViewDown => {
                self.views.clear();
                self.feed(Event::ViewDown);
            }
            Happening::GhostHidden(process) => self.feed(Event::GhostHidden { process }),
            Happening::ConnectNode(number) => self.connect_node(number),
            Happening::FromNode(link, message) => self.master_hears(link, message),
            Happening::DataFromNode(link, data) => {
                if let Some(number) = self.uncut(link) {
                    self.feed_node_data(number, link, data);
                }
            }
            Happening::ToNode(link, message) => {
                if let Some(number) = self.uncut(link) {
                    self.node_hears(number, link, message);
                }
            }
            Happening::DataToNode(link, data) => {
                if let Some(number) = self.uncut(link) {
                    self.node_receives(number, link, &data);
                }
            }
            Happening::NodeSeesCut(link) => self.node_unlinked(self.links[&link].node, link),
            Happening::MasterSeesCut(link) => {
                let node = NodeNumber(self.links[&link].node as i32);
                self.feed(Event::NodeDisconnected { node, link });
            }
            Happening::CutNode(number) => {
                let length = self.random.one_of(&[1, 50, 1_000, 2_500, 3_500, 6_000]);
                self.nodes[number].cut_until = self.now + Duration::from_millis(length);
                if let Some(link) = self.nodes[number].link {
                    self.cut(link);
                }
            }
            Happening::RestartHolder(number) => self.restart_holder(number),
            Happening::LookAtLease(number) => self.look_at_lease(number),
            Happening::ProcessStep { node, proc } => self.process_step(node, proc),
            Happening::Lie(number) => self.lie(number),
            Happening::End => {
                self.ending = true;
                self.feed(Event::End);
            }
            Happening::Curtain => self.curtain(),
            Happening::HasEnded(index) => self.check_command(index),
        }
    }

    /// Everything that is left is ended in one of the ways in which users do that.
    fn curtain(&mut self) {
        for index in 0..self.clients.len() {
            if self.random.percent(50) {
                self.kill_ghosts(index);
                self.after(Duration::from_secs(12), Happening::HasEnded(index));
            } else {
                self.kill_command(index);
            }
        }
    }

    pub fn client_says(&mut self, index: usize, message: ClientToMaster) {
        if !self.clients[index].gone {
            self.send(Channel::FromClient(index), Happening::FromClient(index, message));
        }
    }

    pub fn client_sends(&mut self, index: usize, data: Data) {
        self.send(Channel::FromClient(index), Happening::DataFromClient(index, data));
    }

    pub fn client_closes(&mut self, index: usize) {
        if !std::mem::replace(&mut self.clients[index].gone, true) {
            self.send(Channel::FromClient(index), Happening::ClientGone(index));
        }
    }

    /// Of what bpsh is sent itself only these concern the core.
    pub fn signal_launcher(&mut self, index: usize, signal: u16, scope: Scope) {
        let command = &self.clients[index];
        if command.gone || command.launch == 0 {
            return;
        }
        self.last_record += 1;
        let record = SignalRecord {
            kind: 1,
            flags: SignalFlags::LAUNCHER,
            ghost: command.launch,
            seq: self.last_record,
            call: 0,
            value: 0,
            sig: signal,
            scope: scope as u16,
            si_code: 0,
            sender_pid: 1,
            sender_uid: 1000,
            sender_euid: 1000,
            pgid: 0,
        };
        let pid = command.pid;
        self.push_record(pid, Record::Signal(record));
    }

    pub fn new_link(&mut self, number: usize) -> LinkId {
        let link = LinkId(self.links.len() as u64 + 1);
        self.links.insert(link, Link { node: number, cut: false });
        link
    }

    /// What is on its way is lost; both ends notice sooner or later.
    pub fn cut(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if std::mem::replace(&mut state.cut, true) {
            return;
        }
        let delay = self.random.delay();
        self.after(delay, Happening::NodeSeesCut(link));
        let delay = if self.random.percent(20) { self.random.micros(2_500_000) } else { self.random.delay() };
        self.after(delay, Happening::MasterSeesCut(link));
    }

    fn uncut(&self, link: LinkId) -> Option<usize> {
        self.links.get(&link).filter(|l| !l.cut).map(|l| l.node)
    }

    pub fn node_says(&mut self, number: usize, message: NodeToMaster) {
        if let Some(link) = self.nodes[number].link {
            self.send(Channel::FromNode(link), Happening::FromNode(link, message));
        }
    }

    pub fn node_sends(&mut self, number: usize, data: Data) {
        if let Some(link) = self.nodes[number].link {
            self.send(Channel::FromNode(link), Happening::DataFromNode(link, data));
        }
    }

    fn master_hears(&mut self, link: LinkId, message: NodeToMaster) {
        let Some(number) = self.uncut(link) else { return };
        match message {
            NodeToMaster::Hello(hello) => {
                self.tally.returns_with_processes += u64::from(!hello.processes.is_empty());
                let (node, address) = (NodeNumber(number as i32), std::net::Ipv4Addr::LOCALHOST.into());
                self.feed(Event::NodeConnected { node, link, hello, address });
            }
            message => self.feed_node_message(number, link, message),
        }
    }

    pub fn feed_node_message(&mut self, number: usize, link: LinkId, message: NodeToMaster) {
        self.feed(Event::NodeSaid { node: NodeNumber(number as i32), link, message });
    }

    pub fn feed_node_data(&mut self, number: usize, link: LinkId, data: Data) {
        self.feed(Event::NodeData { node: NodeNumber(number as i32), link, data });
    }

    pub fn lives(&self, proc: u64) -> bool {
        self.nodes.iter().any(|node| node.lives(proc))
    }

    pub fn was_lost(&self, proc: u64) -> bool {
        self.lost.contains(&proc) || self.truth.get(&proc).is_none_or(|truth| truth.vanished)
    }

    pub fn proc_of(&self, launch: u64, rank: u32) -> Option<u64> {
        self.by_rank.get(&(launch, rank)).copied()
    }

    pub fn core_process(&self, proc: u64) -> String {
        format!("{:?}", self.core.processes.get(&ProcId(proc)))
    }

    fn check_input(&self, index: usize) {
        for launch in self.core.launches.values() {
            let kept: usize = launch.stdin.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
            // A piece is kept whole until its last byte is acknowledged.
            assert!(kept <= launch.window as usize + 60_000, "5: {kept} bytes of input of command {index} are kept");
        }
    }
}

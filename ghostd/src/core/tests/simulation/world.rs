//! The clock, what a run is about, what happens when, and what must be true at the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ghost_abi::Scope;
use ghost_proto::client::{ClientToMaster, MasterToClient};
use ghost_proto::frame::Data;
use ghost_proto::ids::ProcId;
use ghost_proto::node::MasterToNode;
use ghost_proto::status::WaitStatus;

use super::super::super::launches::LARGEST_WINDOW;
use super::super::super::{Event, LinkId};
use super::bpsh::Command;
use super::ghosts::{Ghost, Place, Record};
use super::machine::Truth;
use super::master::{Kept, Master};
use super::network::{Channel, Link, Socket};
use super::node::Node;
use super::plants::Plant;
use super::random::Random;
use super::relay::Relay;
use super::tally::Tally;

pub const LEASE: Duration = Duration::from_secs(2);
pub const MARGIN: Duration = Duration::from_millis(700);
const FAST_TICK: Duration = Duration::from_millis(20);
const SLOW_TICK: Duration = Duration::from_millis(250);
/// When what has not ended is made to end.
const CURTAIN: Duration = Duration::from_secs(4);
/// By then all must be over: a lease and a margin after the last cut, and the longest of all other delays.
const LIMIT: Duration = Duration::from_secs(60);
const NODES: usize = 4;

pub enum Happening {
    StartCommand(usize),
    Disturb(usize),
    CloseOutput(usize),
    KillCommand(usize),
    FromClient(u64, ClientToMaster),
    DataFromClient(u64, Data),
    ClientGone(u64),
    ToClient(u64, MasterToClient),
    DataToClient(u64, Data),
    /// ghostd has closed a connection; or has died.
    ClientClosed(u64),
    ConnectionLost(u64),
    ComeBack(usize),
    LauncherReaped(usize),
    PinOpened(u64, u64),
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
    /// nodeagent has bytes for ghostd; they have arrived.
    AgentSends(LinkId),
    FromNode(LinkId, Bytes),
    ToNode(LinkId, MasterToNode),
    DataToNode(LinkId, Data),
    NodeSeesCut(LinkId),
    MasterSeesCut(LinkId),
    CutNode(usize),
    CutOneWay(usize),
    KillAgent(usize),
    KillHolder(usize),
    HolderTick(usize),
    ChildChanged {
        node: usize,
        pid: u32,
    },
    ProcessStep {
        node: usize,
        pid: u32,
    },
    /// The holder reads what the kernel programs have seen; or compares all processes with what it knows.
    FollowTree(usize),
    CompareTree(usize),
    /// By now it must have a ghost, if all was well.
    HasGhost {
        node: usize,
        pid: u32,
    },
    ViewUp,
    ViewDown,
    GhostHidden {
        generation: u64,
        process: ProcId,
    },
    Lie(usize),
    End,
    GhostdDies,
    GhostdBegins,
    Curtain,
    /// What has outlived its command is killed by hand.
    KillAll,
    /// All its ghosts were killed long ago.
    HasEnded(usize),
}

impl Happening {
    /// Somebody may have to do without something for a while.
    fn disturbs(&self) -> bool {
        use Happening::*;
        matches!(
            self,
            Disturb(_)
                | KillCommand(_)
                | Signal { .. }
                | CutNode(_)
                | CutOneWay(_)
                | KillAgent(_)
                | KillHolder(_)
                | MasterSeesCut(_)
                | ConnectNode(_)
                | GhostdDies
                | GhostdBegins
                | ConnectionLost(_)
                | ComeBack(_)
                | End
                | Curtain
        )
    }
}

pub struct Chances {
    pub lost_record: u64,
    /// Records that are kept before those are thrown away that nobody waits for.
    pub records_kept: usize,
    /// How far apart the numbers of two records are at most.
    pub record_step: u64,
    /// Processes do not end by themselves, and are sent nothing that ends them.
    pub endless: bool,
    /// Processes fork.
    pub forks: bool,
    /// How long a process may be without a ghost when nothing is in its way.
    pub ghost_within: Duration,
}

pub struct World {
    pub random: Random,
    pub now: Duration,
    pub chances: Chances,
    // ghostd
    pub master: Master,
    pub kept: Kept,
    pub generation: u64,
    pub down: bool,
    pub down_since: Duration,
    /// It dies after so many more steps.
    pub doomed: Option<u32>,
    pub ending: bool,
    pub next_tick: Duration,
    /// When somebody was last killed, cut off, stopped or signalled; and when it was last no user who did that.
    pub disturbed: Duration,
    pub broken: Duration,
    // the others
    pub clients: Vec<Command>,
    pub nodes: Vec<Node>,
    // connections
    pub links: BTreeMap<LinkId, Link>,
    pub relays: BTreeMap<LinkId, Relay>,
    pub sockets: BTreeMap<u64, Socket>,
    pub connections: u64,
    /// When the last control message and the last piece of bulk of a channel arrive.
    pub channels: BTreeMap<Channel, [Duration; 2]>,
    // the master's kernel
    pub ghosts: BTreeMap<u32, Ghost>,
    pub readers: BTreeMap<u64, u32>,
    pub ring: VecDeque<(u32, Record)>,
    /// Records that found no room, in all.
    pub dropped: u64,
    pub next_pid: u32,
    pub next_unique: u64,
    pub last_record: u64,
    /// Tells signals apart.
    pub last_value: u64,
    // what is true
    pub truth: BTreeMap<u64, Truth>,
    pub by_rank: BTreeMap<(u64, u32), u64>,
    pub lost: BTreeSet<u64>,
    happenings: BTreeMap<(Duration, u64), Happening>,
    happened: u64,
    pub tally: Tally,
    /// Real-time signals that ghosts got: for which process, by what to tell them apart, when.
    pub sent: Vec<(u64, u64, Duration)>,
    pub planted: Option<Plant>,
    pub loud: bool,
}

impl World {
    pub fn new(seed: u64, loud: bool) -> World {
        let mut world = World {
            random: Random::new(seed),
            now: Duration::ZERO,
            chances: Chances {
                lost_record: 0,
                records_kept: 100,
                record_step: 1,
                endless: false,
                forks: false,
                ghost_within: Duration::from_secs(3),
            },
            master: Master::new(77, 0, Duration::ZERO),
            kept: Kept::default(),
            generation: 0,
            down: false,
            down_since: Duration::ZERO,
            doomed: None,
            ending: false,
            next_tick: Duration::ZERO,
            disturbed: Duration::ZERO,
            broken: Duration::ZERO,
            clients: Vec::new(),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            relays: BTreeMap::new(),
            sockets: BTreeMap::new(),
            connections: 0,
            channels: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            readers: BTreeMap::new(),
            ring: VecDeque::new(),
            dropped: 0,
            next_pid: 100,
            next_unique: 0,
            last_record: 1 << 40,
            last_value: 0,
            truth: BTreeMap::new(),
            by_rank: BTreeMap::new(),
            lost: BTreeSet::new(),
            happenings: BTreeMap::new(),
            happened: 0,
            tally: Tally::default(),
            sent: Vec::new(),
            planted: None,
            loud,
        };
        world.set_scene();
        world
    }

    /// Draws what this run is about; quiet runs find what loud ones hide.
    fn set_scene(&mut self) {
        self.chances.lost_record = self.random.one_of(&[0, 0, 5, 30]);
        self.chances.records_kept = self.random.one_of(&[0, 3, 10_000]);
        self.chances.record_step = self.random.one_of(&[1, 1, 700]);
        self.chances.forks = self.random.percent(60);
        if self.random.percent(15) {
            self.chances.endless = true;
            self.chances.lost_record = 0;
        }
        if self.random.percent(20) {
            self.random.quick = true;
            self.chances.lost_record = 0;
            self.chances.ghost_within = Duration::from_millis(50);
        }
        for number in 0..NODES {
            let holder = self.random.next() | 1;
            let stands_in = self.random.percent(70);
            self.nodes.push(Node::new(number, holder, stands_in));
            if number < 2 || self.random.percent(60) {
                let delay = self.random.micros(100_000);
                self.after(delay, Happening::ConnectNode(number));
            }
        }
        let cuts = self.random.percent(40);
        let kills = self.random.percent(40);
        let commands = 1 + self.random.below(3) as usize;
        for index in 0..commands {
            let command = self.new_command(index);
            self.clients.push(command);
            let start = Duration::from_millis(100) + self.random.micros(1_500_000);
            self.after(start, Happening::StartCommand(index));
            for _ in 0..self.random.one_of(&[0, 1, 2, 6, 20]) {
                let when = start + self.random.micros(1_500_000);
                self.after(when, Happening::Disturb(index));
                // Right behind a signal, so that it, or its confirmation, is lost.
                if cuts && self.random.percent(30) {
                    let (node, delay) = (self.random.below(3) as usize, self.random.micros(1_500));
                    self.after(when + delay, Happening::CutNode(node));
                }
                if kills && self.random.percent(30) {
                    let delay = self.random.micros(5_000);
                    self.after(when + delay, Happening::GhostdDies);
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
            if kills && self.random.percent(30) {
                let most = self.random.one_of(&[3_000, 30_000, 1_000_000]);
                let when = start + self.random.micros(most);
                self.after(when, Happening::GhostdDies);
            }
        }
        for _ in 0..self.random.one_of(&[0, 0, 1, 3]) {
            let (node, when) = (self.random.below(NODES as u64) as usize, self.random.micros(3_500_000));
            let what = self.random.below(6);
            self.after(
                when,
                match what {
                    0..3 => Happening::CutNode(node),
                    3..5 => Happening::KillAgent(node),
                    _ => Happening::CutOneWay(node),
                },
            );
        }
        if self.random.percent(10) {
            let (node, when) = (self.random.below(2) as usize, self.random.micros(3_000_000));
            self.after(when, Happening::KillHolder(node));
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
        if self.random.percent(10) {
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
                Some(when) if when <= tick || self.down => {
                    let Some((_, happening)) = self.happenings.pop_first() else { break };
                    self.now = when;
                    self.happen(happening);
                }
                _ => {
                    self.now = tick;
                    self.tick();
                    self.next_tick = tick + if self.master.core.is_restless() { FAST_TICK } else { SLOW_TICK };
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
        !self.down
            && self.master.core.filled_tables().is_empty()
            && self.clients.iter().all(|c| c.gone || !c.joined)
            && self.ghosts.values().all(|g| g.place == Place::Dead)
            && self.nodes.iter().all(|n| n.is_empty())
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
            assert!(node.held().is_empty(), "3: node {number} was never told to forget {:?}", node.held());
        }
        let core = &self.master.core;
        let tables = core.filled_tables();
        let (launches, processes) = (&core.launches, &core.processes);
        assert!(tables.is_empty(), "3: tables are not empty: {tables:?} {launches:?} {processes:?}");
        let views = &self.master.views;
        assert!(views.is_empty(), "3: views of {views:?} were never taken off");
        assert!(!self.ending || self.master.core.is_over());
    }

    pub fn after(&mut self, delay: Duration, happening: Happening) {
        self.happened += 1;
        self.happenings.insert((self.now + delay, self.happened), happening);
    }

    fn happen(&mut self, happening: Happening) {
        if happening.disturbs() {
            self.disturbed = self.now;
            let users = matches!(
                happening,
                Happening::Disturb(_) | Happening::Signal { .. } | Happening::KillCommand(_) | Happening::Curtain
            );
            if !users {
                self.broken = self.now;
            }
        }
        match happening {
            Happening::StartCommand(index) => self.start_command(index),
            Happening::Disturb(index) => self.disturb(index),
            Happening::CloseOutput(index) if !self.clients[index].gone => self.close_output(index),
            Happening::CloseOutput(_) => {}
            Happening::KillCommand(index) => self.kill_command(index),
            Happening::FromClient(socket, message) => self.master_hears_client(socket, message),
            Happening::DataFromClient(socket, data) => {
                if !self.master.core.launches.is_empty() && self.goes_wrong(Plant::InputHoarded) {
                    let launch = self.master.core.launches.values_mut().next();
                    launch
                        .into_iter()
                        .for_each(|l| l.stdin.pieces.push_back((u64::MAX, vec![0; 2 * LARGEST_WINDOW].into())));
                }
                self.feed(Event::ClientData { client: super::super::super::ClientId(socket), data });
                self.check_memory();
            }
            Happening::ClientGone(socket) => {
                self.feed(Event::ClientGone { client: super::super::super::ClientId(socket) });
            }
            Happening::ToClient(socket, message) => {
                if let Some(index) = self.client_of(socket) {
                    self.client_hears(index, message);
                }
            }
            Happening::DataToClient(socket, data) => {
                if let Some(index) = self.client_of(socket) {
                    self.client_receives(index, &data);
                }
            }
            Happening::ClientClosed(socket) => {
                if let Some(index) = self.client_of(socket) {
                    self.kill_command(index);
                }
            }
            Happening::ConnectionLost(socket) => self.connection_lost(socket),
            Happening::ComeBack(index) => self.come_back(index),
            Happening::LauncherReaped(index) => self.clients[index].reaped = true,
            Happening::PinOpened(socket, file) => {
                if let Some(index) = self.sockets.get(&socket).map(|socket| socket.index) {
                    self.clients[index].file = file;
                }
                self.feed(Event::PinOpened { client: super::super::super::ClientId(socket), file });
            }
            Happening::Written { client, rank, channel } => self.written(client, rank, channel),
            Happening::GhostStep { pid, step } => self.ghost_step(pid, step),
            Happening::TakeUp { pid, unique } => self.take_up(pid, unique),
            Happening::Interrupted { unique } => self.interrupted(unique),
            Happening::GhostSeenDead { client, rank, status } => self.ghost_seen_dead(client, rank, status),
            Happening::Signal { pid, signal } => self.signal_ghost(pid, signal, Scope::Process, 0),
            Happening::Drain => self.drain_ring(),
            Happening::ViewUp => {
                if !self.down && !std::mem::replace(&mut self.master.view_up, true) {
                    self.feed(Event::ViewUp);
                }
            }
            Happening::ViewDown => {
                if !self.down && std::mem::take(&mut self.master.view_up) {
                    self.master.views.clear();
                    self.feed(Event::ViewDown);
                }
            }
            Happening::GhostHidden { generation, process } => {
                if generation == self.generation {
                    self.feed(Event::GhostHidden { process });
                }
            }
            Happening::ConnectNode(number) => self.connect_node(number),
            Happening::AgentSends(link) => self.agent_sends(link),
            Happening::FromNode(link, bytes) => self.master_reads(link, &bytes),
            Happening::ToNode(link, message) => self.node_hears(link, &message),
            Happening::DataToNode(link, data) => self.node_receives(link, &data),
            Happening::NodeSeesCut(link) => self.node_unlinked(link),
            Happening::MasterSeesCut(link) => self.master_sees_cut(link),
            Happening::CutNode(number) => {
                let length = self.random.one_of(&[1, 50, 1_000, 2_500, 3_500, 6_000]);
                self.nodes[number].cut_until = self.now + Duration::from_millis(length);
                if let Some(link) = self.nodes[number].link {
                    self.cut(link);
                }
            }
            Happening::CutOneWay(number) => {
                if let Some(link) = self.nodes[number].link {
                    self.cut_one_way(link);
                }
            }
            Happening::KillAgent(number) => self.kill_agent(number),
            Happening::KillHolder(number) => self.kill_holder(number),
            Happening::HolderTick(number) => self.holder_tick(number),
            Happening::ChildChanged { node, pid } => self.child_changed(node, pid),
            Happening::ProcessStep { node, pid } => self.process_step(node, pid),
            Happening::FollowTree(number) => self.follow_tree(number),
            Happening::CompareTree(number) => self.compare_tree(number),
            Happening::HasGhost { node, pid } => self.check_ghost(node, pid),
            Happening::Lie(number) => self.lie(number),
            Happening::End => {
                if !self.down && self.doomed.is_none() {
                    self.ending = true;
                    self.feed(Event::End);
                }
            }
            Happening::GhostdDies => self.doom(),
            Happening::GhostdBegins => self.take_over(),
            Happening::Curtain => self.curtain(),
            Happening::KillAll => self.kill_all(),
            Happening::HasEnded(index) => self.check_command(index),
        }
    }

    /// Everything that is left is ended in one of the ways in which users do that.
    fn curtain(&mut self) {
        self.check_signals();
        self.after(Duration::from_secs(8), Happening::KillAll);
        for index in 0..self.clients.len() {
            if self.random.percent(50) && self.clients[index].joined {
                self.kill_ghosts(index);
                self.after(Duration::from_secs(16), Happening::HasEnded(index));
            } else {
                self.kill_command(index);
            }
        }
    }

    fn kill_all(&mut self) {
        for pid in self.ghosts.keys().copied().collect::<Vec<_>>() {
            self.signal_ghost(pid, super::ghosts::KILL, Scope::Process, 0);
        }
        self.after(Duration::from_secs(4), Happening::KillAll);
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
        format!("{:?}", self.master.core.processes.get(&ProcId(proc)))
    }

    /// 7: what was sent long enough ago to a process that lives has reached it.
    fn check_signals(&mut self) {
        const LONG: Duration = Duration::from_millis(1_500);
        if self.chances.lost_record > 0 || self.now - self.broken.min(self.now) < LONG || self.down {
            return;
        }
        for (proc, value, at) in std::mem::take(&mut self.sent) {
            let ghost = self.ghosts.values().find(|ghost| ghost.process == Some(proc));
            // One that is stopped has perhaps not acted yet on what had come before.
            let acts = ghost.is_some_and(|ghost| matches!(ghost.place, Place::Asleep(_)) && !ghost.kill_marked);
            for node in &self.nodes {
                let process =
                    node.machine.processes.values().find(|process| process.proc == proc && process.is_alive());
                let reachable = node.link.is_some_and(|link| self.is_whole(link));
                if let Some(process) = process.filter(|_| acts && reachable && self.now - at > LONG) {
                    let came = process.signals.contains(&value);
                    assert!(came, "7: signal number {value} has not reached process {proc}");
                    self.tally.signals_in_time += 1;
                }
            }
        }
    }
}

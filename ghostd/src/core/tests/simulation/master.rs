//! ghostd: its core, what its driver does around it, and how it dies and another one takes over.
//!
//! It can die before any event and before any action. What outlasts it is what the driver gives to the service manager and what the
//! kernel has: tasks' storage, the reads, the ring, the notes, the records that were not confirmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ghost_abi::SignalRecord;
use ghost_proto::client::MasterToClient;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::node::MasterToNode;
use ghost_proto::standin::{Origin, Original};
use ghost_sys::ghost::Answer;

use super::super::super::{Action, Core, Event, Found, FoundGhost, FoundLauncher, Settings};
use super::super::FourNodes;
use super::ghosts::{Ghost, Place};
use super::network::Channel;
use super::plants::Plant;
use super::world::{Happening, LEASE, MARGIN, World};

/// What outlasts ghostd besides the kernel's own.
#[derive(Default)]
pub struct Kept {
    /// Epoch and holder of each node.
    pub nodes: BTreeMap<NodeNumber, (u64, u64)>,
    /// Records of signals that may not have been delivered yet.
    pub signals: BTreeMap<u64, SignalRecord>,
    /// How many lost records have been seen to.
    pub dropped: u64,
}

/// What is above a launch: its launcher leads a group and a session.
fn origin(launcher: u32) -> Origin {
    let launcher = Original { pid: launcher, uid: 1000, comm: "bpsh".into() };
    Origin { parent: launcher.clone(), group: launcher.clone(), session: launcher }
}

/// What is this ghostd's own.
pub struct Master {
    pub core: Core,
    started: Duration,
    events: VecDeque<Event>,
    /// Records that were acted on before the ring is read, and are perhaps in it as well.
    replayed: BTreeSet<u64>,
    /// What was known of lost records when last looked: in all, and of each ghost's signals.
    dropped: u64,
    dropped_of: BTreeMap<ProcId, BTreeMap<u16, u32>>,
    /// Processes whose ghosts have a view.
    pub views: BTreeSet<ProcId>,
    pub view_up: bool,
}

impl Master {
    pub fn new(epoch: u64, generation: u64, now: Duration) -> Master {
        let settings = Settings {
            epoch,
            lease: LEASE,
            margin: MARGIN,
            program: "ghostd test".into(),
            view: true,
            node_up: false,
            first_id: generation << 40,
        };
        Master {
            core: Core::new(settings),
            started: now,
            events: VecDeque::new(),
            replayed: BTreeSet::new(),
            dropped: 0,
            dropped_of: BTreeMap::new(),
            views: BTreeSet::new(),
            view_up: false,
        }
    }
}

impl World {
    pub fn feed_next(&mut self, event: Event) {
        self.master.events.push_back(event);
    }

    /// An event, and those that follow from it at once.
    pub fn feed(&mut self, event: Event) {
        if self.down {
            return;
        }
        self.master.events.push_back(event);
        while let Some(event) = self.master.events.pop_front() {
            if self.loud && !matches!(event, Event::Tick | Event::NodeData { .. } | Event::ClientData { .. }) {
                println!("{:?} {event:?}", self.now);
            }
            if self.dies_here() {
                return;
            }
            let now = self.now - self.master.started;
            for action in self.master.core.handle(event, now, &FourNodes) {
                if self.loud && !matches!(action, Action::SendClient { .. } | Action::SendNode { .. }) {
                    println!("    {action:?}");
                }
                if self.dies_here() {
                    return;
                }
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::TellClient { client, message } => {
                self.check_told(client.0, &message);
                self.tell_client(client.0, message);
            }
            Action::Launched { client, message } => {
                self.check_told(client.0, &message);
                self.tell_client(client.0, message);
                if let Some(index) = self.client_of(client.0) {
                    let origin = origin(self.clients[index].pid);
                    self.feed_next(Event::Above { client, origin });
                }
            }
            Action::SendClient { client, data } => {
                self.send(Channel::ToClient(client.0), Happening::DataToClient(client.0, data));
            }
            Action::CloseClient { client } => self.send(Channel::ToClient(client.0), Happening::ClientClosed(client.0)),
            Action::TellNode { link, message, .. } => {
                if let MasterToNode::Spawn(spawn) = &message {
                    self.by_rank.insert((spawn.launch, spawn.rank), spawn.proc);
                }
                self.tell_node(link, message);
            }
            Action::SendNode { link, data, .. } => self.send(Channel::ToNode(link), Happening::DataToNode(link, data)),
            Action::CloseNode { link, .. } => self.cut(link),
            Action::OpenPin { client, launch } => {
                // The kernel has the command under its launch from here on.
                if let Some(index) = self.client_of(client.0) {
                    self.clients[index].launch = launch.0;
                }
                self.send(Channel::Opener, Happening::PinOpened(client.0, launch.0 + 500));
            }
            Action::Adopt { process, token, pid, parent, tag, .. } => self.attach(process, token, pid, parent, tag),
            Action::Beget { token, .. } if self.goes_wrong(Plant::BirthForgotten) => {
                self.answer(token.unique(), Some(Answer::Again));
            }
            Action::Beget { token, maker, process, birth, tag } => self.beget(token, maker, process, birth, tag),
            Action::Withdraw { process, maker } => self.withdraw(process, maker),
            Action::AskGroup { process, pid } => self.tell_group(process, pid),
            Action::AnswerGhost { answer: Answer::Exit(_) | Answer::Die(_), .. }
                if self.goes_wrong(Plant::GhostForgotten) => {}
            Action::AnswerGhost { token, answer } => self.answer(token.unique(), Some(answer)),
            Action::InterruptGhost { token } => self.answer(token.unique(), None),
            // EPERM: the ghost exits with 125.
            Action::RefuseRead { token } => self.answer(token.unique(), Some(Answer::Exit(125))),
            Action::ContinueGhost { process, pid } => self.continue_ghost(process, pid),
            Action::ShowGhost { process, .. } => {
                assert!(self.master.views.insert(process), "shown twice: {process:?}");
            }
            Action::HideGhost { process } => {
                assert!(self.master.views.remove(&process), "hidden without being shown: {process:?}");
                // Sometimes the guard is too late.
                let delay = if self.random.percent(90) { self.random.delay() } else { Duration::from_secs(1) };
                let generation = self.generation;
                self.after(delay, Happening::GhostHidden { generation, process });
            }
            Action::NoteNode { node, epoch: 0, .. } => {
                self.kept.nodes.remove(&node);
            }
            Action::NoteNode { node, epoch, holder } => {
                self.kept.nodes.insert(node, (epoch, holder));
            }
            // Nobody looks.
            Action::TellAgent { .. } | Action::TellView(_) => {}
            // bpsh is never stopped here.
            // Nobody on a node launches here.
            Action::LookAbove { .. } | Action::Serve { .. } => {}
            Action::ContinueLauncher { .. }
            | Action::KillLauncher { .. }
            | Action::ContinueAbsent { .. }
            | Action::NoteStage { .. }
            | Action::RunNodeUp { .. }
            | Action::StopNodeUp { .. }
            | Action::ChangeNodes(_)
            | Action::TellMetrics { .. }
            | Action::Admin { .. } => {}
        }
    }

    fn check_told(&mut self, socket: u64, message: &MasterToClient) {
        let (rank, lost) = match message {
            MasterToClient::Ended(ended) => (ended.rank, ended.lost),
            MasterToClient::StartFailed(failed) => (failed.rank, false),
            _ => return,
        };
        let Some(index) = self.sockets.get(&socket).map(|socket| socket.index) else { return };
        let Some(&proc) = self.by_rank.get(&(self.clients[index].launch, rank)) else { return };
        if lost {
            self.lost.insert(proc);
            self.tally.verdicts += 1;
        }
        assert!(self.ending || !self.lives(proc), "2: process {proc} is declared dead while it lives");
    }

    pub fn tick(&mut self) {
        self.feed(Event::Tick);
        if self.down {
            return;
        }
        self.check_memory();
        let open = self.master.core.open_signals();
        let large = self.kept.signals.len() > self.chances.records_kept;
        let number = |record: &SignalRecord| if record.call == 0 { record.seq } else { record.seq.min(record.call) };
        let settled = self.kept.signals.values().any(|record| number(record) < self.master.core.settled());
        if open.is_empty() || large || settled {
            let wanted =
                |record: &SignalRecord| open.contains(&record.seq) || record.call != 0 && open.contains(&record.call);
            self.kept.signals.retain(|_, record| wanted(record));
        }
    }

    /// The ring is read before every event of the pin.
    pub fn drain_ring(&mut self) {
        while let Some(&(pid, record)) = self.ring.front() {
            if self.down {
                return;
            }
            match record {
                super::ghosts::Record::Signal(signal) => {
                    if !self.master.replayed.contains(&signal.seq) {
                        self.kept.signals.insert(signal.seq, signal);
                    }
                    if self.dies_here() {
                        return;
                    }
                    self.ring.pop_front();
                    if let Some(ghost) = self.ghosts.get_mut(&pid) {
                        ghost.kill_told |= u32::from(signal.sig) == nix::libc::SIGKILL as u32;
                    }
                    if !self.master.replayed.remove(&signal.seq) {
                        self.feed(Event::Signal(signal));
                    }
                }
                super::ghosts::Record::Exit { ghost, launcher } => {
                    self.ring.pop_front();
                    self.feed(Event::GhostExited { ghost, launcher, pid });
                }
            }
        }
        if !self.down && self.master.dropped != self.dropped {
            self.read_dropped();
        }
    }

    /// Records were lost: what the kernel counted instead.
    fn read_dropped(&mut self) {
        self.master.dropped = self.dropped;
        for (process, pid) in self.master.core.watched_ghosts() {
            let Some(ghost) = self.ghosts.get_mut(&pid).filter(|g| g.process == Some(process.0) && !g.reaped) else {
                self.feed(Event::GhostExited { ghost: process.0, launcher: false, pid });
                continue;
            };
            let before = self.master.dropped_of.insert(process, ghost.dropped.clone()).unwrap_or_default();
            let grown = ghost.dropped.iter().filter(|(signal, count)| before.get(signal) != Some(count));
            let signals = grown.fold(0, |signals, (signal, _)| signals | 1u64 << (signal - 1));
            let exited = ghost.place == Place::Dead;
            ghost.kill_told |= signals & (1 << (nix::libc::SIGKILL - 1)) != 0;
            if signals != 0 || exited {
                self.feed(Event::GhostState { process, signals, exited });
            }
        }
        for process in self.master.core.stopped_unborn() {
            let stands_for = |ghost: &Ghost| ghost.process == Some(process.0) && ghost.place != Place::Dead;
            if !self.ghosts.values().any(stands_for) {
                self.feed(Event::GhostExited { ghost: process.0, launcher: false, pid: 0 });
            }
        }
        for (launch, pid) in self.master.core.absent_launchers() {
            if self.clients.iter().any(|client| client.launch == launch.0 && client.exited) {
                self.feed(Event::GhostExited { ghost: launch.0, launcher: true, pid });
            }
        }
        if !self.down {
            self.kept.dropped = self.master.dropped;
        }
    }

    // ---- death and take-over

    /// kill -9, some steps from here.
    pub fn doom(&mut self) {
        if !self.down && !self.ending {
            let steps = self.random.one_of(&[0, 0, 1, 2, 3, 5, 9]);
            self.doomed = Some(steps);
        }
    }

    pub fn dies_here(&mut self) -> bool {
        match &mut self.doomed {
            Some(0) => {
                self.doomed = None;
                self.die();
                true
            }
            Some(steps) => {
                *steps -= 1;
                false
            }
            None => self.down,
        }
    }

    fn die(&mut self) {
        if self.loud {
            println!("{:?} ghostd dies", self.now);
        }
        self.tally.masters_killed += 1;
        self.down = true;
        self.down_since = self.now;
        self.master.events.clear();
        self.hang_up();
        let delay = self.random.one_of(&[5, 100, 100, 600, 1_500, 3_500]);
        let delay = Duration::from_millis(delay) + self.random.micros(50_000);
        self.after(delay, Happening::GhostdBegins);
    }

    pub fn take_over(&mut self) {
        if self.loud {
            println!("{:?} ghostd begins", self.now);
        }
        self.generation += 1;
        self.down = false;
        self.master = Master::new(self.random.next() | 1, self.generation, self.now);
        self.master.dropped = self.dropped;
        self.resend_reads();
        let found = self.look_around();
        self.feed(Event::Found(found));
        let records: Vec<SignalRecord> = self.kept.signals.values().copied().collect();
        for record in records {
            if self.down {
                return;
            }
            self.master.replayed.insert(record.seq);
            if let Some((_, ghost)) = self.ghosts.iter_mut().find(|(_, g)| g.process == Some(record.ghost)) {
                ghost.kill_told |= u32::from(record.sig) == nix::libc::SIGKILL as u32;
            }
            self.feed(Event::Signal(record));
        }
        if !self.down && self.kept.dropped == self.dropped {
            let states = self.ghosts.values().filter_map(|ghost| Some((ProcId(ghost.process?), ghost.dropped.clone())));
            self.master.dropped_of = states.collect();
        } else if !self.down {
            self.read_dropped();
        }
        self.after(Duration::from_millis(30), Happening::ViewUp);
        self.after(Duration::ZERO, Happening::Drain);
        self.next_tick = self.now + Duration::from_millis(20);
    }

    /// Every task that the kernel has under a process or a launch.
    fn look_around(&self) -> Found {
        let mut found = Found::default();
        for client in self.clients.iter().filter(|client| client.launch != 0 && !client.reaped) {
            let launch = LaunchId(client.launch);
            let (pid, exited) = (client.pid, client.exited);
            let origin = Some(origin(pid));
            found.launchers.push(FoundLauncher { launch, pid, uid: 1000, gid: 1000, exited, origin });
        }
        for (&pid, ghost) in self.ghosts.iter().filter(|(_, ghost)| !ghost.reaped) {
            let Some(process) = ghost.process else { continue };
            found.ghosts.push(FoundGhost {
                process: ProcId(process),
                tag: ghost.tag,
                pid,
                ppid: ghost.parent,
                pgid: ghost.pgid,
                killed: ghost.kill_marked,
                exited: ghost.place == Place::Dead,
            });
        }
        found.nodes = self.kept.nodes.iter().map(|(&node, &(epoch, holder))| (node, epoch, holder)).collect();
        found
    }
}

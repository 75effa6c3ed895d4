//! What the holder does about what happens: a function of its state, an event and the time. No system calls.
//!
//! A process, seen from here:
//! ```text
//! Spawn ── Starting ──┬── Running ──┬── Ended ── Forget
//!                     │             │   Ended is sent at once, then what its pipes held, then each end of file
//!                     ├── Failed ───┼── Forget
//!                     └─────────────┴── lease over, or a Welcome of another epoch: forgotten, and killed
//! ```
//! Invariants:
//! - Nothing of an epoch is told to a master that has another one; its processes get SIGKILL before anything of the new
//!   epoch is looked at.
//! - When the lease is over nothing is done but that: it is looked at before every event.
//! - The signals for one process are sent in the order in which they came, after its program was executed. SIGKILL alone
//!   goes before all others: they do not matter any more.

mod starting;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use ghost_proto::client::StartStage;
use ghost_proto::frame::Data;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::launch::{HOST, Stdio};
use ghost_proto::node::{
    Ack, Continued, Ended, HeldProcess, MasterToNode, NodeHello, NodeToMaster, Scope, Signal, SignalDone, Spawn,
    StartFailed, Started, StdinGone, Stopped, Welcome,
};
use ghost_proto::standin::{self, Sent};
use ghost_proto::status::Usage;
use ghost_proto::stream::BadData;
use ghost_proto::terminal;
use ghost_proto::tree::{Execed, Forked, Reaped, Standing};
use ghost_sys::ring::RingReader;

use super::event::{Action, Creation, Event, Order, TreeEvent};
use super::heard::{Heard, Name};
use super::input::Input;
use super::output::{Output, Piece};
use super::program::{self, NodeLimits};
use super::standins;
use super::tree::{Told, Tree};
use super::upwards::Upwards;

/// A window, whatever is asked for.
const WINDOWS: std::ops::RangeInclusive<u32> = 4096..=4 << 20;
/// Signals that may wait for one process.
const MOST_SIGNALS: usize = 65_536;
/// Real-time signals that the kernel has no room for are tried again this often, and for how long.
const SIGNAL_RETRY: Duration = Duration::from_millis(5);
const SIGNAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long the namespace's processes, killed, may take to be gone before something new is begun regardless: they cannot run
/// any instruction of theirs, but one may sit in a system call that cannot be broken.
const PURGE_PATIENCE: Duration = Duration::from_secs(1);
const KILL: u8 = 9;

#[derive(Debug)]
enum Life {
    Starting,
    Running { directory_errno: u32 },
    Failed { stage: StartStage, errno: u32, text: &'static str },
    Ended { directory_errno: u32, status: i32, usage: Usage },
}

/// A signal that waits.
#[derive(Debug)]
struct Pending {
    order: Order,
    /// The connection and the number to confirm it under.
    confirm: Option<(u64, Name)>,
    give_up: Option<Duration>,
}

/// What there is besides for a process that another one has forked.
#[derive(Debug)]
struct Fork {
    parent: ProcId,
    creator: ProcId,
    standing: Standing,
    /// Who has inherited its children.
    heir: Option<ProcId>,
    reaped: bool,
    /// The master needs its status no more.
    forgotten: bool,
}

#[derive(Debug)]
struct Process {
    launch: LaunchId,
    fork: Option<Fork>,
    uid: u32,
    /// 0: not made.
    pid: u32,
    /// Group and session of a launched one; 0: its own, the holder's.
    pgid: u32,
    sid: u32,
    life: Life,
    stopped: Option<u8>,
    signals: VecDeque<Pending>,
    /// An [`Action::Signal`] is under way.
    sending: bool,
    /// Not before then.
    retry: Option<Duration>,
    input: Input,
    input_gone: bool,
    outputs: [Output; 2],
}

/// The time that is left without word from the master.
#[derive(Clone, Copy, Debug)]
struct Lease {
    length: Duration,
    over: Duration,
}

/// The holder's state.
#[derive(Debug)]
pub struct Core {
    holder: u64,
    hostname: String,
    limits: NodeLimits,
    stands_in: bool,
    enters_host: bool,
    /// 0: none.
    epoch: u64,
    lease: Option<Lease>,
    /// Counts connections; whether there is one, and whether it was welcomed.
    link: u64,
    linked: bool,
    welcomed: bool,
    /// When the master was last told something that it answers: a hello, or an acknowledgement of a lease. What it sends then
    /// it cannot have sent before.
    spoke: Duration,
    processes: BTreeMap<ProcId, Process>,
    by_pid: HashMap<u32, ProcId>,
    tree: Tree,
    retries: BTreeSet<(Duration, ProcId)>,
    /// Signals that came, so that each is sent once.
    heard: Heard,
    /// Signals to stand-ins that the master has not dealt with yet.
    upwards: Upwards,
    /// Everything was killed; nothing new is begun until then, or until nothing is left.
    purge: Option<Duration>,
}

impl Core {
    /// `holder`: a random number; `limits`: what processes here may have.
    pub fn new(holder: u64, hostname: String, limits: NodeLimits) -> Core {
        Core {
            holder,
            hostname,
            limits,
            stands_in: false,
            enters_host: false,
            epoch: 0,
            lease: None,
            link: 0,
            linked: false,
            welcomed: false,
            spoke: Duration::ZERO,
            processes: BTreeMap::new(),
            by_pid: HashMap::new(),
            tree: Tree::default(),
            retries: BTreeSet::new(),
            heard: Heard::default(),
            upwards: Upwards::default(),
            purge: None,
        }
    }

    /// Stand-ins can be made here.
    pub fn stand_in(&mut self) {
        self.stands_in = true;
    }

    /// Programs can be put into the node's own namespaces.
    pub fn enter_host(&mut self) {
        self.enters_host = true;
    }

    /// Whether frames of the master may be given to [`Core::handle`] now.
    pub fn accepts(&self) -> bool {
        self.linked && self.purge.is_none()
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let retry = self.retries.first().map(|(when, _)| *when);
        let held = self.tree.deadline();
        [self.lease.map(|lease| lease.over), self.purge, retry, held].into_iter().flatten().min()
    }

    /// All processes of the namespace that descend from launched ones.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Living processes of a launch that were started for it, not forked by others.
    pub fn living(&self, launch: LaunchId) -> Vec<u32> {
        let lives = |p: &&Process| p.launch == launch && p.fork.is_none() && p.pid != 0 && p.is_alive();
        self.processes.values().filter(lives).map(|p| p.pid).collect()
    }

    /// Whether the holder knows a living process of this launch.
    pub fn launch_lives(&self, launch: LaunchId) -> bool {
        self.processes.values().any(|p| p.launch == launch && p.is_alive())
    }

    /// stdin of a process.
    pub fn input(&self, proc: ProcId) -> Option<&Input> {
        self.processes.get(&proc).map(|p| &p.input)
    }

    /// The ring of a process's stdin is given up.
    pub fn take_out_input(&mut self, proc: ProcId, ring: &RingReader) {
        if let Some(process) = self.processes.get_mut(&proc) {
            process.input.take_out(ring);
        }
    }

    /// stdout (1) or stderr (2) of a process.
    pub fn output(&self, proc: ProcId, fd: u8) -> Option<&Output> {
        self.processes.get(&proc)?.outputs.get(usize::from(fd).checked_sub(1)?)
    }

    /// Takes an event; appends what is to be done about it. `now` is CLOCK_BOOTTIME.
    pub fn handle(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        if matches!(event, Event::Linked | Event::Unlinked) {
            // The end of the lease closes the connection of before, not the one that has just come.
            (self.linked, self.welcomed) = (false, false);
        }
        self.look_at_lease(now, actions);
        match event {
            Event::Linked => {
                self.link += 1;
                self.linked = true;
                self.welcomed = false;
                if self.purge.is_none() {
                    self.greet(now, actions);
                }
            }
            Event::Unlinked => {
                self.linked = false;
                self.welcomed = false;
            }
            Event::Message(message) if self.accepts() => self.message(message, now, actions),
            Event::Data(data) if self.accepts() => {
                self.take_input(data.id, data.fd, actions, |input| input.receive(data))
            }
            Event::InputPlaced(placed) if self.accepts() => {
                self.take_input(placed.id, placed.fd, actions, |input| input.place(&placed));
            }
            Event::Message(_) | Event::Data(_) | Event::InputPlaced(_) => {}
            Event::Created { proc, pid, pgid, sid } => {
                if let Some(process) = self.processes.get_mut(&proc) {
                    (process.pid, process.pgid, process.sid) = (pid, pgid, sid);
                    self.by_pid.insert(pid, proc);
                }
            }
            Event::Executed { proc, directory_errno } => self.executed(proc, directory_errno, actions),
            Event::StartFailed { proc, stage, errno } => self.start_failed(proc, stage, errno, "", actions),
            Event::Read { proc, fd, bytes } => {
                let frame = self.output_mut(proc, fd).map(|output| output.read(bytes));
                self.tell_data(frame, actions);
            }
            Event::Placed { proc, fd, length } => {
                let frame = self.output_mut(proc, fd).map(|output| output.placed(length));
                if self.welcomed {
                    actions.extend(frame.map(Action::SendPlaced));
                }
            }
            Event::OutputOver { proc, fd } => {
                let frame = self.output_mut(proc, fd).and_then(Output::end);
                self.tell_data(frame, actions);
            }
            Event::Written { proc, bytes } => self.written(proc, bytes, actions),
            Event::InputGone { proc } => self.input_gone(proc, actions),
            Event::Signaled { proc, errno } => self.signaled(proc, errno, now, actions),
            Event::Reaped { pid, status, usage } => self.reaped(pid, status, usage, actions),
            Event::Stopped { pid, signal } => self.stopped(pid, Some(signal), actions),
            Event::Continued { pid } => self.stopped(pid, None, actions),
            Event::Tree(event) => self.tree_event(event, now, actions),
            Event::Sent(sent) => self.sent(sent, actions),
            Event::NoChildren => {
                if self.purge.is_some() {
                    self.purged(now, actions);
                }
            }
            Event::Tick => self.tick(now, actions),
        }
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.purge.is_some_and(|over| over <= now) {
            self.purged(now, actions);
        }
        let mut told = Vec::new();
        self.tree.tick(now, &mut told);
        self.tell_tree(told, actions);
        while let Some(&(when, proc)) = self.retries.first()
            && when <= now
        {
            self.retries.pop_first();
            if let Some(process) = self.processes.get_mut(&proc)
                && process.retry == Some(when)
            {
                process.retry = None;
                process.send_signals(proc, actions);
            }
        }
    }

    fn look_at_lease(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.lease.is_some_and(|lease| lease.over <= now) {
            self.purge_all(now, actions);
            // A new beginning: the next master, or this one, sees that all is dead.
            self.epoch = 0;
            self.holder = scramble(self.holder);
            if self.linked {
                self.linked = false;
                self.welcomed = false;
                actions.push(Action::Disconnect("the lease is over".to_owned()));
            }
        }
    }

    /// Kills and forgets everything.
    fn purge_all(&mut self, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::KillEverything);
        for (proc, _) in std::mem::take(&mut self.processes) {
            actions.push(Action::Release { proc });
        }
        self.by_pid.clear();
        self.tree.clear();
        self.retries.clear();
        self.heard.clear();
        self.upwards.clear();
        self.lease = None;
        self.purge = Some(now + PURGE_PATIENCE);
    }

    fn purged(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.purge = None;
        if self.linked && !self.welcomed {
            self.greet(now, actions);
        }
    }

    fn greet(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.spoke = now;
        actions.push(Action::Send(self.hello()));
    }

    fn hello(&self) -> NodeToMaster {
        let held = self.processes.iter().map(|(proc, process)| HeldProcess {
            proc: proc.0,
            pid: process.pid,
            launch: process.launch.0,
            uid: process.uid,
            stdin: process.input.consumed(),
        });
        NodeToMaster::Hello(NodeHello {
            version: ghost_proto::VERSION,
            features: [ghost_proto::node::ROOT]
                .into_iter()
                // A terminal's session is led by a stand-in.
                .chain([standin::FEATURE, terminal::FEATURE].into_iter().filter(|_| self.stands_in))
                .chain(self.enters_host.then_some(HOST))
                .map(str::to_owned)
                .collect(),
            program: concat!("ghostproc ", env!("CARGO_PKG_VERSION")).to_owned(),
            hostname: self.hostname.clone(),
            epoch: self.epoch,
            holder: self.holder,
            processes: held.collect(),
        })
    }

    fn message(&mut self, message: MasterToNode, now: Duration, actions: &mut Vec<Action>) {
        if let MasterToNode::Welcome(welcome) = message {
            self.welcome(&welcome, now, actions);
            return;
        }
        if !self.welcomed {
            self.refuse("the master sent something before its welcome".to_owned(), actions);
            return;
        }
        match message {
            MasterToNode::Welcome(_) => {}
            MasterToNode::Lease(lease) => {
                // However long it was under way, it was sent after the word that it answers.
                if let Some(own) = &mut self.lease {
                    own.over = own.over.max(self.spoke + own.length);
                }
                if !lease.second {
                    self.spoke = now;
                    actions.push(Action::AckLease { seq: lease.seq });
                }
            }
            MasterToNode::Spawn(spawn) => self.spawn(spawn, actions),
            MasterToNode::Signal(signal) => self.signal(&signal, actions),
            MasterToNode::Ack(ack) => {
                let (proc, fd) = (ProcId(ack.proc), u8::try_from(ack.fd).unwrap_or(u8::MAX));
                match self.output_mut(proc, fd).map(|output| output.ack(ack.offset)) {
                    Some(Ok(())) => actions.push(Action::ServeOutput { proc, fd }),
                    Some(Err(why)) => self.refuse(format!("{proc:?}, descriptor {fd}: {why}"), actions),
                    None => {}
                }
            }
            MasterToNode::CloseStream(close) => {
                let (proc, fd) = (ProcId(close.proc), u8::try_from(close.fd).unwrap_or(u8::MAX));
                if let Some(output) = self.output_mut(proc, fd) {
                    output.close();
                    actions.push(Action::ServeOutput { proc, fd });
                }
            }
            MasterToNode::EndLaunch(end) => {
                actions.push(Action::EndLaunch { launch: LaunchId(end.launch), everything: end.everything });
            }
            MasterToNode::Forget(forget) => self.forget(ProcId(forget.proc), actions),
            MasterToNode::SentDone(done) => {
                self.upwards.done(done.seq);
                self.tell_upwards(actions);
            }
            MasterToNode::Beside(beside) => {
                let launch = LaunchId(beside.launch);
                if self.launch_lives(launch) {
                    actions.push(Action::Beside { launch, others: beside.others });
                }
            }
            MasterToNode::Resize(resize) => {
                actions.extend(resize.size.map(|size| Action::Resize { proc: ProcId(resize.proc), size }));
            }
            MasterToNode::EndAll(_) => actions.push(Action::KillEverything),
            MasterToNode::Renice(renice) => {
                let process = self.processes.get(&ProcId(renice.proc));
                if let Some(process) =
                    process.filter(|process| process.pid != 0 && matches!(process.life, Life::Running { .. }))
                {
                    actions.push(Action::Renice { pid: process.pid, nice: renice.nice.clamp(-20, 19) });
                }
            }
        }
    }

    fn refuse(&mut self, why: String, actions: &mut Vec<Action>) {
        self.linked = false;
        self.welcomed = false;
        actions.push(Action::Disconnect(why));
    }

    fn welcome(&mut self, welcome: &Welcome, now: Duration, actions: &mut Vec<Action>) {
        if self.epoch != 0 && self.epoch != welcome.epoch {
            self.purge_all(now, actions);
        }
        self.epoch = welcome.epoch;
        let node = NodeNumber(welcome.node);
        self.tree.begin(node, self.holder);
        actions.push(Action::Steer { node });
        let length = Duration::from_millis(u64::from(welcome.lease_ms.clamp(1_000, 40_000)));
        // A purge takes away the lease before: what it lasted for is gone.
        let before = self.lease.map_or(Duration::ZERO, |lease| lease.over);
        self.lease = Some(Lease { length, over: before.max(self.spoke + length) });
        self.welcomed = true;
        self.repeat(actions);
    }

    /// What the master may have missed.
    fn repeat(&mut self, actions: &mut Vec<Action>) {
        let standings = self.tree.launched_standings();
        for (&proc, process) in &self.processes {
            let mut say = |message| actions.push(Action::Send(message));
            match &process.life {
                _ if let Some(fork) = &process.fork => say(process.forked(proc, fork)),
                Life::Starting => {}
                Life::Running { directory_errno } | Life::Ended { directory_errno, .. } => {
                    say(process.started(proc, *directory_errno));
                }
                Life::Failed { stage, errno, text } => say(failed(proc, *stage, *errno, text)),
            }
            if let Some(standing) = standings.get(&proc) {
                say(NodeToMaster::Execed(Execed { proc: proc.0, standing: Some(standing.clone()) }));
            }
            if let Some(signal) = process.stopped {
                say(NodeToMaster::Stopped(Stopped { proc: proc.0, signal: u32::from(signal) }));
            }
            if process.input_gone {
                say(NodeToMaster::StdinGone(StdinGone { proc: proc.0 }));
            } else if process.input.consumed() > 0 {
                say(NodeToMaster::Ack(Ack { proc: proc.0, fd: 0, offset: process.input.consumed() }));
            }
            for sent in self.upwards.again(proc.0) {
                say(NodeToMaster::Sent(sent));
            }
            if let Life::Ended { status, usage, .. } = &process.life {
                say(ended(proc, *status, usage, process.heir()));
            }
            if process.fork.as_ref().is_some_and(|fork| fork.reaped) {
                say(NodeToMaster::Reaped(Reaped { proc: proc.0 }));
            }
            for output in &process.outputs {
                actions.extend(output.resend().into_iter().map(|piece| match piece {
                    Piece::Data(data) => Action::SendData(data),
                    Piece::Placed(placed) => Action::SendPlaced(placed),
                }));
            }
        }
    }

    fn spawn(&mut self, spawn: Spawn, actions: &mut Vec<Action>) {
        let proc = ProcId(spawn.proc);
        if self.processes.contains_key(&proc) {
            // Sent again after a reconnect: what became of it was told after the welcome.
            return;
        }
        let credentials = spawn.credentials.unwrap_or_default();
        let mut spec = spawn.program.unwrap_or_default();
        let window = spawn.window.clamp(*WINDOWS.start(), *WINDOWS.end());
        let streams = [0, 1, 2].map(|fd| spec.descriptor(fd) == Stdio::Stream);
        let [stdin, stdout, stderr] = streams.map(|stream| stream.then_some(window));
        let process = Process {
            launch: LaunchId(spawn.launch),
            fork: None,
            uid: credentials.uid,
            pid: 0,
            pgid: 0,
            sid: 0,
            life: Life::Starting,
            stopped: None,
            signals: VecDeque::new(),
            sending: false,
            retry: None,
            input: Input::new(stdin),
            input_gone: false,
            outputs: [Output::new(proc.0, 1, stdout), Output::new(proc.0, 2, stderr)],
        };
        self.processes.insert(proc, process);
        let root = spawn.root.as_ref().map(|root| root.path.as_str());
        match program::program(&spec, &credentials, spawn.rank, root, &self.limits) {
            // No ghostd asks for it who has heard what is here.
            Ok(_) if spec.host && !(self.enters_host && credentials.uid == 0) => {
                let text = "only root's programs run in the node's own namespaces, if its kernel gives them";
                self.start_failed(proc, StartStage::Prepare, 0, text, actions);
            }
            Ok(program) => {
                let launch = LaunchId(spawn.launch);
                let (pid, origin) = (spawn.pid, spawn.origin.map(|origin| *origin));
                let terminal = spec.terminal.take();
                let creation = Creation { proc, launch, pid, program, streams, origin, terminal, host: spec.host };
                actions.push(Action::Create(Box::new(creation)));
            }
            Err(text) => self.start_failed(proc, StartStage::Prepare, 0, text, actions),
        }
    }

    fn executed(&mut self, proc: ProcId, directory_errno: u32, actions: &mut Vec<Action>) {
        let Some(process) = self.processes.get_mut(&proc) else {
            return;
        };
        if matches!(process.life, Life::Starting) {
            process.life = Life::Running { directory_errno };
            if self.welcomed {
                actions.push(Action::Send(process.started(proc, directory_errno)));
            }
            process.send_signals(proc, actions);
        }
    }

    fn start_failed(
        &mut self,
        proc: ProcId,
        stage: StartStage,
        errno: u32,
        text: &'static str,
        actions: &mut Vec<Action>,
    ) {
        let Some(process) = self.processes.get_mut(&proc) else {
            return;
        };
        process.life = Life::Failed { stage, errno, text };
        process.close_streams();
        let signals = process.take_signals();
        self.tell(failed(proc, stage, errno, text), actions);
        self.confirm_all(proc, signals, libc::ESRCH, actions);
        actions.push(Action::Release { proc });
    }

    fn take_input(
        &mut self,
        id: u64,
        fd: u8,
        actions: &mut Vec<Action>,
        take: impl FnOnce(&mut Input) -> Result<(), BadData>,
    ) {
        if !self.welcomed || fd != 0 {
            self.refuse("the master sent bytes that nobody is to get".to_owned(), actions);
            return;
        }
        let proc = ProcId(id);
        let Some(process) = self.processes.get_mut(&proc) else { return };
        match take(&mut process.input) {
            Ok(()) => actions.push(Action::FeedInput { proc }),
            // A command can bring that about which tells a ghostd that was restarted another size of its launch: it is to harm itself alone.
            Err(BadData::BeyondWindow { .. }) => {
                self.input_gone(proc, actions);
                actions.push(Action::FeedInput { proc });
            }
            Err(why) => self.refuse(format!("stdin of {proc:?}: {why}"), actions),
        }
    }

    fn written(&mut self, proc: ProcId, bytes: usize, actions: &mut Vec<Action>) {
        let due = self.processes.get_mut(&proc).and_then(|process| process.input.written(bytes));
        if let Some(offset) = due {
            self.tell(NodeToMaster::Ack(Ack { proc: proc.0, fd: 0, offset }), actions);
        }
    }

    fn input_gone(&mut self, proc: ProcId, actions: &mut Vec<Action>) {
        let Some(process) = self.processes.get_mut(&proc) else {
            return;
        };
        if process.input.is_open() {
            process.input.close();
            process.input_gone = true;
            self.tell(NodeToMaster::StdinGone(StdinGone { proc: proc.0 }), actions);
        }
    }

    fn signal(&mut self, signal: &Signal, actions: &mut Vec<Action>) {
        let proc = ProcId(signal.proc);
        // One whose group the master does not know (any more), or has not heard yet, is the same signal as the one that named it.
        let group = match self.processes.get(&proc) {
            Some(process) if signal.scope() == Scope::Group && (signal.group == 0 || process.is_starting()) => {
                process.group()
            }
            _ => signal.group,
        };
        let name = Name::of(signal, group);
        let confirm = signal.confirm.then_some((self.link, name));
        let as_member = Name::of_member(signal, proc);
        let before = self.heard.before(&name, signal.settled).or_else(|| self.heard.before(&as_member, signal.settled));
        match before {
            None => {}
            Some(Some(errno)) => return self.confirm(proc, confirm, errno, actions),
            // It waits still: this connection is the one that is to hear of it.
            Some(None) => {
                let waits = self.processes.get_mut(&proc).and_then(|process| {
                    process.signals.iter_mut().find(|pending| pending.confirm.is_some_and(|(_, other)| other == name))
                });
                match waits {
                    Some(pending) => pending.confirm = confirm,
                    // For a group, and named by another member before.
                    None => self.confirm(proc, confirm, 0, actions),
                }
                return;
            }
        }
        let number = u8::try_from(signal.signal).ok().filter(|n| (1..=64).contains(n));
        let refused = match (self.processes.get(&proc), number) {
            (_, None) => Some(libc::EINVAL),
            (Some(process), _) if !process.is_alive() => Some(libc::ESRCH),
            (Some(process), _) if process.signals.len() >= MOST_SIGNALS => Some(libc::EAGAIN),
            (Some(_), _) => None,
            (None, _) => Some(libc::ESRCH),
        };
        let order = Order {
            signal: number.unwrap_or(0),
            scope: Scope::try_from(signal.scope).unwrap_or(Scope::Process),
            code: signal.code,
            value: signal.value,
            sender_pid: signal.sender_pid,
            sender_uid: signal.sender_uid,
            sender_euid: signal.sender_euid,
            privileged: signal.privileged,
            group,
        };
        // Also when another member bears it in the place of this one, which is gone.
        if matches!(refused, None | Some(libc::ESRCH)) && order.scope == Scope::Group && group != 0 {
            let members = self.processes.iter().filter(|(_, process)| process.is_alive() && process.group() == group);
            for (&member, _) in members {
                self.heard.borne(Name::of_member(signal, member));
            }
            if refused.is_some() {
                // Another dead member may be named next.
                self.heard.borne(name);
            }
        }
        let (Some(process), Some(number), None) = (self.processes.get_mut(&proc), number, refused) else {
            let errno = refused.unwrap_or(libc::ESRCH);
            self.confirm(proc, confirm, errno, actions);
            if errno == libc::ESRCH {
                self.pass_on(proc, order, actions);
                self.signal_other_starting(proc, order, actions);
            }
            return;
        };
        self.heard.wait(name);
        if process.is_starting() {
            self.signal_other_starting(proc, order, actions);
            return self.signal_starting(proc, order, confirm, actions);
        }
        if number == KILL {
            process.signals.push_front(Pending { order, confirm, give_up: None });
            process.retry = None;
            process.send_signals(proc, actions);
            return self.signal_other_starting(proc, order, actions);
        }
        process.signals.push_back(Pending { order, confirm, give_up: None });
        process.send_signals(proc, actions);
        self.signal_other_starting(proc, order, actions);
    }

    fn signaled(&mut self, proc: ProcId, errno: i32, now: Duration, actions: &mut Vec<Action>) {
        let Some(process) = self.processes.get_mut(&proc) else {
            return;
        };
        process.sending = false;
        let Some(first) = process.signals.front_mut() else {
            return;
        };
        if errno == libc::EAGAIN {
            let give_up = *first.give_up.get_or_insert(now + SIGNAL_PATIENCE);
            if now < give_up {
                let when = now + SIGNAL_RETRY;
                process.retry = Some(when);
                self.retries.insert((when, proc));
                return;
            }
        }
        let first = process.signals.pop_front();
        process.send_signals(proc, actions);
        self.done(proc, first.as_ref().and_then(|pending| pending.confirm), errno, actions);
        if errno == libc::ESRCH
            && let Some(first) = first
        {
            self.pass_on(proc, first.order, actions);
        }
    }

    /// A signal to a group whose bearer is gone: another member bears it. Nobody of a group is spared because one of it was quicker.
    fn pass_on(&mut self, from: ProcId, order: Order, actions: &mut Vec<Action>) {
        if order.scope != Scope::Group || order.group == 0 || order.signal == 0 {
            return;
        }
        let bears = |(id, process): &(&ProcId, &mut Process)| {
            **id != from && matches!(process.life, Life::Running { .. }) && process.group() == order.group
        };
        if let Some((&proc, process)) = self.processes.iter_mut().find(bears) {
            let pending = Pending { order, confirm: None, give_up: None };
            if order.signal == KILL {
                process.signals.push_front(pending);
                process.retry = None;
            } else {
                process.signals.push_back(pending);
            }
            process.send_signals(proc, actions);
        }
    }

    fn reaped(&mut self, pid: u32, status: i32, usage: Usage, actions: &mut Vec<Action>) {
        if let Some(&proc) = self.by_pid.get(&pid) {
            self.over(proc, status, usage, actions);
        }
    }

    fn over(&mut self, proc: ProcId, status: i32, usage: Usage, actions: &mut Vec<Action>) {
        let Some(process) = self.processes.get_mut(&proc) else {
            return;
        };
        if self.by_pid.get(&process.pid) == Some(&proc) {
            self.by_pid.remove(&process.pid);
        }
        let directory_errno = match process.life {
            Life::Running { directory_errno } => directory_errno,
            Life::Starting => 0,
            Life::Failed { .. } | Life::Ended { .. } => return,
        };
        process.stopped = None;
        process.input.close();
        let signals = process.take_signals();
        let message = ended(proc, status, &usage, process.heir());
        process.life = Life::Ended { directory_errno, status, usage };
        if self.welcomed {
            actions.extend(self.upwards.last_of(proc.0).into_iter().map(NodeToMaster::Sent).map(Action::Send));
        }
        self.tell(message, actions);
        let orders: Vec<Order> = signals.iter().map(|pending| pending.order).collect();
        self.confirm_all(proc, signals, libc::ESRCH, actions);
        for order in orders {
            self.pass_on(proc, order, actions);
        }
        actions.push(Action::Drain { proc });
    }

    fn stopped(&mut self, pid: u32, signal: Option<u8>, actions: &mut Vec<Action>) {
        let Some(&proc) = self.by_pid.get(&pid) else {
            return;
        };
        let Some(process) = self.processes.get_mut(&proc) else {
            return;
        };
        if process.fork.is_some() && process.stopped == signal {
            return;
        }
        if matches!(process.life, Life::Starting) {
            // What has no program yet goes on, or ends, before it has anything to tell.
            return;
        }
        process.stopped = signal;
        let message = match signal {
            Some(signal) => NodeToMaster::Stopped(Stopped { proc: proc.0, signal: u32::from(signal) }),
            None => NodeToMaster::Continued(Continued { proc: proc.0 }),
        };
        self.tell(message, actions);
    }

    fn forget(&mut self, proc: ProcId, actions: &mut Vec<Action>) {
        let Some(process) = self.processes.get_mut(&proc).filter(|process| !process.is_alive()) else {
            return;
        };
        if let Some(fork) = &mut process.fork
            && !fork.reaped
        {
            fork.forgotten = true;
            return;
        }
        self.processes.remove(&proc);
        self.upwards.forget(proc.0);
        actions.push(Action::Release { proc });
    }

    // ---- upwards

    /// Whether this number is that of a process whose name the master knows.
    pub fn knows_number(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    fn sent(&mut self, sent: standins::Sent, actions: &mut Vec<Action>) {
        if let Some(ProcId(proc)) = self.introduce(sent.sender, actions) {
            let standins::Sent { target, group, code, value, .. } = sent;
            let signal = u32::from(sent.signal);
            self.upwards.add(Sent { proc, target, group, signal, code, value, seq: 0, settled: 0 });
            self.tell_upwards(actions);
        }
    }

    /// The name of the process with this number. The master hears of it before anything else of it, if it has not.
    fn introduce(&mut self, pid: u32, actions: &mut Vec<Action>) -> Option<ProcId> {
        if !self.by_pid.contains_key(&pid) {
            let mut told = Vec::new();
            self.tree.tell_of(pid, &mut told);
            self.tell_tree(told, actions);
        }
        self.by_pid.get(&pid).copied()
    }

    /// The process with this number, of which the master has heard before anything that it asks; `None`: it is none of the cluster's.
    pub fn asker(&mut self, pid: u32, actions: &mut Vec<Action>) -> Option<ProcId> {
        let proc = self.introduce(pid, actions)?;
        self.processes.get(&proc).filter(|process| process.is_alive()).map(|_| proc)
    }

    fn tell_upwards(&mut self, actions: &mut Vec<Action>) {
        if self.welcomed {
            actions.extend(self.upwards.due().into_iter().map(NodeToMaster::Sent).map(Action::Send));
        }
    }

    // ---- the tree

    fn tree_event(&mut self, event: TreeEvent, now: Duration, actions: &mut Vec<Action>) {
        let mut told = Vec::new();
        match event {
            TreeEvent::Forked { process, by_us, launch } => {
                let launched = self.by_pid.get(&process.pid.unsigned_abs()).copied().filter(|_| by_us);
                let launched = launched.and_then(|proc| self.processes.get(&proc).map(|p| (proc, p)));
                match launched {
                    Some((proc, found)) if found.fork.is_none() => self.tree.launched(&process, proc, found.launch),
                    _ => self.tree.forked(&process, launch, now, &mut told),
                }
            }
            TreeEvent::Executed(process) => self.tree.executed(&process, &mut told),
            TreeEvent::Stands { pid, pgid, sid } => self.tree.stands(pid, pgid, sid, &mut told),
            TreeEvent::Compared { all, seen } => self.tree.compared(&all, seen, &mut told),
            TreeEvent::Ended { key, status, heir } => self.tree.ended(key, status, heir, &mut told),
            TreeEvent::Reaped { key } => self.tree.reaped(key, &mut told),
            TreeEvent::Stopped { key, signal } => {
                if let Some(pid) =
                    self.tree.stopped(key, signal).and_then(|proc| self.processes.get(&proc)).map(|p| p.pid)
                {
                    self.stopped(pid, signal, actions);
                }
            }
        }
        self.tell_tree(told, actions);
    }

    fn tell_tree(&mut self, told: Vec<Told>, actions: &mut Vec<Action>) {
        for told in told {
            match told {
                Told::Forked { proc, parent, launch, pid, standing, creator } => {
                    let uid = standing.uid;
                    let fork = Fork { parent, creator, standing, heir: None, reaped: false, forgotten: false };
                    let process = Process::of_fork(proc, launch, pid, uid, fork);
                    if let Some(fork) = &process.fork {
                        self.tell(process.forked(proc, fork), actions);
                    }
                    self.processes.insert(proc, process);
                    self.by_pid.insert(pid, proc);
                }
                Told::Stopped { proc, signal } => {
                    if let Some(pid) = self.processes.get(&proc).map(|process| process.pid) {
                        self.stopped(pid, Some(signal), actions);
                    }
                }
                Told::Execed { proc, standing } => {
                    match self.processes.get_mut(&proc) {
                        Some(Process { fork: Some(fork), .. }) => fork.standing = standing.clone(),
                        Some(process) => (process.pgid, process.sid) = (standing.pgid, standing.sid),
                        None => {}
                    }
                    self.tell(NodeToMaster::Execed(Execed { proc: proc.0, standing: Some(standing) }), actions);
                }
                Told::Ended { proc, status, heir } => {
                    if let Some(fork) = self.processes.get_mut(&proc).and_then(|process| process.fork.as_mut()) {
                        fork.heir = heir;
                    }
                    self.over(proc, status, Usage::default(), actions);
                }
                Told::Reaped { proc } => {
                    self.tell(NodeToMaster::Reaped(Reaped { proc: proc.0 }), actions);
                    if let Some(fork) = self.processes.get_mut(&proc).and_then(|process| process.fork.as_mut()) {
                        fork.reaped = true;
                        // A master that has been greeted with it waits to hear of this.
                        if fork.forgotten && self.welcomed {
                            self.upwards.forget(proc.0);
                            self.processes.remove(&proc);
                        }
                    }
                }
            }
        }
    }

    fn output_mut(&mut self, proc: ProcId, fd: u8) -> Option<&mut Output> {
        self.processes.get_mut(&proc)?.outputs.get_mut(usize::from(fd).checked_sub(1)?)
    }

    fn tell(&self, message: NodeToMaster, actions: &mut Vec<Action>) {
        if self.welcomed {
            actions.push(Action::Send(message));
        }
    }

    fn tell_data(&self, data: Option<Data>, actions: &mut Vec<Action>) {
        if self.welcomed {
            actions.extend(data.map(Action::SendData));
        }
    }

    /// A signal that waited has been dealt with.
    fn done(&mut self, proc: ProcId, confirm: Option<(u64, Name)>, errno: i32, actions: &mut Vec<Action>) {
        if let Some((_, name)) = confirm {
            self.heard.done(name, errno);
        }
        self.confirm(proc, confirm, errno, actions);
    }

    fn confirm(&self, proc: ProcId, confirm: Option<(u64, Name)>, errno: i32, actions: &mut Vec<Action>) {
        if let Some((link, name)) = confirm
            && link == self.link
        {
            let done = SignalDone { proc: proc.0, seq: name.number(), errno: errno.unsigned_abs() };
            self.tell(NodeToMaster::SignalDone(done), actions);
        }
    }

    fn confirm_all(&mut self, proc: ProcId, signals: VecDeque<Pending>, errno: i32, actions: &mut Vec<Action>) {
        for pending in signals {
            self.done(proc, pending.confirm, errno, actions);
        }
    }
}

impl Process {
    /// One whose streams are another's.
    fn of_fork(proc: ProcId, launch: LaunchId, pid: u32, uid: u32, fork: Fork) -> Process {
        Process {
            launch,
            fork: Some(fork),
            uid,
            pid,
            pgid: 0,
            sid: 0,
            life: Life::Running { directory_errno: 0 },
            stopped: None,
            signals: VecDeque::new(),
            sending: false,
            retry: None,
            input: Input::new(None),
            input_gone: false,
            outputs: [Output::new(proc.0, 1, None), Output::new(proc.0, 2, None)],
        }
    }

    fn forked(&self, proc: ProcId, fork: &Fork) -> NodeToMaster {
        NodeToMaster::Forked(Forked {
            proc: proc.0,
            parent: fork.parent.0,
            launch: self.launch.0,
            pid: self.pid,
            standing: Some(fork.standing.clone()),
            creator: fork.creator.0,
        })
    }

    /// Its process group, as far as it is known.
    fn group(&self) -> u32 {
        match &self.fork {
            Some(fork) => fork.standing.pgid,
            None if self.pgid != 0 => self.pgid,
            None => self.pid,
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self.life, Life::Starting | Life::Running { .. })
    }

    fn started(&self, proc: ProcId, directory_errno: u32) -> NodeToMaster {
        let Process { pid, pgid, sid, .. } = *self;
        NodeToMaster::Started(Started { proc: proc.0, pid, cwd_errno: directory_errno, pgid, sid })
    }

    fn send_signals(&mut self, proc: ProcId, actions: &mut Vec<Action>) {
        if let (Life::Running { .. }, false, None, Some(first)) =
            (&self.life, self.sending, self.retry, self.signals.front())
        {
            self.sending = true;
            actions.push(Action::Signal { proc, pid: self.pid, order: first.order });
        }
    }

    fn take_signals(&mut self) -> VecDeque<Pending> {
        self.sending = false;
        std::mem::take(&mut self.signals)
    }

    fn heir(&self) -> Option<ProcId> {
        self.fork.as_ref()?.heir
    }

    fn close_streams(&mut self) {
        self.input.close();
        self.outputs.iter_mut().for_each(Output::close);
    }
}

fn failed(proc: ProcId, stage: StartStage, errno: u32, text: &str) -> NodeToMaster {
    NodeToMaster::StartFailed(StartFailed { proc: proc.0, stage: stage.into(), errno, text: text.to_owned() })
}

fn ended(proc: ProcId, status: i32, usage: &Usage, heir: Option<ProcId>) -> NodeToMaster {
    let heir = heir.unwrap_or_default().0;
    NodeToMaster::Ended(Ended { proc: proc.0, status, usage: Some(usage.clone()), heir })
}

/// Another number, unlike the first (the finalizer of splitmix64).
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;

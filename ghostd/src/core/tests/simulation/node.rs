//! A node: the holder's core with a model of what its driver does, and the way to the master.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ghost_proto::client::StartStage;
use ghost_proto::frame::Data;
use ghost_proto::ids::ProcId;
use ghost_proto::node::{self, MasterToNode, NodeToMaster};
use ghost_proto::status::{Usage, WaitStatus};
use nix::libc;
use nodeagent::holder::core::Core as Holder;
use nodeagent::holder::event::{Action, Event, Order};
use nodeagent::holder::input::Waiting;

use super::super::super::LinkId;
use super::super::super::launches::LARGEST_WINDOW;
use super::machine::{Change, Life, Machine};
use super::plants::Plant;
use super::random::{content, stream_name};
use super::world::{Happening, World};

/// Bytes read from a pipe at once.
const READ: usize = 65_536;

/// What the master has sent and the holder has not taken yet.
enum Frame {
    Message(Box<MasterToNode>),
    Data(Data),
}

pub struct Node {
    holder: Holder,
    /// There are stand-ins of the master's processes.
    stands_in: bool,
    pub machine: Machine,
    /// The session of nodeagent, by which the holder reaches the master.
    pub link: Option<LinkId>,
    waiting: VecDeque<Frame>,
    /// The network is cut until then.
    pub cut_until: Duration,
    actions: VecDeque<Action>,
    tick_due: Option<Duration>,
    /// Processes of which it has been told.
    pub told: BTreeSet<u64>,
}

impl Node {
    /// Whom a signal to a process's group reaches at once: not those who get it by themselves.
    pub fn group_of(&self, pid: u32, order: &Order) -> Vec<u32> {
        let kills = i32::from(order.signal) == libc::SIGKILL;
        let starting = if kills { Vec::new() } else { self.holder.starting_in(order.group) };
        let mut all = self.machine.group_of(pid);
        all.retain(|pid| !starting.contains(pid));
        all
    }

    pub fn new(number: usize, holder: u64, stands_in: bool) -> Node {
        let limits = [(u64::MAX, u64::MAX); nodeagent::holder::program::LIMITS];
        let mut core = Holder::new(holder, format!("n{number}"), limits);
        if stands_in {
            core.stand_in();
        }
        Node {
            holder: core,
            stands_in,
            machine: Machine::new(),
            link: None,
            waiting: VecDeque::new(),
            cut_until: Duration::ZERO,
            actions: VecDeque::new(),
            tick_due: None,
            told: BTreeSet::new(),
        }
    }

    pub fn lives(&self, proc: u64) -> bool {
        self.machine.processes.values().any(|process| process.proc == proc && process.is_alive())
    }

    pub fn living(&self) -> Vec<u64> {
        self.machine.processes.values().filter(|p| p.is_alive()).map(|p| p.proc).collect()
    }

    /// Processes that the holder remembers.
    pub fn held(&self) -> Vec<u64> {
        self.told.iter().copied().filter(|proc| self.holds(*proc)).collect()
    }

    pub fn holds(&self, proc: u64) -> bool {
        self.holder.output(ProcId(proc), 1).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.living().is_empty() && self.held().is_empty()
    }
}

impl World {
    /// Its clock began at another time than ghostd's.
    fn clock(&self, number: usize) -> Duration {
        self.now + Duration::from_secs(1_000 * (number as u64 + 1))
    }

    // ---- nodeagent

    pub fn connect_node(&mut self, number: usize) {
        if self.nodes[number].link.is_some() {
            return;
        }
        let cut = self.nodes[number].cut_until.saturating_sub(self.now);
        if self.down || !cut.is_zero() {
            let delay = cut + self.random.micros(200_000);
            return self.after(delay, Happening::ConnectNode(number));
        }
        let link = self.new_link(number);
        self.nodes[number].link = Some(link);
        self.nodes[number].waiting.clear();
        self.holder_event(number, Event::Linked);
    }

    /// The connection is gone, and nodeagent makes another one.
    pub fn node_unlinked(&mut self, link: LinkId) {
        let number = self.links[&link].node;
        if self.nodes[number].link == Some(link) {
            self.nodes[number].link = None;
            self.nodes[number].waiting.clear();
            self.holder_event(number, Event::Unlinked);
            self.connect_later(number);
        }
    }

    fn connect_later(&mut self, number: usize) {
        let delay = self.random.micros(300_000);
        self.after(delay, Happening::ConnectNode(number));
    }

    pub fn holder_hears(&mut self, link: LinkId, message: MasterToNode) {
        let number = self.links[&link].node;
        if self.nodes[number].link == Some(link) {
            self.nodes[number].waiting.push_back(Frame::Message(Box::new(message)));
            self.attend(number);
        }
    }

    pub fn holder_receives(&mut self, link: LinkId, mut data: Data) {
        let number = self.links[&link].node;
        if !data.bytes.is_empty() && self.goes_wrong(Plant::InputChanged) {
            let mut bytes = data.bytes.to_vec();
            bytes[0] ^= 1;
            data.bytes = bytes.into();
        }
        if self.nodes[number].link == Some(link) {
            self.nodes[number].waiting.push_back(Frame::Data(data));
            self.attend(number);
        }
    }

    // ---- the holder's driver

    fn take_frames(&mut self, number: usize) {
        while self.nodes[number].holder.accepts()
            && let Some(frame) = self.nodes[number].waiting.pop_front()
        {
            match frame {
                Frame::Message(message) => {
                    self.check_message(number, &message);
                    let forgotten = if let MasterToNode::Forget(forget) = &*message { forget.proc } else { 0 };
                    self.handle(number, Event::Message(*message));
                    if forgotten != 0 && !self.nodes[number].holds(forgotten) {
                        self.nodes[number].told.remove(&forgotten);
                    }
                }
                Frame::Data(data) => self.handle(number, Event::Data(data)),
            }
        }
    }

    fn check_message(&mut self, number: usize, message: &MasterToNode) {
        match message {
            MasterToNode::Spawn(spawn) => {
                self.nodes[number].told.insert(spawn.proc);
            }
            MasterToNode::Forget(forget) => {
                assert!(
                    !self.nodes[number].lives(forget.proc),
                    "3: process {} is forgotten while it lives",
                    forget.proc
                );
            }
            MasterToNode::Signal(signal) => {
                let mut processes = self.nodes[number].machine.processes.values();
                if processes.any(|p| p.proc == signal.proc && p.signals.contains(&signal.value)) {
                    self.tally.signals_again += 1;
                }
            }
            _ => {}
        }
    }

    pub fn holder_tick(&mut self, number: usize) {
        if self.nodes[number].tick_due.is_some_and(|due| due <= self.now) {
            self.nodes[number].tick_due = None;
            self.holder_event(number, Event::Tick);
        }
    }

    pub fn holder_event(&mut self, number: usize, event: Event) {
        self.handle(number, event);
        self.attend(number);
    }

    /// Takes what waits, and sets the timer.
    fn attend(&mut self, number: usize) {
        self.take_frames(number);
        let clock = self.clock(number);
        let node = &self.nodes[number];
        if let Some(deadline) = node.holder.deadline() {
            let due = self.now + deadline.saturating_sub(clock);
            if node.tick_due.is_none_or(|before| before > due) {
                self.nodes[number].tick_due = Some(due);
                self.after(due - self.now, Happening::HolderTick(number));
            }
        }
    }

    fn handle(&mut self, number: usize, event: Event) {
        self.give(number, event);
        while let Some(action) = self.nodes[number].actions.pop_front() {
            if let Some(event) = self.act(number, action) {
                self.give(number, event);
            }
        }
    }

    /// Events that an action causes have their actions done before the rest.
    fn give(&mut self, number: usize, event: Event) {
        if self.loud
            && !matches!(event, Event::Read { .. } | Event::Data(_) | Event::Written { .. } | Event::Placed { .. })
        {
            println!("{:?} node {number} {event:?}", self.now);
        }
        let (clock, mut actions) = (self.clock(number), Vec::new());
        let node = &mut self.nodes[number];
        node.holder.handle(event, clock, &mut actions);
        for action in actions.into_iter().rev() {
            node.actions.push_front(action);
        }
    }

    fn act(&mut self, number: usize, action: Action) -> Option<Event> {
        match action {
            Action::Send(message) => {
                self.note_name(number, &message);
                self.node_says(number, &message);
            }
            Action::SendData(data) => self.node_sends(number, &data),
            Action::SendPlaced(placed) => {
                // What lies in the ring is what was written there.
                let bytes = content(stream_name(placed.id, placed.fd), placed.offset, placed.length as usize);
                let data = Data { id: placed.id, offset: placed.offset, fd: placed.fd, eof: placed.eof, bytes };
                self.node_sends(number, &data);
            }
            Action::AckLease { seq } => {
                self.node_says(number, &NodeToMaster::LeaseAck(node::LeaseAck { seq, ..Default::default() }));
            }
            Action::Disconnect(why) => {
                assert_eq!(why, "the lease is over", "the holder and ghostd disagree");
                self.tally.leases_over += 1;
                if let Some(link) = self.nodes[number].link.take() {
                    self.nodes[number].waiting.clear();
                    self.cut(link);
                    self.connect_later(number);
                }
            }
            Action::Create(creation) => {
                let proc = creation.proc;
                return Some(match self.make_process(number, &creation) {
                    Ok((pid, pgid, sid)) => Event::Created { proc, pid, pgid, sid },
                    Err(errno) => Event::StartFailed { proc, stage: StartStage::Create, errno },
                });
            }
            Action::Signal { proc, pid, order } => {
                let errno = self.deliver(number, pid, &order);
                return Some(Event::Signaled { proc, errno });
            }
            Action::FeedInput { proc } => return self.feed_input(number, proc),
            Action::ServeOutput { proc, fd } => self.read_output(number, proc, fd),
            Action::Drain { proc } => {
                if let Some((_, process)) = self.nodes[number].machine.of_proc(proc.0) {
                    process.input = false;
                    process.over = [true; 2];
                }
                for fd in [1, 2] {
                    self.read_output(number, proc, fd);
                }
            }
            Action::Release { proc } => {
                self.nodes[number].machine.close(proc.0);
            }
            Action::EndLaunch { launch, everything: _ } => {
                let roots = self.nodes[number].holder.living(launch);
                self.kill_below(number, roots);
            }
            Action::KillEverything => {
                let all = self.nodes[number].machine.processes.keys().copied().collect();
                self.kill_below(number, all);
                let node = &mut self.nodes[number];
                for proc in node.told.iter().copied().filter(|proc| node.holder.output(ProcId(*proc), 1).is_none()) {
                    if let Some(truth) = self.truth.get_mut(&proc) {
                        truth.vanished = true;
                    }
                }
                node.told.retain(|proc| node.holder.output(ProcId(*proc), 1).is_some());
                if node.machine.is_childless() {
                    return Some(Event::NoChildren);
                }
            }
            Action::Steer { .. } | Action::Renice { .. } | Action::Resize { .. } | Action::Beside { .. } => {}
        }
        None
    }

    /// A process has read some of its input, or will read no more.
    pub fn feed_process(&mut self, number: usize, proc: u64) {
        if let Some(event) = self.feed_input(number, ProcId(proc)) {
            self.holder_event(number, event);
        }
    }

    fn feed_input(&mut self, number: usize, proc: ProcId) -> Option<Event> {
        let input = self.nodes[number].holder.input(proc)?;
        let waiting: usize = input.pieces().iter().map(Waiting::length).sum();
        assert!(waiting <= LARGEST_WINDOW, "5: {waiting} bytes wait for process {}", proc.0);
        if !self.nodes[number].machine.open.contains_key(&proc.0) || !input.is_open() || input.finished() {
            return None;
        }
        let pieces = input.pieces().clone();
        match self.write_input(number, proc, &pieces) {
            Ok(0) => None,
            Ok(bytes) => {
                self.nodes[number].actions.push_back(Action::FeedInput { proc });
                Some(Event::Written { proc, bytes })
            }
            Err(()) => Some(Event::InputGone { proc }),
        }
    }

    /// A process has written, or has closed an output.
    pub fn read_outputs(&mut self, number: usize, proc: u64) {
        for fd in [1, 2] {
            self.read_output(number, ProcId(proc), fd);
        }
        self.holder_event(number, Event::Tick);
    }

    /// Reads what there is room for. What follows comes after what is being done.
    fn read_output(&mut self, number: usize, proc: ProcId, fd: u8) {
        let at = usize::from(fd) - 1;
        loop {
            let placed = self.random.percent(30);
            let piece = 1 + self.random.below(READ as u64) as usize;
            let clock = self.clock(number);
            let node = &mut self.nodes[number];
            let Some(output) = node.holder.output(proc, fd) else { return };
            let (is_open, room, offset) = (output.is_open(), output.room(), output.offset());
            let Some((_, process)) = node.machine.of_proc(proc.0) else { return };
            if !is_open {
                process.broken[at] |= output_is_closed(&node.holder, proc, fd);
                return;
            }
            let n = (process.piped[at] as usize).min(room).min(piece);
            let event = if n > 0 {
                process.piped[at] -= n as u64;
                match placed {
                    true => Event::Placed { proc, fd, length: n },
                    false => Event::Read { proc, fd, bytes: content(stream_name(proc.0, fd), offset, n) },
                }
            } else if process.over[at] && process.piped[at] == 0 {
                Event::OutputOver { proc, fd }
            } else {
                return;
            };
            let mut actions = Vec::new();
            node.holder.handle(event, clock, &mut actions);
            node.actions.extend(actions);
        }
    }

    /// A parent waits for its child: the holder does at once, and sees first what it has done.
    pub fn child_changed(&mut self, number: usize, pid: u32) {
        let Some(process) = self.nodes[number].machine.processes.get_mut(&pid) else { return };
        if process.parent.is_some() {
            let waits = self.random.percent(50);
            match process.life {
                Life::Zombie(_) if waits => self.process_waited_for(number, pid),
                Life::Zombie(_) => {
                    let delay = self.random.micros(2_000_000);
                    self.after(delay, Happening::ChildChanged { node: number, pid });
                }
                _ => {}
            }
            return;
        }
        self.follow_tree(number);
        let Some(process) = self.nodes[number].machine.processes.get_mut(&pid) else { return };
        let proc = ProcId(process.proc);
        let (life, started, change) = (process.life, process.started.take(), process.change.take());
        match started {
            Some(0) => self.holder_event(number, Event::Executed { proc, directory_errno: 0 }),
            Some(errno) => self.holder_event(number, Event::StartFailed { proc, stage: StartStage::Exec, errno }),
            None => {}
        }
        match (life, change) {
            (Life::Zombie(status), _) => self.reap_process(number, pid, status),
            (_, Some(Change::Stopped(signal))) => self.holder_event(number, Event::Stopped { pid, signal }),
            (_, Some(Change::Continued)) => self.holder_event(number, Event::Continued { pid }),
            (_, None) => {}
        }
    }

    fn reap_process(&mut self, number: usize, pid: u32, status: WaitStatus) {
        let machine = &mut self.nodes[number].machine;
        if let Some(process) = machine.processes.get_mut(&pid) {
            process.life = Life::Reaped;
        }
        machine.forget(pid);
        self.holder_event(number, Event::Reaped { pid, status: status.to_raw(), usage: Usage::default() });
        self.tree_reaped(number, pid);
        if self.nodes[number].machine.is_childless() {
            self.holder_event(number, Event::NoChildren);
        }
    }

    /// The holder is killed: all its processes die with it, by the kernel's rule, and a new one begins.
    pub fn kill_holder(&mut self, number: usize) {
        self.tally.holders_killed += 1;
        let holder = self.random.next() | 1;
        for truth in self.truth.values_mut().filter(|truth| truth.node == number) {
            truth.vanished = true;
        }
        let node = &mut self.nodes[number];
        let (link, cut_until, next_pid) = (node.link, node.cut_until, node.machine.next_pid);
        let stands_in = node.stands_in;
        *node = Node { cut_until, ..Node::new(number, holder, stands_in) };
        node.machine.next_pid = next_pid;
        if let Some(link) = link {
            self.cut(link);
        }
        self.connect_later(number);
    }

    /// A node says something of a process that is not its own, or long gone.
    pub fn lie(&mut self, number: usize) {
        let count = self.truth.len() as u64;
        let index = self.random.below(count) as usize;
        let Some((&proc, truth)) = self.truth.iter().nth(index) else { return };
        let foreign = truth.node != number;
        if !foreign && self.nodes[number].holds(proc) || self.down {
            return;
        }
        let choice = self.random.below(7);
        let before = foreign.then(|| self.core_process(proc));
        let Some(link) = self.nodes[number].link else { return };
        let event = match choice {
            0 => NodeToMaster::Started(node::Started { proc, pid: 1, cwd_errno: 0, pgid: 0, sid: 0 }),
            1 => {
                NodeToMaster::Ended(node::Ended { proc, status: WaitStatus::Exited(9).to_raw(), usage: None, heir: 0 })
            }
            2 => NodeToMaster::StartFailed(node::StartFailed { proc, stage: 0, errno: 2, text: String::new() }),
            3 => NodeToMaster::Stopped(node::Stopped { proc, signal: 19 }),
            4 => NodeToMaster::Ack(node::Ack { proc, fd: 0, offset: 1 }),
            5 => NodeToMaster::StdinGone(node::StdinGone { proc }),
            _ => {
                let data = Data { id: proc, offset: 0, fd: 1, eof: true, bytes: bytes::Bytes::from_static(b"lie") };
                self.feed_node_data(number, link, data);
                return self.unchanged(proc, before);
            }
        };
        self.feed_node_message(number, link, event);
        let process = self.master.core.processes.get_mut(&ProcId(proc));
        if let Some(process) = process.filter(|_| before.is_some())
            && self.planted.take_if(|planted| *planted == Plant::LieBelieved).is_some()
        {
            process.killed = !process.killed;
        }
        self.unchanged(proc, before);
    }

    fn unchanged(&self, proc: u64, before: Option<String>) {
        if let Some(before) = before
            && !self.down
        {
            assert_eq!(before, self.core_process(proc), "6: another node's word has changed process {proc}");
        }
    }
}

fn output_is_closed(holder: &Holder, proc: ProcId, fd: u8) -> bool {
    holder.output(proc, fd).is_none_or(|output| output.is_closed())
}

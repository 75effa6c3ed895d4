//! A node: its holder's processes, lease and streams, and the connection to the master.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ghost_proto::client::StartStage;
use ghost_proto::frame::Data;
use ghost_proto::launch::Stdio;
use ghost_proto::node::{self, MasterToNode, NodeHello, NodeToMaster};
use ghost_proto::status::WaitStatus;
use ghost_proto::stream::{Receiver, Sender};
use nix::libc;

use super::super::super::LinkId;
use super::random::{content, stream_name};
use super::world::{Happening, LEASE, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Running,
    Failed,
    Ended(WaitStatus),
}

#[derive(Debug)]
struct Output {
    stream: bool,
    sender: Sender,
    /// Written into the pipe, not yet read from it.
    piped: u64,
    over: bool,
    eof_sent: bool,
    closed: bool,
}

#[derive(Debug)]
pub struct Remote {
    launch: u64,
    life: Life,
    stopped: Option<u32>,
    early: Vec<u32>,
    input: Receiver,
    input_eof: bool,
    input_open: bool,
    input_gone: bool,
    outputs: [Output; 2],
    signals: BTreeSet<u64>,
    endless: bool,
}

/// What is known of every process that was ever begun, for ever.
#[derive(Clone, Debug)]
pub struct Truth {
    pub node: usize,
    pub written: [u64; 2],
    /// The node forgot it, and its output, before the master had it.
    pub vanished: bool,
}

pub struct Node {
    pub link: Option<LinkId>,
    welcomed: bool,
    epoch: u64,
    holder: u64,
    lease_over: Option<Duration>,
    /// When it last said something that the master answers.
    spoke: Duration,
    processes: BTreeMap<u64, Remote>,
    /// The network is cut until then.
    pub cut_until: Duration,
}

impl Node {
    pub fn new(holder: u64) -> Node {
        Node {
            link: None,
            welcomed: false,
            epoch: 0,
            holder,
            lease_over: None,
            spoke: Duration::ZERO,
            processes: BTreeMap::new(),
            cut_until: Duration::ZERO,
        }
    }

    pub fn lives(&self, proc: u64) -> bool {
        self.processes.get(&proc).is_some_and(Remote::is_alive)
    }

    pub fn living(&self) -> Vec<u64> {
        self.processes.iter().filter(|(_, p)| p.is_alive()).map(|(&id, _)| id).collect()
    }

    pub fn held(&self) -> usize {
        self.processes.len()
    }
}

impl Remote {
    fn is_alive(&self) -> bool {
        matches!(self.life, Life::Starting | Life::Running)
    }
}

impl World {
    pub fn connect_node(&mut self, number: usize) {
        self.look_at_lease(number);
        if self.nodes[number].link.is_some() {
            return;
        }
        if self.nodes[number].cut_until > self.now {
            let delay = self.nodes[number].cut_until - self.now + self.random.micros(200_000);
            return self.after(delay, Happening::ConnectNode(number));
        }
        let link = self.new_link(number);
        let now = self.now;
        let node = &mut self.nodes[number];
        node.link = Some(link);
        node.welcomed = false;
        node.spoke = now;
        let hello = NodeHello {
            version: 1,
            hostname: format!("n{number}"),
            epoch: node.epoch,
            holder: node.holder,
            processes: node
                .processes
                .keys()
                .map(|&proc| node::HeldProcess { proc, pid: 1, ..Default::default() })
                .collect(),
            ..NodeHello::default()
        };
        self.node_says(number, NodeToMaster::Hello(hello));
    }

    /// The node sees that its connection is gone, and comes back.
    pub fn node_unlinked(&mut self, number: usize, link: LinkId) {
        if self.nodes[number].link == Some(link) {
            self.nodes[number].link = None;
            self.nodes[number].welcomed = false;
            let delay = self.random.micros(300_000);
            self.after(delay, Happening::ConnectNode(number));
        }
    }

    /// All its processes die, and a new one begins.
    pub fn restart_holder(&mut self, number: usize) {
        let holder = self.random.next() | 1;
        self.vanish(number);
        let link = self.nodes[number].link;
        let cut_until = self.nodes[number].cut_until;
        self.nodes[number] = Node { cut_until, ..Node::new(holder) };
        if let Some(link) = link {
            self.cut(link);
        }
        let delay = self.random.micros(200_000);
        self.after(delay, Happening::ConnectNode(number));
    }

    fn vanish(&mut self, number: usize) {
        for (proc, _) in std::mem::take(&mut self.nodes[number].processes) {
            if let Some(truth) = self.truth.get_mut(&proc) {
                truth.vanished = true;
            }
        }
    }

    pub fn look_at_lease(&mut self, number: usize) {
        if self.nodes[number].lease_over.is_some_and(|over| over <= self.now) {
            self.restart_holder(number);
        }
    }

    fn tell(&mut self, number: usize, message: NodeToMaster) {
        if self.nodes[number].welcomed {
            self.node_says(number, message);
        }
    }

    pub fn node_hears(&mut self, number: usize, link: LinkId, message: MasterToNode) {
        self.look_at_lease(number);
        if self.nodes[number].link != Some(link) {
            return;
        }
        let now = self.now;
        match message {
            MasterToNode::Welcome(welcome) => {
                let node = &self.nodes[number];
                if node.epoch != 0 && node.epoch != welcome.epoch {
                    self.vanish(number);
                }
                let node = &mut self.nodes[number];
                node.epoch = welcome.epoch;
                node.welcomed = true;
                self.renew(number);
                self.repeat(number);
            }
            MasterToNode::Lease(lease) => {
                self.renew(number);
                self.nodes[number].spoke = now;
                self.tell(number, NodeToMaster::LeaseAck(node::LeaseAck { seq: lease.seq, ..Default::default() }));
            }
            MasterToNode::Spawn(spawn) => self.spawned(number, &spawn),
            MasterToNode::Signal(signal) => self.node_signalled(number, &signal),
            MasterToNode::Ack(ack) => {
                if let Some(process) = self.nodes[number].processes.get_mut(&ack.proc) {
                    let output = &mut process.outputs[ack.fd as usize - 1];
                    output.sender.ack(ack.offset).expect("4: the master acknowledges only what was sent");
                    self.flow(number, ack.proc);
                }
            }
            MasterToNode::CloseStream(close) => {
                if let Some(process) = self.nodes[number].processes.get_mut(&close.proc) {
                    process.outputs[close.fd as usize - 1].closed = true;
                    if process.life == Life::Running && self.random.percent(50) {
                        self.process_dies(number, close.proc, WaitStatus::Signaled { signal: 13, core: false });
                    }
                }
            }
            MasterToNode::EndLaunch(end) => self.kill_where(number, |p| p.launch == end.launch),
            MasterToNode::Renice(_) => {}
            MasterToNode::EndAll(_) => self.kill_where(number, |_| true),
            MasterToNode::Forget(forget) => {
                if let Some(process) = self.nodes[number].processes.get(&forget.proc) {
                    assert!(!process.is_alive(), "3: process {} is forgotten while it lives", forget.proc);
                    let wanted = self.clients.iter().any(|c| c.launch == process.launch && !c.gone);
                    let arrived = |o: &Output| !o.stream || o.closed || o.eof_sent;
                    assert!(
                        !wanted || process.outputs.iter().all(arrived),
                        "4: process {} is forgotten before its output has arrived",
                        forget.proc
                    );
                    self.nodes[number].processes.remove(&forget.proc);
                }
            }
        }
    }

    fn renew(&mut self, number: usize) {
        let over = self.nodes[number].spoke + LEASE;
        let over = self.nodes[number].lease_over.map_or(over, |before| before.max(over));
        self.nodes[number].lease_over = Some(over);
        self.after(over.saturating_sub(self.now), Happening::LookAtLease(number));
    }

    /// What the master may have missed.
    fn repeat(&mut self, number: usize) {
        let mut messages = Vec::new();
        let mut frames = Vec::new();
        for (&proc, process) in &self.nodes[number].processes {
            match process.life {
                Life::Starting => {}
                Life::Failed => messages.push(failed(proc)),
                Life::Running | Life::Ended(_) => messages.push(started(proc)),
            }
            if let Some(signal) = process.stopped {
                messages.push(NodeToMaster::Stopped(node::Stopped { proc, signal }));
            }
            if process.input_gone {
                messages.push(NodeToMaster::StdinGone(node::StdinGone { proc }));
            } else if process.input.consumed() > 0 {
                messages.push(NodeToMaster::Ack(node::Ack { proc, fd: 0, offset: process.input.consumed() }));
            }
            if let Life::Ended(status) = process.life {
                messages.push(ended(proc, status));
            }
            for (fd, output) in (1u8..).zip(&process.outputs) {
                if output.closed || !output.stream {
                    continue;
                }
                let (mut offset, end) = (output.sender.acked(), output.sender.sent());
                while offset < end {
                    let len = (end - offset).min(100_000) as usize;
                    frames.push(output_data(proc, fd, offset, len, false));
                    offset += len as u64;
                }
                if output.eof_sent {
                    frames.push(output_data(proc, fd, end, 0, true));
                }
            }
        }
        for message in messages {
            self.tell(number, message);
        }
        for data in frames {
            self.node_sends(number, data);
        }
    }

    fn spawned(&mut self, number: usize, spawn: &node::Spawn) {
        if self.nodes[number].processes.contains_key(&spawn.proc) {
            return;
        }
        self.tally.processes += 1;
        assert!(
            !self.truth.contains_key(&spawn.proc) || self.truth[&spawn.proc].node == number,
            "process {} was begun on two nodes",
            spawn.proc
        );
        let spec = spawn.program.clone().unwrap_or_default();
        let output = |fd| Output {
            stream: spec.descriptor(fd) == Stdio::Stream,
            sender: Sender::new(spawn.window),
            piped: 0,
            over: false,
            eof_sent: false,
            closed: false,
        };
        let process = Remote {
            launch: spawn.launch,
            life: Life::Starting,
            stopped: None,
            early: Vec::new(),
            input: Receiver::new(spawn.window),
            input_eof: false,
            input_open: spec.descriptor(0) == Stdio::Stream,
            input_gone: false,
            outputs: [output(1), output(2)],
            signals: BTreeSet::new(),
            endless: self.random.percent(30),
        };
        self.nodes[number].processes.insert(spawn.proc, process);
        self.truth.insert(spawn.proc, Truth { node: number, written: [0; 2], vanished: false });
        self.process_later(number, spawn.proc);
    }

    fn process_later(&mut self, number: usize, proc: u64) {
        let delay = if self.random.percent(30) { self.random.micros(400_000) } else { self.random.delay() };
        self.after(delay, Happening::ProcessStep { node: number, proc });
    }

    pub fn process_step(&mut self, number: usize, proc: u64) {
        let choice = self.random.below(100);
        let amount = if self.random.percent(10) { self.random.below(400_000) } else { self.random.below(9_000) };
        let fd = self.random.below(2) as usize;
        let Some(process) = self.nodes[number].processes.get_mut(&proc) else { return };
        match process.life {
            Life::Starting if choice < 10 => {
                process.life = Life::Failed;
                process.outputs.iter_mut().for_each(|o| o.closed = true);
                return self.tell(number, failed(proc));
            }
            Life::Starting => {
                process.life = Life::Running;
                let early = std::mem::take(&mut process.early);
                self.tell(number, started(proc));
                for signal in early {
                    self.act_on_signal(number, proc, signal);
                }
            }
            Life::Running if process.stopped.is_some() => {}
            Life::Running => match choice {
                0..40 => {
                    let output = &mut process.outputs[fd];
                    // A full pipe makes the writer wait.
                    if output.stream && !output.over && output.piped < 65_536 {
                        output.piped += amount;
                        if let Some(truth) = self.truth.get_mut(&proc) {
                            truth.written[fd] += amount;
                        }
                    }
                }
                40..70 => {
                    let ready = process.input.received() - process.input.consumed();
                    process.input.consume(ready.min(amount) as usize);
                    if process.input_open
                        && let Some(offset) = process.input.ack_due(ready <= amount)
                    {
                        self.tell(number, NodeToMaster::Ack(node::Ack { proc, fd: 0, offset }));
                    }
                }
                70..73 if process.input_open => {
                    process.input_open = false;
                    process.input_gone = true;
                    self.tell(number, NodeToMaster::StdinGone(node::StdinGone { proc }));
                }
                73..76 => process.outputs[fd].over = true,
                76..80 => {
                    process.stopped = Some(libc::SIGTSTP as u32);
                    let signal = libc::SIGTSTP as u32;
                    self.tell(number, NodeToMaster::Stopped(node::Stopped { proc, signal }));
                }
                80..88 if !process.endless => {
                    return self.process_dies(number, proc, WaitStatus::Exited((amount % 256) as u8));
                }
                88..90 => {
                    return self.process_dies(number, proc, WaitStatus::Signaled { signal: 11, core: true });
                }
                _ => {}
            },
            Life::Failed | Life::Ended(_) => return,
        }
        self.flow(number, proc);
        self.process_later(number, proc);
    }

    fn process_dies(&mut self, number: usize, proc: u64, status: WaitStatus) {
        let Some(process) = self.nodes[number].processes.get_mut(&proc) else { return };
        if !process.is_alive() {
            return;
        }
        process.life = Life::Ended(status);
        process.stopped = None;
        process.input_open = false;
        process.outputs.iter_mut().for_each(|o| o.over = true);
        self.tell(number, ended(proc, status));
        self.flow(number, proc);
    }

    fn kill_where(&mut self, number: usize, which: impl Fn(&Remote) -> bool) {
        let procs: Vec<u64> =
            self.nodes[number].processes.iter().filter(|(_, p)| which(p)).map(|(&id, _)| id).collect();
        for proc in procs {
            self.process_dies(number, proc, WaitStatus::KILLED);
        }
    }

    /// Moves what the pipes hold as far as the windows allow.
    fn flow(&mut self, number: usize, proc: u64) {
        let mut frames = Vec::new();
        let Some(process) = self.nodes[number].processes.get_mut(&proc) else { return };
        for (fd, output) in (1u8..).zip(&mut process.outputs) {
            if !output.stream || output.closed {
                continue;
            }
            loop {
                let n = output.sender.room().min(output.piped as usize).min(100_000);
                if n == 0 {
                    break;
                }
                output.piped -= n as u64;
                let offset = output.sender.send(n);
                frames.push(output_data(proc, fd, offset, n, false));
            }
            if output.over && output.piped == 0 && !std::mem::replace(&mut output.eof_sent, true) {
                frames.push(output_data(proc, fd, output.sender.sent(), 0, true));
            }
        }
        if self.nodes[number].welcomed {
            for data in frames {
                self.node_sends(number, data);
            }
        }
    }

    fn node_signalled(&mut self, number: usize, signal: &node::Signal) {
        let proc = signal.proc;
        let mut errno = 0;
        match self.nodes[number].processes.get_mut(&proc) {
            Some(process) if process.signals.contains(&signal.seq) => self.tally.signals_again += 1,
            Some(process) if process.is_alive() => {
                process.signals.insert(signal.seq);
                if process.life == Life::Starting && signal.signal != libc::SIGKILL as u32 {
                    process.early.push(signal.signal);
                } else {
                    self.act_on_signal(number, proc, signal.signal);
                }
            }
            _ => errno = libc::ESRCH as u32,
        }
        if signal.confirm {
            self.tell(number, NodeToMaster::SignalDone(node::SignalDone { proc, seq: signal.seq, errno }));
        }
    }

    fn act_on_signal(&mut self, number: usize, proc: u64, signal: u32) {
        let Some(process) = self.nodes[number].processes.get_mut(&proc) else { return };
        if !process.is_alive() {
            return;
        }
        match signal as i32 {
            libc::SIGKILL | libc::SIGTERM | libc::SIGINT => {
                let signal = signal as u8;
                self.process_dies(number, proc, WaitStatus::Signaled { signal, core: false });
            }
            libc::SIGSTOP | libc::SIGTSTP if process.stopped.is_none() => {
                process.stopped = Some(signal);
                self.tell(number, NodeToMaster::Stopped(node::Stopped { proc, signal }));
            }
            libc::SIGCONT if process.stopped.take().is_some() => {
                self.tell(number, NodeToMaster::Continued(node::Continued { proc }));
            }
            _ => {}
        }
    }

    pub fn node_receives(&mut self, number: usize, link: LinkId, data: &Data) {
        self.look_at_lease(number);
        if self.nodes[number].link != Some(link) {
            return;
        }
        let Some(process) = self.nodes[number].processes.get_mut(&data.id) else { return };
        if !process.input_open {
            return;
        }
        let old =
            process.input.receive(data.offset, data.bytes.len()).expect("4: input has no gap and fits the window");
        let offset = data.offset + old as u64;
        let expected = content(stream_name(process.launch, 0), offset, data.bytes.len() - old);
        assert_eq!(data.bytes[old..], expected[..], "4: input of process {} is what was sent", data.id);
        self.tally.input += (data.bytes.len() - old) as u64;
        assert!(!process.input_eof || old == data.bytes.len(), "4: input after its end");
        process.input_eof |= data.eof;
    }

    /// A node says something of a process that is not its own, or long gone.
    pub fn lie(&mut self, number: usize) {
        let count = self.truth.len() as u64;
        let index = self.random.below(count) as usize;
        let Some((&proc, truth)) = self.truth.iter().nth(index) else { return };
        let foreign = truth.node != number;
        if !foreign && self.nodes[number].processes.contains_key(&proc) {
            return;
        }
        let choice = self.random.below(7);
        let before = foreign.then(|| self.core_process(proc));
        let Some(link) = self.nodes[number].link else { return };
        let event = match choice {
            0 => started(proc),
            1 => ended(proc, WaitStatus::Exited(9)),
            2 => failed(proc),
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
        self.unchanged(proc, before);
    }

    fn unchanged(&self, proc: u64, before: Option<String>) {
        if let Some(before) = before {
            assert_eq!(before, self.core_process(proc), "6: another node's word has changed process {proc}");
        }
    }
}

fn started(proc: u64) -> NodeToMaster {
    NodeToMaster::Started(node::Started { proc, pid: 1, cwd_errno: 0 })
}

fn failed(proc: u64) -> NodeToMaster {
    let stage = StartStage::Exec as i32;
    NodeToMaster::StartFailed(node::StartFailed { proc, stage, errno: 2, text: String::new() })
}

fn ended(proc: u64, status: WaitStatus) -> NodeToMaster {
    NodeToMaster::Ended(node::Ended { proc, status: status.to_raw(), usage: None })
}

fn output_data(proc: u64, fd: u8, offset: u64, len: usize, eof: bool) -> Data {
    Data { id: proc, offset, fd, eof, bytes: content(stream_name(proc, fd), offset, len) }
}

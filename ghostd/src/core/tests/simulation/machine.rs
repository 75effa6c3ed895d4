//! A node's kernel: the processes that the holder has made, what they read, write and do, and what it is told of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ghost_proto::ids::{LaunchId, ProcId};
use ghost_proto::node::Scope;
use ghost_proto::status::WaitStatus;
use nix::libc;
use nodeagent::holder::event::{Creation, Order, TreeEvent};
use nodeagent::holder::input::Waiting;

use super::plants::Plant;
use super::random::{content, stream_name};
use super::world::{Happening, World};

/// The holder's number in its namespace.
pub const HOLDER: u32 = 1;
/// Added to a stand-in's number if its original's is somebody else's.
const TAKEN: u32 = 1 << 21;
/// How long it may take until the holder knows of a changed group.
const UNSURE: Duration = Duration::from_millis(500);
/// What a pipe holds.
const PIPE: u64 = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Cloned, and not yet executing.
    Starting,
    Running,
    /// Dead; the holder has not waited for it.
    Zombie(WaitStatus),
    /// Only its pipes are left.
    Reaped,
}

/// What wait4(2) would tell besides the end: the last change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Stopped(u8),
    Continued,
}

/// A process.
#[derive(Debug)]
pub struct Remote {
    /// As the master knows it; 0: not yet.
    pub proc: u64,
    pub launch: LaunchId,
    /// Its parent; `None`: the holder.
    pub parent: Option<u32>,
    /// The holder has not made it.
    pub forked: bool,
    pub pgid: u32,
    pub sid: u32,
    /// Since when it is there.
    pub born: Duration,
    /// What the senders of its signals had given along.
    pub signals: BTreeSet<u64>,
    pub life: Life,
    /// How it went with its start, until the holder has looked: `Some(errno)`.
    pub started: Option<u32>,
    pub stopped: Option<u8>,
    pub change: Option<Change>,
    /// stdin: written by the holder, and read.
    pub fed: u64,
    pub taken: u64,
    pub input: bool,
    /// stdout and stderr: what lies in their pipes, and whether it or the holder has closed them.
    pub piped: [u64; 2],
    pub over: [bool; 2],
    pub broken: [bool; 2],
    pub streams: [bool; 3],
    pub endless: bool,
}

/// What is known of every process that was ever begun, for ever.
#[derive(Clone, Debug)]
pub struct Truth {
    pub node: usize,
    pub written: [u64; 2],
    /// The node forgot it, and its output, before the master had it.
    pub vanished: bool,
}

#[derive(Debug, Default)]
pub struct Machine {
    pub processes: BTreeMap<u32, Remote>,
    /// What the holder has open, by process.
    pub open: BTreeMap<u64, u32>,
    pub next_pid: u32,
    /// The number of each launcher's stand-in, which leads a group and a session.
    pub stand_ins: BTreeMap<LaunchId, u32>,
    /// When a process has last changed its group: the holder learns that some time later.
    pub regrouped: Option<Duration>,
    /// What the kernel programs have seen and the holder has not read.
    pub ring: VecDeque<TreeEvent>,
}

impl Remote {
    pub fn new(launch: LaunchId, endless: bool) -> Remote {
        Remote {
            proc: 0,
            launch,
            parent: None,
            forked: false,
            pgid: 0,
            sid: 0,
            born: Duration::ZERO,
            signals: BTreeSet::new(),
            life: Life::Starting,
            started: None,
            stopped: None,
            change: None,
            fed: 0,
            taken: 0,
            input: false,
            piped: [0; 2],
            over: [false; 2],
            broken: [false; 2],
            streams: [false; 3],
            endless,
        }
    }

    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Starting | Life::Running)
    }
}

impl Machine {
    pub fn new() -> Machine {
        Machine { next_pid: 1_000_000, ..Machine::default() }
    }

    pub fn is_childless(&self) -> bool {
        self.processes.values().all(|process| process.life == Life::Reaped)
    }

    /// The holder has closed all that it had open of it.
    pub fn close(&mut self, proc: u64) {
        if let Some(pid) = self.open.remove(&proc) {
            self.forget(pid);
        }
    }

    pub fn forget(&mut self, pid: u32) {
        if self.processes.get(&pid).is_some_and(|p| p.life == Life::Reaped && self.open.get(&p.proc) != Some(&pid)) {
            self.processes.remove(&pid);
        }
    }

    pub fn group_of(&self, pid: u32) -> Vec<u32> {
        let pgid = self.processes.get(&pid).map_or(0, |process| process.pgid);
        self.processes.iter().filter(|(_, p)| p.pgid == pgid && p.is_alive()).map(|(&pid, _)| pid).collect()
    }

    pub fn of_proc(&mut self, proc: u64) -> Option<(u32, &mut Remote)> {
        let pid = *self.open.get(&proc)?;
        self.processes.get_mut(&pid).map(|remote| (pid, remote))
    }
}

impl World {
    /// clone3(2), below stand-ins if the master has named whom they are to stand for. Gives number, group and session.
    pub fn make_process(&mut self, number: usize, creation: &Creation) -> Result<(u32, u32, u32), u32> {
        if self.random.percent(2) {
            return Err(libc::EAGAIN as u32);
        }
        let taken = self.random.percent(3);
        let endless = self.random.percent(30);
        let stand_in_taken = u32::from(self.random.percent(5)) * TAKEN;
        let now = self.now;
        let machine = &mut self.nodes[number].machine;
        machine.next_pid += 1;
        let pid = if creation.pid == 0 || taken { machine.next_pid } else { creation.pid };
        let (pgid, sid) = match &creation.origin {
            Some(origin) => {
                let stand_in = *machine.stand_ins.entry(creation.launch).or_insert(origin.group.pid + stand_in_taken);
                (stand_in, stand_in)
            }
            None => (pid, HOLDER),
        };
        let remote = Remote {
            proc: creation.proc.0,
            pgid,
            sid,
            born: now,
            input: creation.streams[0],
            streams: creation.streams,
            ..Remote::new(creation.launch, endless)
        };
        assert!(machine.processes.insert(pid, remote).is_none(), "a number is given twice");
        machine.open.insert(creation.proc.0, pid);
        let truth = Truth { node: number, written: [0; 2], vanished: false };
        self.tally.processes += 1;
        assert!(self.truth.insert(creation.proc.0, truth).is_none(), "process {} is begun twice", creation.proc.0);
        self.tree_forked(number, pid, 0);
        self.process_later(number, pid);
        Ok((pid, pgid, sid))
    }

    pub fn process_later(&mut self, node: usize, pid: u32) {
        let delay = if self.random.percent(30) { self.random.micros(400_000) } else { self.random.delay() };
        self.after(delay, Happening::ProcessStep { node, pid });
    }

    pub fn process_step(&mut self, number: usize, pid: u32) {
        let choice = self.random.below(100);
        let amount = if self.random.percent(10) { self.random.below(400_000) } else { self.random.below(9_000) };
        let fd = self.random.below(2) as usize;
        let ends = !self.chances.endless;
        let Some(process) = self.nodes[number].machine.processes.get_mut(&pid) else { return };
        let proc = process.proc;
        match process.life {
            Life::Starting if choice < 10 => {
                process.started = Some(libc::ENOENT as u32);
                return self.process_dies(number, pid, WaitStatus::Exited(127));
            }
            Life::Starting => {
                process.life = Life::Running;
                process.started = Some(0);
                self.tree_executed(number, pid);
                self.child_later(number, pid);
            }
            Life::Running if process.stopped.is_some() => {}
            Life::Running => match choice {
                // A full pipe makes the writer wait.
                0..40 if process.streams[fd + 1] && !process.over[fd] && process.piped[fd] < PIPE => {
                    if process.broken[fd] {
                        if choice < 20 {
                            return self.process_dies(number, pid, WaitStatus::Signaled { signal: 13, core: false });
                        }
                        process.over[fd] = true;
                    } else {
                        process.piped[fd] += amount;
                        if let Some(truth) = self.truth.get_mut(&proc) {
                            truth.written[fd] += amount;
                        }
                        self.read_outputs(number, proc);
                    }
                }
                40..70 => {
                    process.taken += (process.fed - process.taken).min(amount);
                    self.feed_process(number, proc);
                }
                70..73 if process.input => {
                    process.input = false;
                    self.feed_process(number, proc);
                }
                73..76 => {
                    process.over[fd] = true;
                    self.read_outputs(number, proc);
                }
                76..79 => self.process_stops(number, pid, libc::SIGTSTP as u8),
                90..96 if self.chances.forks => self.process_forks(number, pid),
                96..98 if self.chances.forks => self.process_regroups(number, pid),
                80..88 if ends && !process.endless => {
                    return self.process_dies(number, pid, WaitStatus::Exited((amount % 256) as u8));
                }
                79 if process.forked => self.tree_executed(number, pid),
                88..90 if ends => {
                    return self.process_dies(number, pid, WaitStatus::Signaled { signal: 11, core: true });
                }
                _ => {}
            },
            Life::Zombie(_) | Life::Reaped => return,
        }
        self.process_later(number, pid);
    }

    pub fn process_dies(&mut self, number: usize, pid: u32, status: WaitStatus) {
        let Some(process) = self.nodes[number].machine.processes.get_mut(&pid) else { return };
        if !process.is_alive() {
            return;
        }
        if status == WaitStatus::KILLED && self.planted.take_if(|planted| *planted == Plant::ProcessSurvives).is_some()
        {
            return;
        }
        process.life = Life::Zombie(status);
        (process.stopped, process.input, process.over) = (None, false, [true; 2]);
        self.tree_ended(number, pid, status);
        self.child_later(number, pid);
    }

    fn process_stops(&mut self, number: usize, pid: u32, signal: u8) {
        let Some(process) = self.nodes[number].machine.processes.get_mut(&pid) else { return };
        if process.stopped.is_none() && process.life == Life::Running {
            process.stopped = Some(signal);
            process.change = Some(Change::Stopped(signal));
            self.tree_stopped(number, pid, Some(signal));
            self.child_later(number, pid);
        }
    }

    /// SIGCHLD.
    pub fn child_later(&mut self, node: usize, pid: u32) {
        let delay = self.random.delay();
        self.after(delay, Happening::ChildChanged { node, pid });
    }

    /// Sends a signal; gives an errno.
    pub fn deliver(&mut self, number: usize, pid: u32, order: &Order) -> i32 {
        let busy = self.random.percent(10);
        let process = self.nodes[number].machine.processes.get(&pid);
        if process.is_none_or(|process| process.life == Life::Reaped) {
            return libc::ESRCH;
        }
        if order.signal >= 32 && busy {
            return libc::EAGAIN;
        }
        let targets = match order.scope {
            Scope::Group => self.nodes[number].group_of(pid, order),
            Scope::Process | Scope::Thread => vec![pid],
        };
        for target in targets {
            if order.signal >= 32 && self.goes_wrong(Plant::SignalLost) {
                continue;
            }
            self.signal_process(number, target, order);
            if order.value != 0 && self.goes_wrong(Plant::SignalDoubled) {
                self.signal_process(number, target, order);
            }
        }
        0
    }

    fn signal_process(&mut self, number: usize, pid: u32, order: &Order) {
        let (now, machine) = (self.now, &mut self.nodes[number].machine);
        // A group that is not the one that the holder knows; after a restart, not the one that it was. A process whose parent was not known
        // to run yet when its group got the signal.
        let regrouped = machine.regrouped.is_some_and(|at| now - at < UNSURE || self.generation > 0);
        let Some(process) = machine.processes.get_mut(&pid) else { return };
        let young = process.forked && now - process.born < UNSURE;
        let unsure = young || regrouped && order.scope == Scope::Group;
        if process.is_alive() && order.value != 0 {
            self.tally.signals_delivered += 1;
            let (signal, value, proc) = (order.signal, order.value, process.proc);
            let first = process.signals.insert(value);
            assert!(first || unsure, "7: signal {signal} number {value} reaches process {proc} twice");
        }
        match i32::from(order.signal) {
            libc::SIGKILL | libc::SIGTERM | libc::SIGINT => {
                self.process_dies(number, pid, WaitStatus::Signaled { signal: order.signal, core: false });
            }
            libc::SIGSTOP | libc::SIGTSTP => self.process_stops(number, pid, order.signal),
            libc::SIGCONT if process.stopped.take().is_some() => {
                process.change = Some(Change::Continued);
                self.tree_stopped(number, pid, None);
                self.child_later(number, pid);
            }
            _ => {}
        }
    }

    /// SIGKILL for processes and what descends from them.
    pub fn kill_below(&mut self, number: usize, mut all: Vec<u32>) {
        let mut at = 0;
        while let Some(&parent) = all.get(at) {
            let processes = &self.nodes[number].machine.processes;
            let children = processes.iter().filter(|(pid, p)| p.parent == Some(parent) && !all.contains(pid));
            let children: Vec<u32> = children.map(|(&pid, _)| pid).collect();
            all.extend(children);
            at += 1;
        }
        for pid in all {
            self.process_dies(number, pid, WaitStatus::KILLED);
        }
    }

    /// Writes into the pipe of stdin what it takes; gives how much, or that nobody reads. What goes in must be what was sent.
    pub fn write_input(&mut self, number: usize, proc: ProcId, pieces: &VecDeque<Waiting>) -> Result<usize, ()> {
        let Some((_, process)) = self.nodes[number].machine.of_proc(proc.0) else { return Err(()) };
        if !process.input {
            return Err(());
        }
        let mut room = (PIPE - (process.fed - process.taken)) as usize;
        let mut written = 0;
        for piece in pieces {
            let piece = piece.bytes();
            let n = piece.len().min(room);
            let expected = content(stream_name(process.launch.0, 0), process.fed, n);
            assert_eq!(piece[..n], expected[..], "4: input of process {} is what was sent", proc.0);
            process.fed += n as u64;
            (room, written) = (room - n, written + n);
        }
        self.tally.input += written as u64;
        Ok(written)
    }
}

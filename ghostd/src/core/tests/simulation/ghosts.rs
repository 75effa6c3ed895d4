//! The kernel's side of a ghost: its reads, what signals do to it, and the records of both.
//!
//! SIGKILL takes effect at once when the ghost is stopped, between two reads, or its read is not taken up; otherwise it lasts
//! until the read is answered.

use ghost_abi::{Scope, SignalFlags, SignalRecord};
use ghost_host::pin::ReadToken;
use ghost_proto::ids::ProcId;
use ghost_proto::status::WaitStatus;
use ghost_sys::ghost::{Answer, RANK_SHIFT};
use nix::libc;

use super::super::super::Event;
use super::world::{Happening, World};

pub const KILL: u16 = libc::SIGKILL as u16;
pub const STOP: u16 = libc::SIGSTOP as u16;
pub const CONT: u16 = libc::SIGCONT as u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between two reads, or acting on its last answer.
    Awake,
    /// The server has not taken it up.
    Queued(u64),
    Asleep(u64),
    Stopped,
    Dead,
}

#[derive(Debug)]
pub struct Ghost {
    pub client: usize,
    pub rank: u32,
    pub place: Place,
    /// Its task storage.
    pub process: Option<u64>,
    blocked: bool,
    pending: Vec<u16>,
    kill: bool,
    stop: bool,
    interrupted: bool,
    answer: Option<Answer>,
    /// The core knows of the SIGKILL.
    pub kill_told: bool,
    dropped: u64,
    step: u64,
    pub reaped: bool,
}

#[derive(Debug)]
pub enum Record {
    Signal(SignalRecord),
    Exit { ghost: u64, launcher: bool },
}

impl World {
    pub fn bear_ghost(&mut self, client: usize, rank: u32) -> u32 {
        self.next_pid += 1;
        let pid = self.next_pid;
        let ghost = Ghost {
            client,
            rank,
            place: Place::Awake,
            process: None,
            blocked: true,
            pending: Vec::new(),
            kill: false,
            stop: false,
            interrupted: false,
            answer: None,
            kill_told: false,
            dropped: 0,
            step: 0,
            reaped: false,
        };
        self.ghosts.insert(pid, ghost);
        self.plan_step(pid);
        pid
    }

    fn plan_step(&mut self, pid: u32) {
        let delay = self.random.delay();
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        ghost.step += 1;
        let step = ghost.step;
        self.after(delay, Happening::GhostStep { pid, step });
    }

    /// The ghost runs: it acts on its answer, or reads.
    pub fn ghost_step(&mut self, pid: u32, step: u64) {
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if ghost.step != step || ghost.place != Place::Awake {
            return;
        }
        match ghost.answer.take() {
            Some(Answer::Exit(code)) => return self.ghost_dies(pid, WaitStatus::Exited(code)),
            Some(Answer::Die(signal)) => return self.ghost_dies(pid, WaitStatus::Signaled { signal, core: false }),
            Some(Answer::Stop(_)) => {
                ghost.place = Place::Stopped;
                return;
            }
            Some(Answer::Armed) => {
                ghost.blocked = false;
                for signal in std::mem::take(&mut ghost.pending) {
                    self.record(pid, signal, SignalFlags::DELIVERED, Scope::Process, 0);
                }
            }
            Some(_) | None => {}
        }
        self.next_unique += 1;
        let unique = self.next_unique;
        if let Some(ghost) = self.ghosts.get_mut(&pid) {
            ghost.place = Place::Queued(unique);
            ghost.interrupted = false;
        }
        let delay = self.random.delay();
        self.after(delay, Happening::TakeUp { pid, unique });
    }

    pub fn take_up(&mut self, pid: u32, unique: u64) {
        self.drain_ring();
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if ghost.place != Place::Queued(unique) {
            return;
        }
        ghost.place = Place::Asleep(unique);
        self.readers.insert(unique, pid);
        let (file, offset) = (self.clients[ghost.client].file, u64::from(ghost.rank) << RANK_SHIFT);
        self.feed(Event::PinRead { token: ReadToken::for_test(unique), file, pid, offset });
    }

    pub fn interrupted(&mut self, unique: u64) {
        self.drain_ring();
        // Also of a read that has been answered meanwhile.
        self.feed(Event::PinInterrupted { unique });
    }

    pub fn attach(&mut self, process: ProcId, token: ReadToken, pid: u32) {
        let unique = token.unique();
        let is_ghost = self.readers.get(&unique) == Some(&pid) && self.ghosts.contains_key(&pid);
        if is_ghost {
            if let Some(ghost) = self.ghosts.get_mut(&pid) {
                ghost.process = Some(process.0);
            }
            self.answer(unique, Some(Answer::Armed));
        }
        self.feed_next(Event::Adopted { process, ok: is_ghost, pgid: 0 });
    }

    /// A read ends: with an answer, or with an error after which the ghost reads again.
    pub fn answer(&mut self, unique: u64, answer: Option<Answer>) {
        let Some(pid) = self.readers.remove(&unique) else { return };
        let Some(ghost) = self.ghosts.get(&pid) else { return };
        if ghost.place != Place::Asleep(unique) {
            return;
        }
        if ghost.kill_told
            && let Some(process) = ghost.process
            && !self.ending
        {
            assert!(!self.lives(process), "2: killed ghost {pid} goes before process {process} is dead");
        }
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        ghost.answer = answer;
        ghost.place = Place::Awake;
        if ghost.kill {
            self.tally.killed_asleep += 1;
            self.ghost_dies(pid, WaitStatus::KILLED);
        } else if ghost.stop {
            ghost.stop = false;
            ghost.place = Place::Stopped;
            self.tally.stopped_asleep += 1;
        } else {
            self.plan_step(pid);
        }
    }

    pub fn refuse_read(&mut self, unique: u64) {
        // EPERM: the ghost exits with 125.
        self.answer(unique, Some(Answer::Exit(125)));
    }

    pub fn signal_ghost(&mut self, pid: u32, signal: u16, scope: Scope, call: u64) {
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if ghost.place == Place::Dead {
            return;
        }
        if ghost.blocked && signal != KILL && signal != STOP {
            if !ghost.pending.contains(&signal) {
                ghost.pending.push(signal);
            }
        } else {
            self.record(pid, signal, 0, scope, call);
        }
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        match signal {
            KILL | STOP => {
                ghost.kill |= signal == KILL;
                ghost.stop |= signal == STOP;
                match ghost.place {
                    Place::Asleep(unique) => {
                        if !std::mem::replace(&mut ghost.interrupted, true) {
                            let delay = self.random.delay();
                            self.after(delay, Happening::Interrupted { unique });
                        }
                    }
                    _ if signal == KILL => {
                        self.tally.killed_awake += 1;
                        self.ghost_dies(pid, WaitStatus::KILLED);
                    }
                    Place::Awake | Place::Queued(_) => {
                        ghost.stop = false;
                        ghost.place = Place::Stopped;
                    }
                    Place::Stopped | Place::Dead => ghost.stop = false,
                }
            }
            CONT => {
                ghost.stop = false;
                self.wake(pid);
            }
            _ => {}
        }
    }

    /// SIGCONT by ghostd itself.
    pub fn continue_ghost(&mut self, process: ProcId, pid: u32) {
        match self.ghosts.get_mut(&pid) {
            Some(ghost) if ghost.process == Some(process.0) && ghost.place != Place::Dead => {
                ghost.stop = false;
                self.wake(pid);
            }
            _ => self.feed_next(Event::GhostExited { ghost: process.0, launcher: false, pid: 0 }),
        }
    }

    fn wake(&mut self, pid: u32) {
        if let Some(ghost) = self.ghosts.get_mut(&pid)
            && ghost.place == Place::Stopped
        {
            ghost.place = Place::Awake;
            self.plan_step(pid);
        }
    }

    fn ghost_dies(&mut self, pid: u32, status: WaitStatus) {
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        ghost.place = Place::Dead;
        let (client, rank, process) = (ghost.client, ghost.rank, ghost.process);
        if let Some(ghost) = process {
            self.push_record(pid, Record::Exit { ghost, launcher: false });
        }
        let delay = self.random.delay();
        self.after(delay, Happening::GhostSeenDead { client, rank, status });
    }

    fn record(&mut self, pid: u32, signal: u16, flags: u32, scope: Scope, call: u64) {
        let Some(ghost) = self.ghosts.get(&pid).and_then(|g| g.process) else { return };
        let uid = 1000;
        self.last_record += 1;
        let record = SignalRecord {
            kind: 1,
            flags,
            ghost,
            seq: self.last_record,
            call,
            value: 0,
            sig: signal,
            scope: scope as u16,
            si_code: 0,
            sender_pid: 1,
            sender_uid: uid,
            sender_euid: uid,
            pgid: 0,
        };
        self.push_record(pid, Record::Signal(record));
    }

    pub fn push_record(&mut self, pid: u32, record: Record) {
        if self.random.percent(self.chances.lost_record) {
            self.records_lost = true;
            if let (Record::Signal(signal), Some(ghost)) = (&record, self.ghosts.get_mut(&pid)) {
                ghost.dropped |= 1 << (signal.sig - 1);
            }
        } else {
            self.ring.push_back((pid, record));
        }
        let delay = self.random.delay();
        self.after(delay, Happening::Drain);
    }

    /// The ring is read before every event of the pin.
    pub fn drain_ring(&mut self) {
        while let Some((pid, record)) = self.ring.pop_front() {
            match record {
                Record::Signal(signal) => {
                    if let Some(ghost) = self.ghosts.get_mut(&pid) {
                        ghost.kill_told |= signal.sig == KILL;
                    }
                    self.feed(Event::Signal(signal));
                }
                Record::Exit { ghost, launcher } => self.feed(Event::GhostExited { ghost, launcher, pid }),
            }
        }
        if std::mem::take(&mut self.records_lost) {
            for (process, pid) in self.core.watched_ghosts() {
                let there = self.ghosts.get_mut(&pid).filter(|g| g.process == Some(process.0) && !g.reaped);
                let (signals, exited) = match there {
                    Some(ghost) => {
                        let signals = std::mem::take(&mut ghost.dropped);
                        ghost.kill_told |= signals & (1 << (KILL - 1)) != 0;
                        (signals, ghost.place == Place::Dead)
                    }
                    None => (0, true),
                };
                if signals != 0 || exited {
                    self.feed(Event::GhostState { process, signals, exited });
                }
            }
        }
    }
}

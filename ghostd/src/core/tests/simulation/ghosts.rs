//! The kernel's side of a ghost: its reads, what signals do to it, and the records of both.
//!
//! SIGKILL takes effect at once when the ghost is stopped, between two reads, or its read is not taken up; otherwise it lasts
//! until the read is answered.

use std::collections::BTreeMap;

use ghost_abi::{Scope, SignalFlags, SignalRecord};
use ghost_host::pin::ReadToken;
use ghost_proto::ids::ProcId;
use ghost_proto::status::WaitStatus;
use ghost_sys::ghost::{Answer, RANK_SHIFT};
use nix::libc;

use super::super::super::Event;
use super::plants::Plant;
use super::world::{Happening, World};

pub const KILL: u16 = libc::SIGKILL as u16;
pub const STOP: u16 = libc::SIGSTOP as u16;
pub const CONT: u16 = libc::SIGCONT as u16;
/// The first signal that counts.
pub const REAL_TIME: u16 = 32;
/// Takes in orphans, and waits for them.
pub const INIT: u32 = 1;

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
    pub parent: u32,
    pub pgid: u32,
    pub sid: u32,
    /// It gets the children that those below it leave.
    pub takes_in: bool,
    pub place: Place,
    /// Its task storage: whose ghost it is, what ghostd keeps with it, that SIGKILL was sent, and how many records were lost by signal.
    pub process: Option<u64>,
    pub tag: u32,
    pub kill_marked: bool,
    pub dropped: BTreeMap<u16, u32>,
    /// Whose ghost its next child is, and what ghostd keeps with that one.
    pub expecting: Option<(u64, u32)>,
    blocked: bool,
    /// Signals that wait, with what the sender gave along.
    pending: Vec<(u16, u64)>,
    kill: bool,
    stop: bool,
    interrupted: bool,
    answer: Option<Answer>,
    /// How it went what it was told last: its next read says so.
    outcome: u32,
    /// The core knows of the SIGKILL.
    pub kill_told: bool,
    step: u64,
    /// How it died.
    pub status: Option<WaitStatus>,
    /// Its parent waits for it as soon as it is dead.
    pub awaited: bool,
    pub reaped: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Record {
    Signal(SignalRecord),
    Exit { ghost: u64, launcher: bool },
}

impl Ghost {
    pub fn new(client: usize, rank: u32, parent: u32, pgid: u32, sid: u32) -> Ghost {
        Ghost {
            client,
            rank,
            parent,
            pgid,
            sid,
            takes_in: false,
            place: Place::Awake,
            process: None,
            tag: 0,
            kill_marked: false,
            dropped: BTreeMap::new(),
            expecting: None,
            blocked: true,
            pending: Vec::new(),
            kill: false,
            stop: false,
            interrupted: false,
            answer: None,
            outcome: 0,
            kill_told: false,
            step: 0,
            status: None,
            awaited: false,
            reaped: false,
        }
    }
}

impl Ghost {
    pub fn set_outcome(&mut self, errno: i32) {
        self.outcome = errno as u32;
    }
}

impl World {
    /// A launched process's ghost, made by bpsh.
    pub fn bear_ghost(&mut self, client: usize, rank: u32) -> u32 {
        self.next_pid += 1;
        let (pid, parent) = (self.next_pid, self.clients[client].pid);
        self.ghosts.insert(pid, Ghost::new(client, rank, parent, parent, parent));
        self.plan_step(pid);
        pid
    }

    pub fn plan_step(&mut self, pid: u32) {
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
        let answer = ghost.answer.take();
        if answer.is_some() {
            ghost.outcome = 0;
        }
        match answer {
            Some(Answer::Exit(code)) => return self.ghost_dies(pid, WaitStatus::Exited(code)),
            Some(Answer::Die(signal)) => return self.ghost_dies(pid, WaitStatus::Signaled { signal, core: false }),
            Some(Answer::Stop(_)) => {
                ghost.place = Place::Stopped;
                return;
            }
            Some(Answer::Armed) => {
                ghost.blocked = false;
                for (signal, value) in std::mem::take(&mut ghost.pending) {
                    self.record(pid, signal, SignalFlags::DELIVERED, Scope::Process, 0, value);
                }
            }
            Some(Answer::Fork(birth)) => self.ghost_forks(pid, &birth),
            Some(Answer::Reap(child)) => self.ghost_waits(pid, child),
            Some(Answer::Group(pgid)) => self.ghost_joins(pid, pgid),
            Some(Answer::Session) => self.ghost_leads(pid),
            Some(Answer::Found(pgid)) => self.ghost_founds(pid, pgid),
            Some(Answer::TakeIn) => {
                if let Some(ghost) = self.ghosts.get_mut(&pid) {
                    ghost.takes_in = true;
                    self.tally.takers += 1;
                }
            }
            // Nobody here sends anything upwards.
            Some(Answer::Again | Answer::Name(_) | Answer::Kill(_)) | None => {}
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
        let down = self.down;
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if ghost.place != Place::Queued(unique) || down {
            return;
        }
        ghost.place = Place::Asleep(unique);
        self.readers.insert(unique, pid);
        let offset = u64::from(ghost.rank) << RANK_SHIFT | u64::from(ghost.outcome);
        let file = self.clients[ghost.client].file;
        if ghost.interrupted {
            // fs/fuse/dev.c, fuse_dev_do_read(): it was interrupted before it was sent.
            let delay = self.random.delay();
            self.after(delay, Happening::Interrupted { unique });
        }
        self.feed(Event::PinRead { token: ReadToken::for_test(unique), file, pid, offset });
    }

    pub fn interrupted(&mut self, unique: u64) {
        self.drain_ring();
        let ghost = self.readers.get(&unique).and_then(|pid| self.ghosts.get(pid));
        if ghost.is_some_and(|g| g.kill && g.kill_told && g.process.is_some_and(|process| self.lives(process)))
            && self.goes_wrong(Plant::KilledGhostReleased)
        {
            self.answer(unique, None);
        }
        // Also of a read that has been answered meanwhile.
        self.feed(Event::PinInterrupted { unique });
    }

    /// A new server has the kernel hand all reads over again that the one before had taken up (fs/fuse/dev.c, fuse_resend()).
    pub fn resend_reads(&mut self) {
        self.readers.clear();
        for pid in self.ghosts.keys().copied().collect::<Vec<_>>() {
            let delay = self.random.delay();
            let Some(ghost) = self.ghosts.get_mut(&pid) else { continue };
            ghost.kill_told |= ghost.kill_marked;
            // What its group has got already is not known any more: those two are not told apart.
            ghost.pending.iter_mut().for_each(|(_, value)| *value = 0);
            if let Place::Asleep(_) = ghost.place {
                self.next_unique += 1;
                ghost.place = Place::Queued(self.next_unique);
            }
            if let Place::Queued(unique) = ghost.place {
                self.after(delay, Happening::TakeUp { pid, unique });
            }
        }
    }

    pub fn attach(&mut self, process: ProcId, token: ReadToken, pid: u32, parent: Option<u32>, tag: u32) {
        let unique = token.unique();
        let mut pgid = 0;
        let sleeper = self.ghosts.get_mut(&pid).filter(|_| self.readers.get(&unique) == Some(&pid));
        // The kernel has made it this process's ghost when its maker forked, or it is whose child it is to be.
        let is_ghost = sleeper.is_some_and(|ghost| {
            let born = ghost.process == Some(process.0);
            let is_ghost = born || parent.is_none_or(|parent| ghost.parent == parent);
            if is_ghost && !born {
                (ghost.process, ghost.tag) = (Some(process.0), tag);
            }
            pgid = ghost.pgid;
            is_ghost
        });
        let answer = if is_ghost { Answer::Armed } else { Answer::Exit(125) };
        self.answer(unique, Some(answer));
        self.feed_next(Event::Adopted { process, ok: is_ghost, pgid });
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

    pub fn signal_ghost(&mut self, pid: u32, signal: u16, scope: Scope, call: u64) {
        self.last_value += 1;
        let value = if call != 0 { call } else { self.last_value };
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if ghost.place == Place::Dead {
            return;
        }
        if let Some(process) =
            ghost.process.filter(|_| signal >= REAL_TIME && scope == Scope::Process && !ghost.blocked)
        {
            self.sent.push((process, value, self.now));
        }
        ghost.kill_marked |= signal == KILL && ghost.process.is_some();
        if ghost.blocked && signal != KILL && signal != STOP {
            if signal >= REAL_TIME || ghost.pending.iter().all(|(other, _)| *other != signal) {
                ghost.pending.push((signal, value));
            }
        } else {
            self.record(pid, signal, 0, scope, call, value);
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
                    // Nothing but SIGKILL ends a read that has begun (fs/fuse/dev.c, request_wait_answer()).
                    Place::Queued(_) => ghost.interrupted = true,
                    Place::Awake => {
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
        ghost.status = Some(status);
        let (client, rank, process, parent) = (ghost.client, ghost.rank, ghost.process, ghost.parent);
        ghost.reaped |= ghost.awaited || parent == INIT;
        if let Some(ghost) = process {
            self.push_record(pid, Record::Exit { ghost, launcher: false });
        }
        self.orphan_children(pid);
        if (rank as usize) < self.clients[client].width() {
            let delay = self.random.delay();
            self.after(delay, Happening::GhostSeenDead { client, rank, status });
        }
    }

    /// Numbers count all records, those that nobody here is told of as well.
    pub fn next_record(&mut self) -> u64 {
        let step = self.chances.record_step;
        self.last_record += 1 + self.random.below(step);
        self.last_record
    }

    fn record(&mut self, pid: u32, signal: u16, flags: u32, scope: Scope, call: u64, value: u64) {
        let Some(ghost) = self.ghosts.get(&pid).and_then(|g| g.process) else { return };
        let (uid, seq) = (1000, self.next_record());
        let record = SignalRecord {
            kind: 1,
            flags,
            ghost,
            seq,
            call,
            value,
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
            self.dropped += 1;
            if let (Record::Signal(signal), Some(ghost)) = (&record, self.ghosts.get_mut(&pid)) {
                *ghost.dropped.entry(signal.sig).or_default() += 1;
            }
        } else {
            self.ring.push_back((pid, record));
        }
        let delay = self.random.delay();
        self.after(delay, Happening::Drain);
    }
}

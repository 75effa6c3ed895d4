//! Stand-ins of the master's processes: above each launch its launcher, the launcher's group and session, with the numbers that
//! they have there (ghost_sys::standin). What is sent to them is seen by the programs that watch ghosts on the master.
//!
//! ```text
//! holder ── session's leader ──┬── group's leader
//!                              └── launcher ──┬── the launch's processes
//!                                             └── ranks of it that run on other nodes (beside)
//! ```
//! Leaders are shared by the launches that are below them, and stay a while when the last has gone: the next launch of
//! the same shell finds them. A number that is taken costs equality. What cannot be made at all (no kernel programs, a stand-in that
//! its user keeps stopping) is left out: then the holder itself is the parent, as it is for a master that names nobody.
//!
//! Invariant: a process is started below a stand-in only if signals to that are seen.

mod beside;
mod keeper;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ghost_abi::{Scope, SignalFlags, SignalRecord};
use ghost_host::programs::{Event as Seen, Programs};
use ghost_proto::ids::LaunchId;
use ghost_proto::standin::{Origin, Original, Other};
use ghost_sys::reaper::{self, Change};
use ghost_sys::standin::{self, Place, StandIn};
use nix::fcntl::OFlag;

use super::setup::log;

/// How long a leader stays when no launch is below it.
const STAY: Duration = Duration::from_secs(1);
/// How long a killed one may take to be gone when its number is wanted again, and how often it is looked for meanwhile.
const PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_micros(100);
/// Calls to kill(2) whose targets are still told apart.
const CALLS: usize = 64;

/// A process on this node has sent a signal to a stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The sender's number.
    pub sender: u32,
    /// Number on the master, of a process or a group.
    pub target: u32,
    pub group: bool,
    pub signal: u8,
    pub code: i32,
    pub value: u64,
}

#[derive(Debug)]
struct Entry {
    process: StandIn,
    original: u32,
    uid: u32,
    /// Its group's number on the master, and here.
    group: u32,
    pgid: u32,
    /// Its session here.
    sid: u32,
    /// Launches below it; since when there are none.
    users: usize,
    unused: Duration,
    /// It has been killed; its end is still to be seen.
    ending: bool,
}

impl Entry {
    /// Its end comes as a change.
    fn end(&mut self) {
        self.process.end();
        self.ending = true;
    }
}

/// Those above a launch.
#[derive(Debug, Default)]
struct Family {
    parent: u64,
    all: Vec<u64>,
    /// Ranks on other nodes, by their numbers.
    beside: BTreeMap<u32, u64>,
}

/// All of them.
pub struct StandIns {
    programs: Programs,
    reports: OwnedFd,
    /// Reports that were read before their time.
    held: VecDeque<Change>,
    writer: OwnedFd,
    next: u64,
    entries: HashMap<u64, Entry>,
    by_pid: HashMap<u32, u64>,
    /// By the numbers on the master: of the session, of the session and the group in it.
    sessions: HashMap<u32, u64>,
    groups: HashMap<(u32, u32), u64>,
    launches: HashMap<LaunchId, Family>,
    /// Ranks on other nodes that are to have stand-ins, and since when.
    wanted: VecDeque<(Duration, LaunchId, Other)>,
    calls: VecDeque<u64>,
    /// Seen, and not handed out yet: its sender may still have to be heard of.
    sent: Vec<Sent>,
}

impl StandIns {
    /// # Errors
    /// The kernel does not let us see signals, or there are no descriptors.
    pub fn new() -> anyhow::Result<StandIns> {
        let programs = Programs::load()?;
        let (reports, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // Not blocking on this side only would need two open files: the writers wait when it is full.
        nix::fcntl::fcntl(&reports, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        standin::prepare()?;
        Ok(StandIns {
            programs,
            reports,
            held: VecDeque::new(),
            writer,
            next: 0,
            entries: HashMap::new(),
            by_pid: HashMap::new(),
            sessions: HashMap::new(),
            groups: HashMap::new(),
            launches: HashMap::new(),
            wanted: VecDeque::new(),
            calls: VecDeque::new(),
            sent: Vec::new(),
        })
    }

    /// Readable when there are reports.
    pub fn reports_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }

    /// Readable when signals were seen.
    pub fn signals_fd(&self) -> BorrowedFd<'_> {
        self.programs.event_fd()
    }

    pub fn next_report(&mut self) -> Option<Change> {
        self.held.pop_front().or_else(|| standin::next_report(&self.reports))
    }

    /// Whether there is one that no descriptor tells of.
    pub fn holds_reports(&self) -> bool {
        !self.held.is_empty()
    }

    pub fn is_one(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Whose child a process of the launch is to be; `None`: the holder's.
    /// With it the group and the session in which that process will be.
    pub fn parent(&mut self, launch: LaunchId, origin: &Origin) -> Option<(&StandIn, [u32; 2])> {
        if !self.launches.contains_key(&launch) {
            let mut family = Family::default();
            if let Err(why) = self.make_family(origin, &mut family) {
                log(&format!("no stand-ins for the processes above a launch: {why}"));
                family.parent = 0;
            }
            self.launches.insert(launch, family);
        }
        let family = self.launches.get(&launch)?;
        self.entries.get(&family.parent).map(|entry| (&entry.process, [entry.pgid, entry.sid]))
    }

    /// The parent could not make a process: it is not asked again.
    pub fn give_up(&mut self, launch: LaunchId, why: &io::Error) {
        log(&format!("a stand-in could not make a process: {why}"));
        if let Some(family) = self.launches.get_mut(&launch) {
            family.parent = 0;
        }
    }

    fn make_family(&mut self, origin: &Origin, family: &mut Family) -> io::Result<()> {
        let (parent, group, session) = (&origin.parent, &origin.group, &origin.session);
        // 0: out of the master's sight. 1: its init, whose part the holder plays here.
        if [parent.pid, group.pid, session.pid].iter().any(|&pid| pid <= 1) {
            return Ok(());
        }
        self.wait_for_ends_of(&[session.pid, group.pid]);
        let leader = match self.sessions.get(&session.pid) {
            Some(&leader) if self.entries.get(&leader).is_some_and(|e| e.uid == session.uid && !e.ending) => leader,
            _ => {
                let leader = self.make(None, session, Place::LeadsSession, session.pid, true)?;
                self.sessions.insert(session.pid, leader);
                leader
            }
        };
        self.join(family, leader);
        if parent.pid == session.pid {
            family.parent = leader;
            return Ok(());
        }
        let place = if group.pid == session.pid {
            Place::Same
        } else if group.pid == parent.pid {
            Place::LeadsGroup
        } else {
            let key = (session.pid, group.pid);
            let first = match self.groups.get(&key) {
                Some(&first) if self.entries.get(&first).is_some_and(|entry| !entry.ending) => first,
                _ => {
                    let first = self.make(Some(leader), group, Place::LeadsGroup, group.pid, false)?;
                    self.groups.insert(key, first);
                    first
                }
            };
            self.join(family, first);
            Place::Group(self.entries.get(&first).map_or(0, |entry| entry.process.pid()))
        };
        family.parent = self.make(Some(leader), parent, place, group.pid, true)?;
        self.join(family, family.parent);
        Ok(())
    }

    /// Those that have been ended and have these numbers are to be gone, and seen to be, before others get the numbers.
    fn wait_for_ends_of(&mut self, numbers: &[u32]) {
        let begun = Instant::now();
        loop {
            while let Some(change) = standin::next_report(&self.reports) {
                if !self.changed(&change) {
                    self.held.push_back(change);
                }
            }
            let ending = self.entries.values().filter(|entry| entry.ending).map(|entry| entry.process.pid());
            let ending: Vec<u32> = ending.filter(|pid| numbers.contains(pid)).collect();
            if ending.is_empty() || begun.elapsed() > PATIENCE {
                return;
            }
            // A session's leader is the holder's own child.
            for change in ending.into_iter().filter_map(reaper::end_of) {
                self.changed(&change);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn join(&mut self, family: &mut Family, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users += 1;
            family.all.push(id);
        }
    }

    fn make(
        &mut self,
        maker: Option<u64>,
        original: &Original,
        place: Place,
        group: u32,
        busy: bool,
    ) -> io::Result<u64> {
        let maker = maker.and_then(|maker| self.entries.get(&maker));
        let (leader, sid) = maker.map_or((0, 0), |maker| (maker.process.pid(), maker.sid));
        let maker = maker.map(|maker| &maker.process);
        let mut comm = [0; 15];
        for (to, from) in comm.iter_mut().zip(&original.comm) {
            *to = *from;
        }
        let whom = standin::Original { pid: original.pid, uid: original.uid, comm };
        let process = StandIn::new(maker, &whom, place, self.writer.as_fd(), busy)?;
        self.next += 1;
        let (id, pid) = (self.next, process.pid());
        let watched = self.programs.attach_ghost(process.pidfd(), id, false);
        if watched.is_err() {
            process.end();
        }
        let pgid = match place {
            Place::LeadsSession | Place::Terminal(_) | Place::LeadsGroup => pid,
            Place::Group(pgid) => pgid,
            Place::Same => leader,
        };
        let sid = if matches!(place, Place::LeadsSession | Place::Terminal(_)) { pid } else { sid };
        let (original, uid) = (original.pid, original.uid);
        let entry = Entry { process, original, uid, group, pgid, sid, users: 0, unused: Duration::ZERO, ending: false };
        self.entries.insert(id, entry);
        self.by_pid.insert(pid, id);
        watched.map(|()| id)
    }

    /// A child of the holder's or of a stand-in's has changed. `false`: it is none of these.
    pub fn changed(&mut self, change: &Change) -> bool {
        let (Change::Ended { pid, .. } | Change::Stopped { pid, .. } | Change::Continued { pid }) = *change;
        let Some(&id) = self.by_pid.get(&pid) else { return false };
        match change {
            Change::Ended { .. } => {
                self.by_pid.remove(&pid);
                self.sessions.retain(|_, leader| *leader != id);
                self.groups.retain(|_, first| *first != id);
                if let Some(entry) = self.entries.remove(&id) {
                    entry.process.gone();
                }
            }
            Change::Stopped { .. } => self.go_on(id),
            Change::Continued { .. } => {}
        }
        true
    }

    fn go_on(&self, id: u64) {
        if let Some(entry) = self.entries.get(&id) {
            entry.process.go_on();
        }
    }

    /// Whoever of them a signal of the holder's has stopped, goes on.
    pub fn go_on_all(&self) {
        self.entries.values().for_each(|entry| entry.process.go_on());
    }

    /// Takes note of signals that were seen.
    pub fn look(&mut self) {
        while let Some(event) = self.programs.next_event() {
            match event {
                Seen::Signal(record) => self.seen(&record),
                // Its end comes as a change. What was lost because nobody read in time is lost, as with signals that do not queue.
                Seen::Exit(_) | Seen::Dropped => {}
            }
        }
    }

    fn seen(&mut self, record: &SignalRecord) {
        let Some(entry) = self.entries.get(&record.ghost) else { return };
        if i32::from(record.sig) == libc::SIGSTOP {
            entry.process.go_on();
        }
        let sender = u32::try_from(record.sender_pid).unwrap_or(0);
        // Who is not of the namespace, the node's own root for one, means the node's process.
        if sender == 0 || record.has(SignalFlags::KERNEL) || record.has(SignalFlags::DELIVERED) {
            return;
        }
        let group = record.scope() == Scope::Group;
        if group && self.calls.contains(&record.call) {
            return;
        }
        let target = match record.scope() {
            Scope::Process => entry.original,
            Scope::Group => entry.group,
            // All that there is on this node.
            Scope::Everyone => return,
        };
        if target == 0 {
            // The master has named nobody.
            return;
        }
        if group {
            if self.calls.len() >= CALLS {
                self.calls.pop_front();
            }
            self.calls.push_back(record.call);
        }
        let (signal, code, value) = (u8::try_from(record.sig).unwrap_or(0), record.si_code, record.value);
        self.sent.push(Sent { sender, target, group, signal, code, value });
    }

    /// What was seen since this was asked last, as far as its sender is known. `all`: no more will be heard of others.
    pub fn take_sent(&mut self, known: impl Fn(u32) -> bool, all: bool) -> Vec<Sent> {
        let mut taken = Vec::new();
        self.sent.retain(|sent| {
            let take = all || known(sent.sender);
            if take {
                taken.push(*sent);
            }
            !take
        });
        taken
    }

    /// When [`StandIns::tidy`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let unused = self.entries.values().filter(|entry| entry.users == 0 && !entry.ending);
        unused.map(|entry| entry.unused + STAY).chain(self.wanted.front().map(|(since, ..)| *since)).min()
    }

    /// Something has ended, or time has passed.
    pub fn tidy(&mut self, now: Duration, lives: impl Fn(LaunchId) -> bool) {
        for (_, family) in self.launches.extract_if(|launch, _| !lives(*launch)) {
            for id in family.beside.values() {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.users = 0;
                    entry.end();
                }
            }
            for id in family.all {
                let Some(entry) = self.entries.get_mut(&id) else { continue };
                entry.users -= 1;
                entry.unused = now;
                if id == family.parent && entry.users == 0 && !self.sessions.values().any(|leader| *leader == id) {
                    entry.end();
                }
            }
        }
        let over = |entry: &&mut Entry| entry.users == 0 && !entry.ending && entry.unused + STAY <= now;
        self.entries.values_mut().filter(over).for_each(Entry::end);
    }
}

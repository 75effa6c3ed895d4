//! What the started processes make of themselves: which forks the master is told of, and under which name. Pure.
//!
//! ```text
//! fork ──┬── there is room in the rate ──────────────> told
//!        └── Held ──┬── older than 50 ms ────────────> told
//!                   └── it ends before: never told
//! told ── exec, new groups ── ended ── reaped
//! ```
//! Invariants:
//! - A process that lives 50 ms is told, whatever the rate.
//! - Who is told has an ancestor that is told before: a process's parent here is the nearest living ancestor that the master
//!   knows, or nobody.
//! - A member is known by its key, never by its number alone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use ghost_abi::tree::Process;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::tree::{Standing, forked_id};

/// Forks that are told at once when they come together, and one more for each of these times.
const BURST: u32 = 64;
const ONE_MORE: Duration = Duration::from_micros(2_500);
/// What lives this long is told of.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is to be told of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Forked {
        proc: ProcId,
        parent: ProcId,
        launch: LaunchId,
        pid: u32,
        standing: Standing,
        creator: ProcId,
    },
    /// It was stopped before it was told of, and is.
    Stopped {
        proc: ProcId,
        signal: u8,
    },
    Execed {
        proc: ProcId,
        standing: Standing,
    },
    Ended {
        proc: ProcId,
        status: i32,
        /// Who inherits its children, if the master knows that one.
        heir: Option<ProcId>,
    },
    Reaped {
        proc: ProcId,
    },
}

#[derive(Debug)]
struct Member {
    pid: u32,
    launch: LaunchId,
    parent: Option<u64>,
    /// Who has made it, if that was not its parent.
    creator: Option<u64>,
    children: BTreeSet<u64>,
    /// `None`: not told of yet.
    proc: Option<ProcId>,
    /// Started by the holder itself.
    launched: bool,
    /// Its program has been executed: of a launched process the master knows the name.
    executed: bool,
    due: Duration,
    standing: Standing,
    /// How many records there were when its groups were looked at last: what they tell of groups is older.
    seen: u64,
    stopped: Option<u8>,
    ended: bool,
}

/// All processes in the namespace that descend from launched ones.
#[derive(Debug, Default)]
pub struct Tree {
    node: Option<NodeNumber>,
    counter: u64,
    members: HashMap<u64, Member>,
    held: BTreeSet<(Duration, u64)>,
    /// When the burst will be all there again.
    full: Duration,
}

impl Tree {
    /// `seed` makes the names differ from those of the holder before.
    pub fn begin(&mut self, node: NodeNumber, seed: u64) {
        if self.node.replace(node).is_none() {
            self.counter = (seed & 0xff_ffff) << 16;
        }
    }

    /// Everything has been killed.
    pub fn clear(&mut self) {
        self.members.clear();
        self.held.clear();
    }

    /// When [`Tree::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.held.first().map(|(due, _)| *due)
    }

    /// Whether this process was started by the holder, or descends from one that was.
    pub fn knows(&self, key: u64) -> bool {
        self.members.contains_key(&key)
    }

    /// Those that have not been reaped, for a comparison after records were lost.
    pub fn keys(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// The number of a process, if it lives.
    pub fn number_of(&self, key: u64) -> Option<u32> {
        self.members.get(&key).filter(|m| !m.ended).map(|m| m.pid)
    }

    /// A process that the holder has started.
    pub fn launched(&mut self, process: &Process, proc: ProcId, launch: LaunchId) {
        let member = Member { proc: Some(proc), launched: true, ..Member::new(process, launch, Duration::ZERO) };
        self.add(process.key, member);
    }

    /// A process forked. `launch`: the cgroup's, for one whose parent is not known here (CLONE_PARENT of a launched one).
    pub fn forked(&mut self, process: &Process, launch: Option<LaunchId>, now: Duration, told: &mut Vec<Told>) {
        if self.members.contains_key(&process.key) {
            return;
        }
        let creator = self.members.get(&process.creator_key).map(|creator| creator.launch);
        let parent = self.members.get_mut(&process.parent_key);
        let Some(launch) = parent.as_ref().map(|parent| parent.launch).or(creator).or(launch) else { return };
        let is_child = parent.is_some();
        if let Some(parent) = parent {
            parent.children.insert(process.key);
        }
        let mut member = Member::new(process, launch, now + PATIENCE);
        member.parent = is_child.then_some(process.parent_key);
        member.creator = creator.is_some().then_some(process.creator_key);
        self.add(process.key, member);
        self.learn_of_maker(process, told);
        if self.has_room(now) && self.parent_is_told(process.key) {
            self.tell(process.key, told);
        } else {
            self.held.insert((now + PATIENCE, process.key));
        }
    }

    /// A process is forked into the groups of its maker.
    fn learn_of_maker(&mut self, child: &Process, told: &mut Vec<Told>) {
        let maker = if child.creator_key == 0 { child.parent_key } else { child.creator_key };
        let Some(maker) = self.members.get_mut(&maker) else { return };
        let (pgid, sid) = (child.pgid.unsigned_abs(), child.sid.unsigned_abs());
        let known = (maker.standing.pgid, maker.standing.sid) == (pgid, sid);
        if known || maker.ended || child.seq <= maker.seen || maker.launched && !maker.executed {
            return;
        }
        (maker.standing.pgid, maker.standing.sid) = (pgid, sid);
        if let Some(proc) = maker.proc {
            told.push(Told::Execed { proc, standing: maker.standing.clone() });
        }
    }

    /// Where the launched ones stand, for a master that may have missed it.
    pub fn launched_standings(&self) -> HashMap<ProcId, Standing> {
        let all = self.members.values().filter(|member| member.launched && member.executed && !member.ended);
        all.filter_map(|member| Some((member.proc?, member.standing.clone()))).collect()
    }

    /// A process executes a program.
    pub fn executed(&mut self, process: &Process, told: &mut Vec<Told>) {
        let Some(member) = self.members.get_mut(&process.key) else { return };
        let now = standing(process);
        member.standing = if process.seq > member.seen || process.seq == 0 {
            now
        } else {
            Standing { pgid: member.standing.pgid, sid: member.standing.sid, ..now }
        };
        let first = !std::mem::replace(&mut member.executed, true);
        if let Some(proc) = member.proc
            && !(first && member.launched)
        {
            told.push(Told::Execed { proc, standing: member.standing.clone() });
        }
    }

    /// What all processes are now. Some have changed their groups, or their names, since it was told. `seen`: how many records there
    /// were before the look.
    pub fn compared(&mut self, all: &[Process], seen: u64, told: &mut Vec<Told>) {
        let mut changed: Vec<&Process> = Vec::new();
        for process in all {
            let Some(member) = self.members.get_mut(&process.key) else { continue };
            if member.ended || process.flags & Process::ENDED != 0 {
                continue;
            }
            member.seen = seen;
            if member.standing != standing(process)
                // A launched one has its groups and its name when it has executed its program.
                && (member.executed || !member.launched)
            {
                member.standing = standing(process);
                changed.push(process);
            }
        }
        // A group is led before it is joined.
        changed.sort_by_key(|process| (process.sid != process.pid, process.pgid != process.pid));
        for process in changed {
            let Some(member) = self.members.get(&process.key) else { continue };
            if let Some(proc) = member.proc {
                told.push(Told::Execed { proc, standing: member.standing.clone() });
            }
        }
    }

    /// The group and session of one process now.
    pub fn stands(&mut self, pid: u32, pgid: u32, sid: u32, told: &mut Vec<Told>) {
        let Some(member) = self.members.values_mut().find(|member| member.pid == pid && !member.ended) else { return };
        if (member.standing.pgid, member.standing.sid) == (pgid, sid) || member.launched && !member.executed {
            return;
        }
        (member.standing.pgid, member.standing.sid) = (pgid, sid);
        if let Some(proc) = member.proc {
            told.push(Told::Execed { proc, standing: member.standing.clone() });
        }
    }

    /// Key and number of its dead children that are not known to have been waited for.
    pub fn dead_children(&self, pid: u32) -> Vec<(u64, u32)> {
        let Some(member) = self.members.values().find(|member| member.pid == pid && !member.ended) else {
            return Vec::new();
        };
        let dead = |key: &u64| self.members.get(key).filter(|child| child.ended).map(|child| (*key, child.pid));
        member.children.iter().filter_map(dead).collect()
    }

    /// There is somebody of whom the master knows.
    pub fn is_told_of_any(&self) -> bool {
        !self.members.is_empty()
    }

    /// The last thread of a process ends. `heir`: who inherits its children; 0: nobody here.
    pub fn ended(&mut self, key: u64, status: i32, heir: u64, told: &mut Vec<Told>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        if std::mem::replace(&mut member.ended, true) {
            return;
        }
        let (proc, launched) = (member.proc, member.launched);
        if proc.is_some() {
            // Its children are told of as long as it can be their parent.
            let Some(member) = self.members.get_mut(&key) else { return };
            member.ended = false;
            for child in member.children.clone() {
                if self.members.get(&child).is_some_and(|child| child.proc.is_none() && !child.ended) {
                    self.tell(child, told);
                }
            }
            if let Some(member) = self.members.get_mut(&key) {
                member.ended = true;
            }
        }
        self.hand_on(key, heir);
        let heir = self.members.get(&heir).filter(|heir| !heir.ended).and_then(|heir| heir.proc);
        match proc {
            // The holder waits for it itself.
            Some(_) if launched => {}
            Some(proc) => told.push(Told::Ended { proc, status, heir }),
            None => self.drop(key),
        }
    }

    /// Its children are another one's.
    fn hand_on(&mut self, key: u64, heir: u64) {
        if heir == key || !self.members.contains_key(&heir) {
            return;
        }
        let children = self.members.get_mut(&key).map(|member| std::mem::take(&mut member.children));
        for child in children.into_iter().flatten() {
            if let Some(member) = self.members.get_mut(&child) {
                member.parent = Some(heir);
            }
            if let Some(heir) = self.members.get_mut(&heir) {
                heir.children.insert(child);
            }
        }
    }

    /// A dead process has been waited for.
    pub fn reaped(&mut self, key: u64, told: &mut Vec<Told>) {
        let Some(member) = self.members.get(&key) else { return };
        if let (Some(proc), false) = (member.proc, member.launched) {
            told.push(Told::Reaped { proc });
        }
        self.drop(key);
    }

    /// A process has stopped (by this signal), or goes on. Gives its name, if the master knows it.
    pub fn stopped(&mut self, key: u64, signal: Option<u8>) -> Option<ProcId> {
        let member = self.members.get_mut(&key).filter(|m| !m.ended && !m.launched)?;
        if member.stopped == signal {
            return None;
        }
        member.stopped = signal;
        member.proc
    }

    /// Tells of a process by its number, whatever the rate.
    pub fn tell_of(&mut self, pid: u32, told: &mut Vec<Told>) {
        let held = self.held.iter().map(|(_, key)| *key);
        let found = held.into_iter().find(|key| self.members.get(key).is_some_and(|m| m.pid == pid && !m.ended));
        if let Some(key) = found {
            self.tell(key, told);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration, told: &mut Vec<Told>) {
        while let Some(&(due, key)) = self.held.first()
            && due <= now
        {
            self.tell(key, told);
        }
    }

    fn add(&mut self, key: u64, member: Member) {
        self.members.insert(key, member);
    }

    /// Whether its parent is told, and who made it.
    fn parent_is_told(&self, key: u64) -> bool {
        let Some(member) = self.members.get(&key) else { return false };
        let told = |key: u64| self.members.get(&key).is_none_or(|member| member.proc.is_some());
        member.parent.is_none_or(told) && member.creator.is_none_or(told)
    }

    /// A bucket of [`BURST`] tokens: `full` is when it is full again.
    fn has_room(&mut self, now: Duration) -> bool {
        let full = self.full.max(now) + ONE_MORE;
        if full > now + ONE_MORE * BURST {
            return false;
        }
        self.full = full;
        true
    }

    fn tell(&mut self, key: u64, told: &mut Vec<Told>) {
        let Some(node) = self.node else { return };
        let parent = self.told_ancestor(key);
        let creator = self.members.get(&key).and_then(|member| self.members.get(&member.creator?));
        let creator = creator.filter(|creator| !creator.ended).and_then(|creator| creator.proc);
        let Some(member) = self.members.get_mut(&key) else { return };
        self.held.remove(&(member.due, key));
        if member.proc.is_some() {
            return;
        }
        self.counter = self.counter.wrapping_add(1);
        let proc = forked_id(node, self.counter);
        member.proc = Some(proc);
        told.push(Told::Forked {
            proc,
            parent: parent.unwrap_or_default(),
            launch: member.launch,
            pid: member.pid,
            standing: member.standing.clone(),
            creator: creator.unwrap_or_default(),
        });
        if let Some(signal) = member.stopped {
            told.push(Told::Stopped { proc, signal });
        }
    }

    fn told_ancestor(&self, key: u64) -> Option<ProcId> {
        let mut at = self.members.get(&key)?.parent?;
        loop {
            let member = self.members.get(&at)?;
            if let Some(proc) = member.proc
                && !member.ended
            {
                return Some(proc);
            }
            at = member.parent?;
        }
    }

    /// Its children hang on its parent from now on, as far as what is to be told of them goes.
    fn drop(&mut self, key: u64) {
        let Some(member) = self.members.remove(&key) else { return };
        self.held.remove(&(member.due, key));
        for child in &member.children {
            if let Some(child) = self.members.get_mut(child) {
                child.parent = member.parent;
            }
        }
        if let Some(parent) = member.parent.and_then(|parent| self.members.get_mut(&parent)) {
            parent.children.remove(&key);
            parent.children.extend(member.children);
        }
    }
}

impl Member {
    fn new(process: &Process, launch: LaunchId, due: Duration) -> Member {
        Member {
            pid: process.pid.unsigned_abs(),
            launch,
            parent: None,
            creator: None,
            children: BTreeSet::new(),
            proc: None,
            launched: false,
            executed: false,
            due,
            standing: standing(process),
            seen: 0,
            stopped: None,
            ended: false,
        }
    }
}

fn standing(process: &Process) -> Standing {
    Standing {
        pgid: process.pgid.unsigned_abs(),
        sid: process.sid.unsigned_abs(),
        uid: process.uid,
        gid: process.gid,
        comm: Bytes::copy_from_slice(process.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const NODE: NodeNumber = NodeNumber(3);

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            kind: 1,
            parent,
            seq: 0,
            key: pid as u64 | 1 << 40,
            parent_key: parent as u64 | 1 << 40,
            creator_key: 0,
            pid,
            pgid: 10,
            sid: 1,
            uid: 1000,
            euid: 1000,
            gid: 100,
            status: 0,
            flags: 0,
            comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.begin(NODE, 5);
        tree.launched(&process(10, 1), ProcId(7), LaunchId(2));
        tree
    }

    fn key(pid: i32) -> u64 {
        process(pid, 0).key
    }

    fn forks(told: &[Told]) -> Vec<(u32, ProcId)> {
        let fork = |t: &Told| if let Told::Forked { pid, parent, .. } = t { Some((*pid, *parent)) } else { None };
        told.iter().filter_map(fork).collect()
    }

    #[test]
    fn a_life_is_told_in_order() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.forked(&process(11, 10), None, MS, &mut told);
        tree.executed(&process(11, 10), &mut told);
        assert!(tree.stopped(key(11), Some(19)).is_some());
        assert!(tree.stopped(key(11), Some(19)).is_none(), "told once");
        tree.ended(key(11), 256, 0, &mut told);
        tree.ended(key(11), 256, 0, &mut told);
        tree.reaped(key(11), &mut told);
        let names: Vec<&str> = told
            .iter()
            .map(|t| match t {
                Told::Forked { parent: ProcId(7), launch: LaunchId(2), pid: 11, .. } => "forked",
                Told::Execed { .. } => "execed",
                Told::Ended { status: 256, .. } => "ended",
                Told::Reaped { .. } => "reaped",
                _ => "?",
            })
            .collect();
        assert_eq!(names, ["forked", "execed", "ended", "reaped"]);
        assert!(!tree.knows(key(11)));
    }

    #[test]
    fn the_first_program_of_a_launched_process_is_known_to_the_master() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.executed(&process(10, 1), &mut told);
        assert_eq!(told, []);
        tree.executed(&process(10, 1), &mut told);
        assert!(matches!(told[..], [Told::Execed { proc: ProcId(7), .. }]));
    }

    #[test]
    fn in_a_storm_only_what_lives_is_told() {
        let (mut tree, mut told) = (tree(), Vec::new());
        for pid in 100..1100 {
            tree.forked(&process(pid, 10), None, MS, &mut told);
        }
        let at_once = told.len();
        assert_eq!(at_once, BURST as usize);
        for pid in 100..1090 {
            tree.ended(key(pid), 0, 0, &mut told);
        }
        told.clear();
        tree.tick(MS + PATIENCE - MS, &mut told);
        assert_eq!(told, []);
        tree.tick(MS + PATIENCE, &mut told);
        assert_eq!(forks(&told).len(), 10);
        assert_eq!(tree.deadline(), None);
    }

    #[test]
    fn who_sends_something_upwards_is_told_of() {
        let (mut tree, mut told) = (tree(), Vec::new());
        while told.len() < BURST as usize {
            tree.forked(&process(200 + told.len() as i32, 10), None, MS, &mut told);
        }
        told.clear();
        tree.forked(&process(50, 10), None, MS, &mut told);
        tree.tell_of(51, &mut told);
        assert_eq!(told, []);
        tree.tell_of(50, &mut told);
        assert_eq!(forks(&told), [(50, ProcId(7))]);
        tree.tell_of(50, &mut told);
        assert_eq!(told.len(), 1, "told once");
    }

    #[test]
    fn the_child_of_one_that_was_never_told_hangs_on_its_ancestor() {
        let (mut tree, mut told) = (tree(), Vec::new());
        while told.len() < BURST as usize {
            tree.forked(&process(200 + told.len() as i32, 10), None, MS, &mut told);
        }
        told.clear();
        tree.forked(&process(50, 10), None, MS, &mut told);
        tree.forked(&process(51, 50), None, 2 * MS, &mut told);
        tree.forked(&process(52, 51), None, 3 * MS, &mut told);
        tree.ended(key(50), 0, 0, &mut told);
        tree.reaped(key(50), &mut told);
        tree.tick(100 * MS, &mut told);
        let found = forks(&told);
        assert_eq!(found[0], (51, ProcId(7)));
        assert_eq!(found[1].0, 52);
        assert!(ghost_proto::tree::is_forked_on(found[1].1, NODE));
    }

    #[test]
    fn the_children_of_the_dead_are_their_heirs() {
        let (mut tree, mut told) = (tree(), Vec::new());
        for (pid, parent) in [(50, 10), (51, 50), (52, 51), (53, 52)] {
            tree.forked(&process(pid, parent), None, MS, &mut told);
        }
        let named: Vec<ProcId> = told
            .drain(..)
            .filter_map(|told| if let Told::Forked { proc, .. } = told { Some(proc) } else { None })
            .collect();
        tree.ended(key(52), 0, key(50), &mut told);
        assert_eq!(told, [Told::Ended { proc: named[2], status: 0, heir: Some(named[0]) }]);
        tree.ended(key(53), 0, 0, &mut told);
        assert_eq!(tree.dead_children(50), [(key(53), 53)]);
        // Who is not known inherits nothing; neither does a dead one.
        told.clear();
        tree.ended(key(50), 0, 0, &mut told);
        tree.ended(key(51), 0, key(50), &mut told);
        assert_eq!(told[1], Told::Ended { proc: named[1], status: 0, heir: None });
    }

    #[test]
    fn children_are_told_of_before_their_parent_is_gone() {
        let (mut tree, mut told) = (tree(), Vec::new());
        for pid in 100..300 {
            tree.forked(&process(pid, 10), None, MS, &mut told);
        }
        tree.ended(key(100), 0, 0, &mut told);
        assert_eq!(forks(&told).len(), BURST as usize);
        tree.ended(key(250), 0, 0, &mut told);
        // The launched one: its own end is told otherwise.
        tree.ended(key(10), 0, 0, &mut told);
        let found = forks(&told);
        assert_eq!(found.len(), 199, "all but the one that was not told of and has ended");
        assert!(found.iter().all(|(_, parent)| *parent == ProcId(7)));
        assert_eq!(tree.deadline(), None);
    }

    #[test]
    fn changes_are_found_by_comparing() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.forked(&process(11, 10), None, MS, &mut told);
        tree.forked(&process(12, 10), None, MS, &mut told);
        told.clear();
        let listed = |pid: i32, pgid: i32| Process { pgid, ..process(pid, 10) };
        tree.compared(&[listed(11, 10), listed(12, 10)], 0, &mut told);
        assert_eq!(told, []);
        tree.compared(&[listed(11, 12), listed(12, 12)], 0, &mut told);
        let groups: Vec<u32> = told
            .iter()
            .map(|told| match told {
                Told::Execed { standing, .. } => standing.pgid,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(groups, [12, 12]);
        let Told::Forked { proc: leader, .. } = ({
            let mut again = Vec::new();
            tree.forked(&process(13, 12), None, MS, &mut again);
            again.remove(0)
        }) else {
            panic!("not told")
        };
        assert!(matches!(told[0], Told::Execed { proc, .. } if proc != leader));
        told.clear();
        tree.compared(&[listed(11, 12), listed(12, 12)], 0, &mut told);
        assert_eq!(told, [], "once");
        let ended = Process { flags: Process::ENDED, ..listed(11, 10) };
        tree.compared(&[ended], 0, &mut told);
        assert_eq!(told, [], "the dead change nothing any more");
    }

    /// `seq`: the record's number.
    fn grouped(pid: i32, parent: i32, pgid: i32, seq: u64) -> Process {
        Process { pgid, seq, ..process(pid, parent) }
    }

    fn groups(told: &[Told]) -> Vec<(bool, u32)> {
        let group = |told: &Told| match told {
            Told::Forked { standing, .. } => Some((true, standing.pgid)),
            Told::Execed { standing, .. } => Some((false, standing.pgid)),
            _ => None,
        };
        told.iter().filter_map(group).collect()
    }

    #[test]
    fn a_fork_tells_the_groups_of_its_maker() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.forked(&process(11, 10), None, MS, &mut told);
        tree.forked(&grouped(12, 11, 11, 5), None, MS, &mut told);
        assert_eq!(groups(&told), [(true, 10), (false, 11), (true, 11)]);
    }

    #[test]
    fn what_a_look_has_seen_no_older_record_takes_back() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.forked(&process(11, 10), None, MS, &mut told);
        tree.compared(&[grouped(11, 10, 11, 0)], 7, &mut told);
        told.clear();
        tree.forked(&grouped(12, 11, 10, 6), None, MS, &mut told);
        tree.executed(&grouped(11, 10, 10, 7), &mut told);
        assert_eq!(groups(&told), [(true, 10), (false, 11)]);
        told.clear();
        tree.executed(&grouped(11, 10, 10, 8), &mut told);
        assert_eq!(groups(&told), [(false, 10)], "this one is newer");
    }

    /// What a child has made of itself before it was told of is nothing of its maker's.
    #[test]
    fn who_is_told_of_late_speaks_for_nobody_else() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.executed(&process(10, 1), &mut told);
        while told.len() < BURST as usize {
            tree.forked(&process(200 + told.len() as i32, 10), None, MS, &mut told);
        }
        told.clear();
        tree.forked(&process(50, 10), None, MS, &mut told);
        tree.compared(&[grouped(50, 10, 50, 0), process(10, 1)], 7, &mut told);
        assert_eq!(told, []);
        tree.tick(100 * MS, &mut told);
        assert_eq!(groups(&told), [(true, 50)]);
    }

    #[test]
    fn a_sibling_is_told_with_its_maker() {
        let (mut tree, mut told) = (tree(), Vec::new());
        let sibling = Process { creator_key: key(10), parent_key: 0, ..process(11, 1) };
        tree.forked(&sibling, None, MS, &mut told);
        assert!(
            matches!(told[..], [Told::Forked { parent: ProcId(0), creator: ProcId(7), launch: LaunchId(2), .. }]),
            "{told:?}"
        );
    }

    #[test]
    fn strangers_are_not_members_but_those_of_a_launchs_cgroup_are() {
        let (mut tree, mut told) = (tree(), Vec::new());
        tree.forked(&process(61, 60), None, MS, &mut told);
        assert_eq!(told, []);
        tree.forked(&process(62, 1), Some(LaunchId(2)), MS, &mut told);
        assert_eq!(forks(&told), [(62, ProcId(0))]);
    }

    proptest! {
        #[test]
        fn parents_come_first_and_nothing_is_left(steps in prop::collection::vec((0u8..4, 0usize..20, 0u64..20), 1..400)) {
            let (mut tree, mut told) = (tree(), Vec::new());
            let (mut live, mut dead, mut next, mut now) = (vec![10], Vec::new(), 1000, MS);
            for (what, which, ms) in steps {
                now += MS * ms as u32;
                tree.tick(now, &mut told);
                match what {
                    0 | 1 => {
                        tree.forked(&process(next, live[which % live.len()]), None, now, &mut told);
                        live.push(next);
                        next += 1;
                    }
                    2 if live.len() > 1 => {
                        let pid = live.remove(1 + which % (live.len() - 1));
                        tree.ended(key(pid), 0, 0, &mut told);
                        dead.push(pid);
                    }
                    3 if !dead.is_empty() => {
                        let pid = dead.remove(which % dead.len());
                        tree.reaped(key(pid), &mut told);
                    }
                    _ => {}
                }
            }
            tree.tick(now + PATIENCE, &mut told);
            let mut known = vec![ProcId(7)];
            let mut living = BTreeSet::new();
            for t in &told {
                match t {
                    Told::Forked { proc, parent, pid, .. } => {
                        prop_assert!(known.contains(parent));
                        prop_assert!(!known.contains(proc));
                        known.push(*proc);
                        living.insert((*proc, *pid as i32));
                    }
                    Told::Ended { proc, .. } => living.retain(|(p, _)| p != proc),
                    _ => {}
                }
            }
            let told_living: BTreeSet<i32> = living.iter().map(|(_, pid)| *pid).collect();
            prop_assert_eq!(told_living, live[1..].iter().copied().collect::<BTreeSet<i32>>());
            for pid in live.into_iter().chain(dead) {
                tree.ended(key(pid), 0, 0, &mut told);
                tree.reaped(key(pid), &mut told);
            }
            prop_assert!(tree.members.is_empty() && tree.held.is_empty());
        }
    }
}

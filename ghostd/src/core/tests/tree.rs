//! Ghosts of forked processes.

use std::time::Duration;

use ghost_abi::{Scope as Aim, SignalRecord};
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{self, MasterToNode, NodeToMaster};
use ghost_proto::tree::{Execed, Forked, Reaped, Standing, forked_id};
use ghost_sys::ghost::{Answer, Birth};

use super::super::{Action, Event};
use super::transitions::{Bench, CLIENT, GHOST, answers, to_client, to_nodes};

/// What node 0 forks: the process's name and its number there.
const CHILD: u32 = 1_048_600;

fn child(counter: u64) -> ProcId {
    forked_id(NodeNumber(0), counter)
}

fn standing(pgid: u32, sid: u32, comm: &str) -> Standing {
    Standing { pgid, sid, uid: 1000, gid: 1000, comm: comm.to_owned().into() }
}

fn comm(name: &str) -> [u8; 15] {
    let mut comm = [0; 15];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

impl Bench {
    fn forks(&mut self, counter: u64, parent: ProcId, pid: u32) -> Vec<Action> {
        let standing = Some(standing(GHOST, 1, "sh"));
        let forked = Forked { proc: child(counter).0, parent: parent.0, launch: 1, pid, standing };
        self.node(0, 10, NodeToMaster::Forked(forked))
    }

    /// A ghost that was told to makes another one, which comes and is watched; both sleep.
    fn born(&mut self, maker: u32, birth: Birth, pid: u32) -> Vec<Action> {
        self.read(maker, 0);
        let mut actions = self.read(pid, u64::from(birth.rank));
        let parent = if maker == 0 { None } else { Some(maker) };
        assert!(
            matches!(actions[..], [Action::Adopt { pid: p, parent: q, uid: 1000, .. }] if p == pid && q == parent),
            "{actions:?}"
        );
        let Action::Adopt { process, .. } = actions.remove(0) else { unreachable!() };
        self.feed(Event::Adopted { process, ok: true, pgid: 100 });
        self.read(pid, u64::from(birth.rank))
    }

    fn ends(&mut self, id: ProcId, status: i32) -> Vec<Action> {
        self.node(0, 10, NodeToMaster::Ended(node::Ended { proc: id.0, status, usage: None }))
    }
}

fn birth(actions: &[Action]) -> Birth {
    match answers(actions)[..] {
        [Answer::Fork(birth)] => birth,
        ref other => panic!("no birth: {other:?}"),
    }
}

#[test]
fn the_parents_ghost_makes_the_childs_and_waits_for_it() {
    let mut bench = Bench::running();
    let birth = birth(&bench.forks(1, ProcId(2), CHILD));
    assert_eq!((birth.pid, birth.comm), (CHILD, comm("sh")));
    assert!(birth.rank >= 1, "it does not read as the rank's ghost");
    assert_eq!(answers(&bench.born(GHOST, birth, CHILD)), []);

    let execed = Execed { proc: child(1).0, standing: Some(standing(GHOST, 1, "sleep")) };
    assert_eq!(answers(&bench.node(0, 10, NodeToMaster::Execed(execed))), [Answer::Name(comm("sleep"))]);
    bench.read(CHILD, u64::from(birth.rank));

    let ended = bench.ends(child(1), 3 << 8);
    assert_eq!(answers(&ended), [Answer::Exit(3)]);
    assert!(to_nodes(&ended).iter().any(|m| matches!(m, MasterToNode::Forget(f) if f.proc == child(1).0)));
    assert_eq!(to_client(&ended).len(), 0, "bpsh knows its ranks only");
    // A zombie, until the parent there has waited for it.
    assert_eq!(answers(&bench.feed(Event::GhostExited { ghost: child(1).0, launcher: false })), []);
    let reaped = bench.node(0, 10, NodeToMaster::Reaped(Reaped { proc: child(1).0 }));
    assert_eq!(answers(&reaped), [Answer::Reap(CHILD)]);
}

#[test]
fn a_child_comes_before_the_end_of_its_parent() {
    let mut bench = Bench::running();
    let first = birth(&bench.forks(1, ProcId(2), CHILD));
    // Its ghost is busy with the first: the second, and its own end, wait.
    assert_eq!(answers(&bench.forks(2, ProcId(2), CHILD + 1)), []);
    assert_eq!(answers(&bench.end(0)), []);
    let back = bench.read(GHOST, 0);
    let second = birth(&back);
    assert_ne!((first.place, first.rank), (second.place, second.rank));
    assert_eq!(answers(&bench.read(GHOST, 0)), [Answer::Exit(0)]);
}

#[test]
fn what_a_child_is_to_do_waits_for_its_ghost() {
    let mut bench = Bench::running();
    let birth = birth(&bench.forks(1, ProcId(2), CHILD));
    // It leads a session, forks, and ends before its ghost is there.
    let daemon = Execed { proc: child(1).0, standing: Some(standing(CHILD, CHILD, "sh")) };
    bench.node(0, 10, NodeToMaster::Execed(daemon));
    let mut grandchild = Forked { proc: child(2).0, parent: child(1).0, launch: 1, pid: CHILD + 1, standing: None };
    grandchild.standing = Some(standing(CHILD, CHILD, "sh"));
    bench.node(0, 10, NodeToMaster::Forked(grandchild));
    bench.ends(child(1), 0);
    let rank = u64::from(birth.rank);
    assert_eq!(answers(&bench.born(GHOST, birth, CHILD)), [Answer::Session]);
    assert_eq!(answers(&bench.read(CHILD, rank)), [Answer::Name(comm("sh"))]);
    assert!(matches!(answers(&bench.read(CHILD, rank))[..], [Answer::Fork(Birth { pid, .. })] if pid == CHILD + 1));
    assert_eq!(answers(&bench.read(CHILD, rank)), [Answer::Exit(0)]);
}

#[test]
fn another_ghost_makes_it_when_the_parents_does_not() {
    let mut bench = Bench::running();
    let first = birth(&bench.forks(1, ProcId(2), CHILD));
    bench.born(GHOST, first, CHILD);
    // The child forks; its ghost is told, and does nothing.
    let lost = birth(&bench.forks(2, child(1), CHILD + 1));
    assert_eq!(answers(&bench.feed(Event::Tick)), []);
    bench.now += Duration::from_millis(60);
    let again = birth(&bench.feed(Event::Tick));
    assert_eq!(again.rank, lost.rank);
    assert_ne!(again.place, lost.place, "the first may still use its place");
    bench.born(GHOST, again, CHILD + 1);
    assert!(!bench.core.is_restless());
}

#[test]
fn one_that_nobody_can_make_is_given_up() {
    let mut bench = Bench::running();
    bench.forks(1, ProcId(2), CHILD);
    for _ in 0..10 {
        bench.now += Duration::from_millis(60);
        bench.feed(Event::Tick);
    }
    assert!(!bench.core.is_restless());
    assert_eq!(answers(&bench.ends(child(1), 0)), []);
}

#[test]
fn a_group_signal_goes_once_to_the_node() {
    let mut bench = Bench::running();
    let birth = birth(&bench.forks(1, ProcId(2), CHILD));
    bench.born(GHOST, birth, CHILD);
    let record = |ghost: u64, call: u64| SignalRecord {
        kind: 1,
        flags: 0,
        ghost,
        seq: 0,
        call,
        value: 0,
        sig: 2,
        scope: Aim::Group as u16,
        si_code: 0,
        sender_pid: 33,
        sender_uid: 1000,
        sender_euid: 1000,
        pgid: 100,
    };
    let signals = |actions: Vec<Action>| {
        to_nodes(&actions).iter().filter(|m| matches!(m, MasterToNode::Signal(s) if s.scope == 1)).count()
    };
    assert_eq!(signals(bench.feed(Event::Signal(record(2, 1)))), 1);
    assert_eq!(signals(bench.feed(Event::Signal(record(child(1).0, 1)))), 0);
    assert_eq!(signals(bench.feed(Event::Signal(record(child(1).0, 2)))), 1);
    assert_eq!(signals(bench.feed(Event::Signal(record(2, 2)))), 0);
}

#[test]
fn nodes_name_only_what_is_theirs() {
    let mut bench = Bench::running();
    let foreign = Forked { proc: forked_id(NodeNumber(1), 1).0, parent: 2, launch: 1, pid: 7, standing: None };
    assert_eq!(bench.node(0, 10, NodeToMaster::Forked(foreign)), []);
    let taken = Forked { proc: 2, parent: 2, launch: 1, pid: 7, standing: None };
    assert_eq!(bench.node(0, 10, NodeToMaster::Forked(taken)), []);
    // Of a launch that has nothing on this node.
    let stranger = Forked { proc: forked_id(NodeNumber(1), 1).0, parent: 2, launch: 1, pid: 7, standing: None };
    assert_eq!(bench.node(1, 11, NodeToMaster::Forked(stranger)), []);
}

#[test]
fn nothing_is_left_when_all_have_gone() {
    let mut bench = Bench::running();
    let birth = birth(&bench.forks(1, ProcId(2), CHILD));
    bench.born(GHOST, birth, CHILD);
    bench.ends(child(1), 0);
    bench.end(0);
    for ghost in [2, child(1).0] {
        bench.feed(Event::GhostExited { ghost, launcher: false });
    }
    bench.feed(Event::ClientGone { client: CLIENT });
    for _ in 0..20 {
        bench.now += Duration::from_millis(60);
        bench.feed(Event::Tick);
    }
    assert_eq!(bench.core.table_entries(), 0);
}

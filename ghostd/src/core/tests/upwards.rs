//! Signals that remote processes send to who is above their launch.

use std::time::Duration;

use ghost_abi::{Scope as Aim, SignalFlags, SignalRecord};
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{self, MasterToNode, NodeHello, NodeToMaster};
use ghost_proto::standin::{FEATURE, Origin, Original, Sent};
use ghost_sys::ghost::{Answer, Kill, KillKind};

use super::super::{Action, Event, LinkId};
use super::transitions::{Bench, CLIENT, GHOST, answers, to_nodes};

const LAUNCHER: u32 = 100;
const GROUP: u32 = 99;
const SESSION: u32 = 50;

fn origin() -> Origin {
    let original = |pid: u32, comm: &'static str| Original { pid, uid: 1000, comm: comm.into() };
    Origin { parent: original(LAUNCHER, "bpsh"), group: original(GROUP, "sort"), session: original(SESSION, "bash") }
}

/// Ranks 0 and 1 run on node 0 and rank 2 on node 1, all in the launcher's group; their ghosts sleep.
fn three() -> Bench {
    let mut bench = Bench::new();
    for node in [0, 1] {
        let hello = NodeHello { holder: 1000, features: vec![FEATURE.to_owned()], ..NodeHello::default() };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let link = LinkId(node as u64 + 10);
        bench.feed(Event::NodeConnected { node: NodeNumber(node), link, hello, address });
    }
    bench.launch("0,0,1");
    bench.feed(Event::Above { client: CLIENT, origin: origin() });
    for (rank, node) in [(0, 0), (1, 0), (2, 1)] {
        let (pid, proc) = (GHOST + rank, u64::from(rank) + 2);
        bench.read(pid, rank.into());
        let asked = bench.feed(Event::Adopted { process: ProcId(proc), ok: true, pgid: GROUP });
        assert!(
            to_nodes(&asked)
                .iter()
                .any(|m| matches!(m, MasterToNode::Spawn(spawn) if spawn.origin.as_deref() == Some(&origin()))),
            "{asked:?}"
        );
        bench.read(pid, rank.into());
        let started = node::Started { proc, pid, cwd_errno: 0, pgid: GROUP, sid: SESSION };
        bench.node(node, 10 + node as u64, NodeToMaster::Started(started));
    }
    bench
}

fn sent(proc: u64, target: u32) -> Sent {
    Sent { proc, target, group: false, signal: 10, code: 0, value: 0, seq: 0, settled: 0 }
}

fn kill(target: i32, signal: u8) -> Answer {
    Answer::Kill(Kill { target, signal, kind: KillKind::Kill, value: 0 })
}

fn record(ghost: u64, sender: u32, call: u64) -> SignalRecord {
    SignalRecord {
        kind: 1,
        flags: 0,
        ghost,
        seq: 0,
        call,
        value: 0,
        sig: 12,
        scope: Aim::Group as u16,
        si_code: 0,
        sender_pid: sender.cast_signed(),
        sender_uid: 1000,
        sender_euid: 1000,
        pgid: GROUP.cast_signed(),
    }
}

/// Nodes that get a signal.
fn reached(actions: &[Action]) -> Vec<i32> {
    let node = |action: &Action| match action {
        Action::TellNode { node, message: MasterToNode::Signal(_), .. } => Some(node.0),
        _ => None,
    };
    actions.iter().filter_map(node).collect()
}

#[test]
fn the_senders_ghost_sends_it() {
    let mut bench = three();
    for target in [LAUNCHER, GROUP, SESSION] {
        let actions = bench.node(0, 10, NodeToMaster::Sent(sent(2, target)));
        assert_eq!(answers(&actions), [kill(target.cast_signed(), 10)]);
        bench.read(GHOST, 0);
    }
    let value = Sent { code: -1, value: 77, ..sent(4, SESSION) };
    let expected = Kill { target: SESSION.cast_signed(), signal: 10, kind: KillKind::Queue, value: 77 };
    assert_eq!(answers(&bench.node(1, 11, NodeToMaster::Sent(value))), [Answer::Kill(expected)]);
}

#[test]
fn what_it_has_sent_comes_before_its_end() {
    let mut bench = three();
    bench.node(0, 10, NodeToMaster::Sent(sent(2, LAUNCHER)));
    // Its ghost is at it; another one waits, and so does its end.
    assert_eq!(answers(&bench.node(0, 10, NodeToMaster::Sent(sent(2, SESSION)))), []);
    assert_eq!(answers(&bench.end(0)), []);
    assert_eq!(answers(&bench.read(GHOST, 0)), [kill(SESSION.cast_signed(), 10)]);
    assert_eq!(answers(&bench.read(GHOST, 0)), [Answer::Exit(0)]);
}

#[test]
fn what_waits_to_be_sent_is_bounded() {
    let mut bench = three();
    for _ in 0..10_000 {
        bench.node(0, 10, NodeToMaster::Sent(sent(2, LAUNCHER)));
        bench.node(0, 10, NodeToMaster::Sent(Sent { signal: 40, ..sent(2, LAUNCHER) }));
    }
    let mut told = Vec::new();
    loop {
        let answers = answers(&bench.read(GHOST, 0));
        if answers.is_empty() {
            break;
        }
        told.extend(answers);
    }
    let of = |signal: u8| told.iter().filter(|answer| **answer == kill(LAUNCHER.cast_signed(), signal)).count();
    // The first is on its way since the beginning.
    assert_eq!((of(10), of(10) + of(40)), (1, 4096));
}

#[test]
fn a_node_can_name_only_its_own_processes_and_who_is_above_or_beside_them() {
    let mut bench = three();
    for refused in [
        sent(4, LAUNCHER),
        sent(2, GHOST + 1),
        sent(2, GHOST + 3),
        sent(2, 1),
        sent(2, u32::MAX),
        sent(2, 0),
        sent(77, LAUNCHER),
        Sent { signal: 0, ..sent(2, LAUNCHER) },
        Sent { signal: 65, ..sent(2, LAUNCHER) },
    ] {
        assert_eq!(bench.node(0, 10, NodeToMaster::Sent(refused.clone())), [], "{refused:?}");
    }
}

#[test]
fn a_group_has_it_once_everywhere() {
    let mut bench = three();
    let group = Sent { group: true, signal: 12, ..sent(2, GROUP) };
    let actions = bench.node(0, 10, NodeToMaster::Sent(group));
    assert_eq!(answers(&actions), [kill(-GROUP.cast_signed(), 12)]);
    // Its ghost's call reaches the other ghosts of the group: node 0 has done that part.
    assert_eq!(reached(&bench.feed(Event::Signal(record(3, GHOST, 1)))), [0; 0]);
    assert_eq!(reached(&bench.feed(Event::Signal(record(4, GHOST, 1)))), [1]);
    // Anybody else's goes to both, once.
    assert_eq!(reached(&bench.feed(Event::Signal(record(3, 33, 2)))), [0]);
    assert_eq!(reached(&bench.feed(Event::Signal(record(2, 33, 2)))), [0; 0]);
    assert_eq!(reached(&bench.feed(Event::Signal(record(4, 33, 2)))), [1]);
    // The number of a ghost that has gone is a stranger's.
    bench.feed(Event::GhostExited { ghost: 2, pid: GHOST, launcher: false });
    assert_eq!(reached(&bench.feed(Event::Signal(record(3, GHOST, 3)))), [0]);
}

#[test]
fn a_group_signal_names_a_process_that_runs() {
    let mut bench = three();
    bench.end(0);
    assert_eq!(reached(&bench.feed(Event::Signal(record(2, 33, 1)))), [0; 0], "it is dead");
    assert_eq!(reached(&bench.feed(Event::Signal(record(3, 33, 1)))), [0]);
}

#[test]
fn nodes_that_make_no_stand_ins_are_told_of_none() {
    let mut bench = Bench::new();
    bench.launch("0");
    bench.feed(Event::Above { client: CLIENT, origin: origin() });
    bench.read(GHOST, 0);
    let asked = bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: GROUP });
    assert!(to_nodes(&asked).iter().any(|m| matches!(m, MasterToNode::Spawn(spawn) if spawn.origin.is_none())));
}

#[test]
fn a_signal_to_the_launcher_alone_does_not_reach_others_of_its_group() {
    let mut bench = three();
    let alone = SignalRecord {
        flags: SignalFlags::LAUNCHER,
        ghost: 1,
        seq: 7,
        sig: 15,
        scope: Aim::Process as u16,
        ..record(1, 33, 0)
    };
    let scopes = |actions: &[Action]| -> Vec<(u64, i32)> {
        let scope = |message: &MasterToNode| match message {
            MasterToNode::Signal(signal) => Some((signal.proc, signal.scope)),
            _ => None,
        };
        to_nodes(actions).into_iter().filter_map(scope).collect()
    };
    let each = node::Scope::Process as i32;
    assert_eq!(scopes(&bench.feed(Event::Signal(alone))), [(2, each), (3, each), (4, each)]);
}

fn done(actions: &[Action]) -> Vec<u64> {
    let done = |message: &&MasterToNode| if let MasterToNode::SentDone(done) = message { Some(done.seq) } else { None };
    to_nodes(actions).iter().filter_map(done).collect()
}

#[test]
fn what_is_sent_is_done_when_its_ghost_has_been_told() {
    let mut bench = three();
    let numbered = |seq: u64, target: u32| Sent { seq, settled: seq, ..sent(2, target) };
    let actions = bench.node(0, 10, NodeToMaster::Sent(numbered(1, LAUNCHER)));
    assert_eq!((answers(&actions), done(&actions)), (vec![kill(LAUNCHER.cast_signed(), 10)], vec![1]));
    // The next has to wait until the ghost is back.
    let second = numbered(2, SESSION);
    assert_eq!(done(&bench.node(0, 10, NodeToMaster::Sent(second.clone()))), [0; 0]);
    // It comes again, over another connection perhaps.
    let again = bench.node(0, 10, NodeToMaster::Sent(second.clone()));
    assert_eq!((answers(&again), done(&again)), (vec![], vec![]));
    let back = bench.read(GHOST, 0);
    assert_eq!((answers(&back), done(&back)), (vec![kill(SESSION.cast_signed(), 10)], vec![2]));
    bench.read(GHOST, 0);
    // Its confirmation was lost.
    let again = bench.node(0, 10, NodeToMaster::Sent(second));
    assert_eq!((answers(&again), done(&again)), (vec![], vec![2]));
    // What is refused need not come again, either.
    let refused = bench.node(0, 10, NodeToMaster::Sent(numbered(3, 77)));
    assert_eq!((answers(&refused), done(&refused)), (vec![], vec![3]));
}

/// What nodes are told of ranks elsewhere.
fn others(actions: &[Action]) -> Vec<(i32, Vec<(u32, u32)>)> {
    let of = |action: &Action| match action {
        Action::TellNode { node, message: MasterToNode::Beside(beside), .. } => {
            Some((node.0, beside.others.iter().map(|other| (other.pid, other.rank)).collect()))
        }
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn a_node_is_told_of_the_ranks_on_others_when_a_launch_has_lived_for_a_while() {
    let mut bench = three();
    assert_eq!(others(&bench.feed(Event::Tick)), []);
    assert!(bench.core.is_restless());
    bench.now += Duration::from_millis(100);
    assert_eq!(others(&bench.feed(Event::Tick)), [(0, vec![(GHOST + 2, 2)]), (1, vec![(GHOST, 0), (GHOST + 1, 1)])]);
    assert_eq!(others(&bench.feed(Event::Tick)), [], "once");
    assert!(!bench.core.is_restless());
    // One of them ends.
    bench.end(0);
    bench.now += Duration::from_millis(100);
    assert_eq!(others(&bench.feed(Event::Tick)), [(0, vec![(GHOST + 2, 2)]), (1, vec![(GHOST + 1, 1)])]);
    // A node comes back, and may have missed it.
    bench.disconnect(1, 11);
    let hello = NodeHello {
        holder: 1000,
        epoch: 70 + 3,
        features: vec![FEATURE.to_owned()],
        processes: vec![node::HeldProcess { proc: 4, pid: GHOST + 2, ..Default::default() }],
        ..NodeHello::default()
    };
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    bench.feed(Event::NodeConnected { node: NodeNumber(1), link: LinkId(12), hello, address });
    bench.now += Duration::from_millis(100);
    assert_eq!(others(&bench.feed(Event::Tick)), [(0, vec![(GHOST + 2, 2)]), (1, vec![(GHOST + 1, 1)])]);
}

#[test]
fn a_rank_reaches_another_one_elsewhere_by_its_number() {
    let mut bench = three();
    let elsewhere = GHOST + 2;
    assert_eq!(
        answers(&bench.node(0, 10, NodeToMaster::Sent(sent(2, elsewhere)))),
        [kill(elsewhere.cast_signed(), 10)]
    );
    for refused in [
        // Here its own kernel does it.
        sent(3, GHOST),
        Sent { group: true, ..sent(3, elsewhere) },
    ] {
        assert_eq!(answers(&bench.node(0, 10, NodeToMaster::Sent(refused))), []);
    }
}

#[test]
fn launches_on_one_node_have_nobody_beside_them() {
    let mut bench = Bench::new();
    bench.launch("0,0");
    for (rank, proc) in [(0, 2), (1, 3)] {
        bench.read(GHOST + rank, rank.into());
        bench.feed(Event::Adopted { process: ProcId(proc), ok: true, pgid: GROUP });
        let started = node::Started { proc, pid: GHOST + rank, cwd_errno: 0, pgid: 0, sid: 0 };
        bench.node(0, 10, NodeToMaster::Started(started));
    }
    bench.now += Duration::from_millis(100);
    assert_eq!(others(&bench.feed(Event::Tick)), []);
}

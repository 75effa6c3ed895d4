//! Ghosts of forked processes.

use std::time::Duration;

use ghost_abi::{Scope as Aim, SignalFlags, SignalRecord};
use ghost_proto::client::{MasterToClient, Reap};
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{self, MasterToNode, NodeToMaster};
use ghost_proto::tree::{Execed, Forked, Reaped, Standing, forked_id};
use ghost_sys::ghost::{Answer, Birth, Kin};
use nix::libc;

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
        let forked = Forked { proc: child(counter).0, parent: parent.0, launch: 1, pid, standing, creator: 0 };
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
        self.node(0, 10, NodeToMaster::Ended(node::Ended { proc: id.0, status, usage: None, heir: 0 }))
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
    assert_eq!(answers(&bench.feed(Event::GhostExited { ghost: child(1).0, launcher: false, pid: 0 })), []);
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

/// Nobody could see it here, or end it.
#[test]
fn a_process_that_nobody_can_make_a_ghost_for_is_killed() {
    let mut bench = Bench::running();
    birth(&bench.forks(1, ProcId(2), CHILD));
    let gone = bench.feed(Event::GhostExited { ghost: 2, launcher: false, pid: GHOST });
    assert!(gone.contains(&Action::Withdraw { process: child(1), maker: GHOST }), "{gone:?}");
    let told_off = bench.feed(Event::Withdrawn { process: child(1), in_time: true });
    let kill = |m: &&MasterToNode| matches!(m, MasterToNode::Signal(s) if s.proc == child(1).0 && s.signal == 9);
    assert!(to_nodes(&told_off).iter().any(kill), "{told_off:?}");
}

#[test]
fn what_a_child_is_to_do_waits_for_its_ghost() {
    let mut bench = Bench::running();
    let birth = birth(&bench.forks(1, ProcId(2), CHILD));
    // It leads a session, forks, and ends before its ghost is there.
    let daemon = Execed { proc: child(1).0, standing: Some(standing(CHILD, CHILD, "sh")) };
    bench.node(0, 10, NodeToMaster::Execed(daemon));
    let mut grandchild =
        Forked { proc: child(2).0, parent: child(1).0, launch: 1, pid: CHILD + 1, standing: None, creator: 0 };
    grandchild.standing = Some(standing(CHILD, CHILD, "sh"));
    bench.node(0, 10, NodeToMaster::Forked(grandchild));
    bench.ends(child(1), 0);
    let rank = u64::from(birth.rank);
    assert_eq!(answers(&bench.born(GHOST, birth, CHILD)), [Answer::Session]);
    assert_eq!(answers(&bench.read(CHILD, rank)), [Answer::Name(comm("sh"))]);
    assert!(matches!(answers(&bench.read(CHILD, rank))[..], [Answer::Fork(Birth { pid, .. })] if pid == CHILD + 1));
    assert_eq!(answers(&bench.read(CHILD, rank)), [Answer::Exit(0)]);
}

/// The tick after some time.
fn later(bench: &mut Bench, ms: u64) -> Vec<Action> {
    bench.now += Duration::from_millis(ms);
    bench.feed(Event::Tick)
}

fn withdrawn(actions: &[Action]) -> Vec<(ProcId, u32)> {
    let withdrawn = |action: &Action| match action {
        Action::Withdraw { process, maker } => Some((*process, *maker)),
        _ => None,
    };
    actions.iter().filter_map(withdrawn).collect()
}

impl Bench {
    /// Processes 1 (child of the rank) and 2 (child of 1), whose ghosts sleep.
    fn with_two_generations() -> Bench {
        let mut bench = Bench::running();
        let first = birth(&bench.forks(1, ProcId(2), CHILD));
        bench.born(GHOST, first, CHILD);
        let second = birth(&bench.forks(2, child(1), CHILD + 1));
        bench.born(CHILD, second, CHILD + 1);
        bench
    }

    fn signalled(&mut self, ghost: ProcId, sig: i32) -> Vec<Action> {
        let sig = sig as u16;
        self.feed(Event::Signal(SignalRecord { ghost: ghost.0, sig, scope: Aim::Process as u16, ..RECORD }))
    }
}

const RECORD: SignalRecord = SignalRecord {
    kind: 1,
    flags: 0,
    ghost: 0,
    seq: 0,
    call: 0,
    value: 0,
    sig: 2,
    scope: 1,
    si_code: 0,
    sender_pid: 33,
    sender_uid: 1000,
    sender_euid: 1000,
    pgid: 100,
};

#[test]
fn a_slow_maker_is_not_overtaken() {
    let mut bench = Bench::with_two_generations();
    let told = birth(&bench.forks(3, child(2), CHILD + 2));
    for _ in 0..30 {
        let actions = later(&mut bench, 60);
        assert_eq!((answers(&actions), withdrawn(&actions)), (vec![], vec![]), "it may be waiting for a processor");
    }
    bench.born(CHILD + 1, told, CHILD + 2);
    assert!(!bench.core.is_restless());
}

#[test]
fn a_maker_that_was_stopped_is_told_off_before_another_is_asked() {
    let mut bench = Bench::with_two_generations();
    let told = birth(&bench.forks(3, child(2), CHILD + 2));
    bench.signalled(child(2), libc::SIGSTOP);
    let actions = later(&mut bench, 60);
    assert_eq!((answers(&actions), withdrawn(&actions)), (vec![], vec![(child(3), CHILD + 1)]));
    let again = birth(&bench.feed(Event::Withdrawn { process: child(3), in_time: true }));
    assert_eq!((again.rank, again.kin), (told.rank, Kin::Child));
    assert_ne!(again.place, told.place, "the first may still use its place");
    bench.born(CHILD, again, CHILD + 2);
    assert!(!bench.core.is_restless());
}

#[test]
fn a_maker_told_off_too_late_has_made_it() {
    let mut bench = Bench::with_two_generations();
    let told = birth(&bench.forks(3, child(2), CHILD + 2));
    bench.signalled(child(2), libc::SIGSTOP);
    later(&mut bench, 60);
    assert_eq!(answers(&bench.feed(Event::Withdrawn { process: child(3), in_time: false })), []);
    assert_eq!(answers(&later(&mut bench, 60)), []);
    let actions = bench.read(CHILD + 2, u64::from(told.rank));
    assert!(matches!(actions[..], [Action::Adopt { process, .. }] if process == child(3)), "{actions:?}");
}

#[test]
fn below_a_stopped_ghost_a_sibling_makes_it() {
    let mut bench = Bench::with_two_generations();
    bench.signalled(child(1), libc::SIGSTOP);
    let actions = bench.forks(3, child(1), CHILD + 2);
    let birth = birth(&actions);
    assert_eq!(birth.kin, Kin::Sibling, "the parent is the stopped ghost all the same");
    assert!(matches!(actions[..], [Action::Beget { maker, .. }] if maker == CHILD + 1), "{actions:?}");
}

#[test]
fn the_child_of_one_that_is_killed_is_an_orphan() {
    let mut bench = Bench::with_two_generations();
    bench.signalled(child(2), libc::SIGKILL);
    let actions = bench.forks(3, child(2), CHILD + 2);
    let birth = birth(&actions);
    assert_eq!(birth.kin, Kin::Orphan);
    assert!(matches!(actions[..], [Action::Beget { maker, .. }] if maker == CHILD), "the next that can: {actions:?}");
    bench.read(CHILD, 1);
    let actions = bench.read(CHILD + 2, u64::from(birth.rank));
    assert!(matches!(actions[..], [Action::Adopt { parent: None, .. }]), "{actions:?}");
    bench.feed(Event::Adopted { process: child(3), ok: true, pgid: 100 });
    bench.read(CHILD + 2, u64::from(birth.rank));
    bench.ends(child(3), 0);
    // Init waits for it, here and there.
    bench.feed(Event::GhostExited { ghost: child(3).0, launcher: false, pid: CHILD + 2 });
    let reaped = bench.node(0, 10, NodeToMaster::Reaped(Reaped { proc: child(3).0 }));
    assert_eq!(answers(&reaped), []);
}

#[test]
fn a_sibling_of_a_rank_is_the_launchers_child() {
    let mut bench = Bench::running();
    let forked = Forked { proc: child(1).0, parent: 0, launch: 1, pid: CHILD, standing: None, creator: 2 };
    let birth = birth(&bench.node(0, 10, NodeToMaster::Forked(forked)));
    assert_eq!(birth.kin, Kin::Sibling);
    bench.read(GHOST, 0);
    let actions = bench.read(CHILD, u64::from(birth.rank));
    assert!(matches!(actions[..], [Action::Adopt { parent: Some(100), .. }]), "{actions:?}");
    bench.feed(Event::Adopted { process: child(1), ok: true, pgid: 100 });
    bench.read(CHILD, u64::from(birth.rank));
    bench.ends(child(1), 9);
    bench.feed(Event::GhostExited { ghost: child(1).0, launcher: false, pid: CHILD });
    let reaped = bench.node(0, 10, NodeToMaster::Reaped(Reaped { proc: child(1).0 }));
    assert!(
        matches!(to_client(&reaped)[..], [MasterToClient::Reap(Reap { pid: CHILD })]),
        "its parent waits for it: {reaped:?}"
    );
}

/// `kill -9` of a ghost that has just been forked, before anybody but the kernel program has seen it.
#[test]
fn a_ghost_that_is_killed_before_it_comes_takes_its_process_with_it() {
    let mut bench = Bench::running();
    birth(&bench.forks(1, ProcId(2), CHILD));
    let actions = bench.signalled(child(1), libc::SIGKILL);
    assert!(
        to_nodes(&actions)
            .iter()
            .any(|m| matches!(m, MasterToNode::Signal(s) if s.proc == child(1).0 && s.signal == 9))
    );
    bench.feed(Event::GhostExited { ghost: child(1).0, launcher: false, pid: CHILD });
    bench.read(GHOST, 0);
    assert_eq!(answers(&later(&mut bench, 60)), [], "no other ghost is made for it");
    bench.ends(child(1), 9);
    let reaped = bench.node(0, 10, NodeToMaster::Reaped(Reaped { proc: child(1).0 }));
    assert_eq!(answers(&reaped), [Answer::Reap(CHILD)]);
}

/// The other half of it: one that died with no signal at all, or before the kernel program could know it.
#[test]
fn a_ghost_that_ends_before_it_comes_takes_its_process_with_it() {
    let mut bench = Bench::running();
    birth(&bench.forks(1, ProcId(2), CHILD));
    let actions = bench.feed(Event::GhostExited { ghost: child(1).0, launcher: false, pid: CHILD });
    assert!(
        to_nodes(&actions)
            .iter()
            .any(|m| matches!(m, MasterToNode::Signal(s) if s.proc == child(1).0 && s.signal == 9))
    );
}

#[test]
fn a_stop_before_it_comes_is_waited_for() {
    let mut bench = Bench::running();
    let told = birth(&bench.forks(1, ProcId(2), CHILD));
    bench.read(GHOST, 0);
    bench.signalled(child(1), libc::SIGSTOP);
    for _ in 0..300 {
        assert_eq!(answers(&later(&mut bench, 60)), []);
    }
    bench.signalled(child(1), libc::SIGCONT);
    let actions = bench.read(CHILD, u64::from(told.rank));
    assert!(matches!(actions[..], [Action::Adopt { .. }]), "{actions:?}");
}

#[test]
fn one_that_nobody_can_make_yet_is_asked_for_again() {
    let mut bench = Bench::running();
    bench.signalled(ProcId(2), libc::SIGSTOP);
    assert_eq!(answers(&bench.forks(1, ProcId(2), CHILD)), []);
    assert_eq!(answers(&later(&mut bench, 60)), []);
    bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: 2, signal: 19 }));
    bench.feed(Event::PinInterrupted { unique: 2 });
    let birth = birth(&bench.signalled(ProcId(2), libc::SIGCONT));
    assert_eq!(birth.kin, Kin::Child, "at once");
}

#[test]
fn one_that_could_not_make_it_does_so_later() {
    let mut bench = Bench::with_two_generations();
    let told = birth(&bench.forks(3, child(2), CHILD + 2));
    // EAGAIN: too many processes.
    let token = ghost_host::pin::ReadToken::for_test(900);
    let offset = 2 << ghost_sys::ghost::RANK_SHIFT | 11;
    bench.feed(Event::PinRead { token, file: super::transitions::FILE, pid: CHILD + 1, offset });
    let again = birth(&later(&mut bench, 60));
    assert_eq!(again.rank, told.rank);
}

#[test]
fn a_group_is_joined_when_there_is_one_to_lead_it() {
    let mut bench = Bench::with_two_generations();
    let stands = |bench: &mut Bench, counter: u64, pgid: u32| {
        let standing = Some(standing(pgid, 1, "sh"));
        bench.node(0, 10, NodeToMaster::Execed(Execed { proc: child(counter).0, standing }))
    };
    // The second joins a group that the first, as far as is known here, does not lead yet.
    let groups = |actions: &[Action]| -> Vec<u32> {
        let group = |answer: &Answer| if let Answer::Group(pgid) = answer { Some(*pgid) } else { None };
        answers(actions).iter().filter_map(group).collect()
    };
    assert_eq!(groups(&stands(&mut bench, 2, CHILD)), []);
    bench.read(CHILD + 1, 2);
    assert_eq!(groups(&stands(&mut bench, 1, CHILD)), [CHILD]);
    assert_eq!(groups(&later(&mut bench, 20)), [], "the first is about to");
    assert_eq!(groups(&bench.read(CHILD, 1)), [CHILD], "the second, as soon as the first does");
    bench.read(CHILD, 1);
    // It says EPERM: as if the first's group were in another session.
    let token = ghost_host::pin::ReadToken::for_test(900);
    let offset = 3 << ghost_sys::ghost::RANK_SHIFT | 1;
    bench.feed(Event::PinRead { token, file: super::transitions::FILE, pid: CHILD + 1, offset });
    assert_eq!(groups(&later(&mut bench, 20)), [CHILD], "once more");
    bench.read(CHILD + 1, 2);
    assert_eq!(groups(&later(&mut bench, 20)), []);
    for _ in 0..10 {
        bench.read(CHILD + 1, 2);
        later(&mut bench, 20);
    }
    assert!(!bench.core.is_restless());
}

/// Of a child that is told of when it has a group of its own already.
#[test]
fn a_fork_says_nothing_of_its_makers_group() {
    let mut bench = Bench::with_two_generations();
    let forked = Forked {
        proc: child(3).0,
        parent: child(2).0,
        launch: 1,
        pid: CHILD + 2,
        standing: Some(standing(CHILD + 2, 1, "sh")),
        creator: 0,
    };
    let told = birth(&bench.node(0, 10, NodeToMaster::Forked(forked)));
    assert_eq!(answers(&bench.read(CHILD + 1, 3)), [], "the maker stays where it is");
    bench.read(CHILD + 2, u64::from(told.rank));
    bench.feed(Event::Adopted { process: child(3), ok: true, pgid: 100 });
    assert_eq!(answers(&bench.read(CHILD + 2, u64::from(told.rank))), [Answer::Group(CHILD + 2)]);
}

#[test]
fn a_stop_that_was_taken_back_before_its_ghost_came_stops_nobody() {
    let mut bench = Bench::running();
    let told = birth(&bench.forks(1, ProcId(2), CHILD));
    bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: child(1).0, signal: 19 }));
    bench.node(0, 10, NodeToMaster::Continued(node::Continued { proc: child(1).0 }));
    assert_eq!(answers(&bench.born(GHOST, told, CHILD)), []);
}

#[test]
fn a_signal_to_a_thread_goes_to_the_first_thread_alone() {
    let mut bench = Bench::running();
    for (si_code, scope) in [(-6, node::Scope::Thread), (0, node::Scope::Process), (-1, node::Scope::Process)] {
        let record = SignalRecord { ghost: 2, si_code, scope: Aim::Process as u16, ..RECORD };
        let actions = bench.feed(Event::Signal(record));
        let [MasterToNode::Signal(signal)] = to_nodes(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!(signal.scope(), scope);
        bench.node(0, 10, NodeToMaster::SignalDone(node::SignalDone { proc: 2, seq: signal.seq, errno: 0 }));
    }
}

#[test]
fn a_group_signal_goes_once_to_the_node() {
    let mut bench = Bench::running();
    let birth = birth(&bench.forks(1, ProcId(2), CHILD));
    bench.born(GHOST, birth, CHILD);
    let record = |ghost: u64, call: u64| SignalRecord { ghost, call, scope: Aim::Group as u16, ..RECORD };
    let signals = |actions: Vec<Action>| {
        to_nodes(&actions).iter().filter(|m| matches!(m, MasterToNode::Signal(s) if s.scope == 1)).count()
    };
    assert_eq!(signals(bench.feed(Event::Signal(record(2, 1)))), 1);
    assert_eq!(signals(bench.feed(Event::Signal(record(child(1).0, 1)))), 0);
    assert_eq!(signals(bench.feed(Event::Signal(record(child(1).0, 2)))), 1);
    assert_eq!(signals(bench.feed(Event::Signal(record(2, 2)))), 0);
}

/// A ghost on its way has it blocked, and shows it when it has unblocked it: the process got it with its group. Real-time ones count.
#[test]
fn a_group_signal_in_the_moment_of_a_birth_counts_once() {
    for sig in [10, 40] {
        let mut bench = Bench::running();
        birth(&bench.forks(1, ProcId(2), CHILD));
        let group = SignalRecord { ghost: 2, call: 1, sig, value: 7, scope: Aim::Group as u16, ..RECORD };
        assert_eq!(to_nodes(&bench.feed(Event::Signal(group))).len(), 1);
        let shown = |value| SignalRecord { ghost: child(1).0, sig, value, flags: SignalFlags::DELIVERED, ..RECORD };
        assert_eq!(to_nodes(&bench.feed(Event::Signal(shown(7)))).len(), 0, "{sig}");
        assert_eq!(to_nodes(&bench.feed(Event::Signal(shown(7)))).len(), 1, "another one: {sig}");
    }
}

/// `kill -9 -PGID` when a zombie's ghost is the first of the group to have a record of it.
#[test]
fn the_ghost_of_a_dead_process_does_not_swallow_a_group_signal() {
    let mut bench = Bench::with_two_generations();
    bench.ends(child(2), 0);
    let kill = |ghost: ProcId| SignalRecord { ghost: ghost.0, call: 7, sig: 9, scope: Aim::Group as u16, ..RECORD };
    assert_eq!(to_nodes(&bench.feed(Event::Signal(kill(child(2))))).len(), 0);
    let actions = bench.feed(Event::Signal(kill(child(1))));
    assert!(
        matches!(to_nodes(&actions)[..], [MasterToNode::Signal(s)] if s.scope == 1 && s.signal == 9),
        "{actions:?}"
    );
}

#[test]
fn a_ghost_that_the_kernel_has_continued_stops_again() {
    let mut bench = Bench::with_two_generations();
    let stop = bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: child(2).0, signal: 20 }));
    assert_eq!(answers(&stop), [Answer::Stop(20)]);
    assert_eq!(answers(&bench.read(CHILD + 1, 3)), [Answer::Stop(19)]);
    let on = bench.node(0, 10, NodeToMaster::Continued(node::Continued { proc: child(2).0 }));
    assert!(matches!(on[..], [Action::ContinueGhost { .. }, ..]), "{on:?}");
    assert_eq!(answers(&bench.read(CHILD + 1, 3)), []);
}

#[test]
fn nodes_name_only_what_is_theirs() {
    let mut bench = Bench::running();
    let foreign =
        Forked { proc: forked_id(NodeNumber(1), 1).0, parent: 2, launch: 1, pid: 7, standing: None, creator: 0 };
    assert_eq!(bench.node(0, 10, NodeToMaster::Forked(foreign)), []);
    let taken = Forked { proc: 2, parent: 2, launch: 1, pid: 7, standing: None, creator: 0 };
    assert_eq!(bench.node(0, 10, NodeToMaster::Forked(taken)), []);
    // Of a launch that has nothing on this node.
    let stranger =
        Forked { proc: forked_id(NodeNumber(1), 1).0, parent: 2, launch: 1, pid: 7, standing: None, creator: 0 };
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
        bench.feed(Event::GhostExited { ghost, launcher: false, pid: 0 });
    }
    bench.feed(Event::ClientGone { client: CLIENT });
    for _ in 0..20 {
        bench.now += Duration::from_millis(60);
        bench.feed(Event::Tick);
    }
    assert_eq!(bench.core.filled_tables(), []);
}

/// Two unborn ghosts must not wait for one another; and who can make them does so at once.
#[test]
fn one_that_is_not_born_is_not_asked_to_make_another() {
    let mut bench = Bench::running();
    // The only ghost there is: awake, and perhaps stopped.
    bench.signalled(ProcId(2), libc::SIGSTOP);
    assert_eq!(answers(&bench.forks(1, ProcId(77), CHILD)), [], "an orphan that nobody can make now");
    assert_eq!(answers(&bench.forks(2, child(1), CHILD + 1)), [], "it waits for the first");
    for _ in 0..3 {
        assert_eq!(answers(&later(&mut bench, 60)), []);
    }
    let back = bench.signalled(ProcId(2), libc::SIGCONT);
    let first = birth(&back);
    assert_eq!((first.pid, first.kin), (CHILD, Kin::Orphan));
    bench.read(GHOST, 0);
    let second = birth(&bench.born(0, first, CHILD));
    assert_eq!((second.pid, second.kin), (CHILD + 1, Kin::Child));
}

//! The core in virtual time: no kernel, every order of events.

mod forgotten;
mod host;

use super::*;
use crate::holder::standins::Sent;
use bytes::Bytes;
use ghost_proto::launch::{Credentials, ProgramSpec};
use ghost_proto::node::{EndLaunch, Forget, Lease};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

/// A core with its clock; what it wants done is collected.
struct Bench {
    core: Core,
    now: Duration,
}

impl Bench {
    fn new() -> Bench {
        let limits = [(u64::MAX, u64::MAX); program::LIMITS];
        Bench { core: Core::new(77, "n3".to_owned(), limits), now: 100 * SECOND }
    }

    /// Connected and welcomed for this epoch with a lease of 15 s.
    fn welcomed(epoch: u64) -> Bench {
        let mut bench = Bench::new();
        bench.link(epoch);
        bench
    }

    fn link(&mut self, epoch: u64) -> Vec<Action> {
        self.event(Event::Linked);
        self.welcome(epoch)
    }

    fn welcome(&mut self, epoch: u64) -> Vec<Action> {
        let lease_ms = 15_000;
        self.message(MasterToNode::Welcome(Welcome { version: 1, features: vec![], epoch, node: 3, lease_ms }))
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.handle(event, self.now, &mut actions);
        actions
    }

    fn message(&mut self, message: MasterToNode) -> Vec<Action> {
        self.event(Event::Message(message))
    }

    fn spawn(&mut self, proc: u64, launch: u64) -> Vec<Action> {
        let program = ProgramSpec { argv: vec![Bytes::from_static(b"x")], stdio: vec![1, 1, 1], ..Default::default() };
        let credentials = Some(Credentials { uid: 4321, gid: 4321, groups: vec![] });
        let program = Some(program);
        self.message(MasterToNode::Spawn(Spawn {
            proc,
            launch,
            credentials,
            program,
            window: 8192,
            ..Default::default()
        }))
    }

    /// A process that executes its program, with a PID of 1000 and its number.
    fn running(&mut self, proc: u64, launch: u64) {
        self.spawn(proc, launch);
        self.event(Event::Created { proc: ProcId(proc), pid: 1000 + proc as u32, pgid: 0, sid: 0 });
        let said = sent(&self.event(Event::Executed { proc: ProcId(proc), directory_errno: 0 }));
        assert!(matches!(said.as_slice(), [NodeToMaster::Started(_)]));
    }

    fn signal(&mut self, proc: u64, signal: u32, seq: u64) -> Vec<Action> {
        self.message(MasterToNode::Signal(Signal {
            proc,
            seq,
            signal,
            sender_uid: 4321,
            sender_euid: 4321,
            confirm: true,
            ..Default::default()
        }))
    }

    fn reaped(&mut self, proc: u64, status: i32) -> Vec<Action> {
        self.event(Event::Reaped { pid: 1000 + proc as u32, status, usage: Usage::default() })
    }
}

#[test]
fn a_nice_value_is_set_while_the_process_lives() {
    let mut bench = Bench::welcomed(1);
    let renice = |bench: &mut Bench, proc, nice| {
        let renice = ghost_proto::node::Renice { proc, nice };
        bench
            .message(MasterToNode::Renice(renice))
            .into_iter()
            .filter_map(|action| match action {
                Action::Renice { pid, nice } => Some((pid, nice)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    bench.running(1, 1);
    assert_eq!(renice(&mut bench, 1, 7), [(1001, 7)]);
    assert_eq!(renice(&mut bench, 1, -200), [(1001, -20)]);
    assert_eq!(renice(&mut bench, 2, 7), [], "nobody's");
    bench.reaped(1, 0);
    assert_eq!(renice(&mut bench, 1, 3), [], "its number may be another's");
}

#[test]
fn a_signal_that_comes_again_is_sent_once_and_confirmed_on_the_new_connection() {
    let mut bench = Bench::welcomed(1);
    bench.running(1, 1);
    assert_eq!(signals(&bench.signal(1, 10, 5)), [10]);
    // Its confirmation is lost with the connection; so is that of one that still waits.
    bench.signal(1, 12, 6);
    bench.event(Event::Unlinked);
    bench.event(Event::Signaled { proc: ProcId(1), errno: 0 });
    bench.event(Event::Linked);
    bench.welcome(1);
    let again = bench.signal(1, 10, 5);
    assert_eq!((signals(&again), done(&again)), (vec![], vec![(5, 0)]));
    let waits = bench.signal(1, 12, 6);
    assert_eq!((signals(&waits), done(&waits)), (vec![], vec![]));
    assert_eq!(done(&bench.event(Event::Signaled { proc: ProcId(1), errno: 1 })), [(6, 1)]);
    let again = bench.signal(1, 12, 6);
    assert_eq!((signals(&again), done(&again)), (vec![], vec![(6, 1)]));
    // Another one of the same kind is another one.
    assert_eq!(signals(&bench.signal(1, 12, 7)), [12]);
}

/// A ghostd that was started again does not know the groups yet of what it has found.
#[test]
fn a_groups_signal_is_the_same_whether_the_master_names_the_group_or_not() {
    let mut bench = Bench::welcomed(1);
    bench.running(1, 1);
    let signal = |seq, group| {
        let scope = Scope::Group as i32;
        Signal { proc: 1, seq, signal: 10, sender_uid: 4321, scope, group, confirm: true, ..Default::default() }
    };
    assert_eq!(signals(&bench.message(MasterToNode::Signal(signal(5, 1001)))), [10]);
    bench.event(Event::Signaled { proc: ProcId(1), errno: 0 });
    let again = bench.message(MasterToNode::Signal(signal(5, 0)));
    assert_eq!((signals(&again), done(&again)), (vec![], vec![(5, 0)]));
    // It has joined another group meanwhile.
    let standing = Standing { pgid: 77, ..Standing::default() };
    bench.core.tell_tree(vec![Told::Execed { proc: ProcId(1), standing }], &mut Vec::new());
    assert_eq!(signals(&bench.message(MasterToNode::Signal(signal(6, 77)))), [10]);
    bench.event(Event::Signaled { proc: ProcId(1), errno: 0 });
    let again = bench.message(MasterToNode::Signal(signal(6, 0)));
    assert_eq!((signals(&again), done(&again)), (vec![], vec![(6, 0)]));
}

/// It got the signal with its group, and is named by itself when that comes again.
#[test]
fn who_has_left_a_group_since_does_not_get_its_signal_again() {
    let mut bench = Bench::welcomed(1);
    bench.running(1, 1);
    bench.running(2, 1);
    let joins = |bench: &mut Bench, pgid| {
        let standing = Standing { pgid, ..Standing::default() };
        bench.core.tell_tree(vec![Told::Execed { proc: ProcId(2), standing }], &mut Vec::new());
    };
    let signal = |proc, group| {
        let scope = Scope::Group as i32;
        Signal { proc, seq: 5, signal: 10, sender_uid: 4321, scope, group, confirm: true, ..Default::default() }
    };
    joins(&mut bench, 1001);
    assert_eq!(signals(&bench.message(MasterToNode::Signal(signal(1, 1001)))), [10]);
    bench.event(Event::Signaled { proc: ProcId(1), errno: 0 });
    joins(&mut bench, 1002);
    for group in [0, 1002] {
        let again = bench.message(MasterToNode::Signal(signal(2, group)));
        assert_eq!((signals(&again), done(&again)), (vec![], vec![(5, 0)]));
    }
}

#[test]
fn a_connection_that_comes_as_the_lease_ends_is_kept() {
    let mut bench = Bench::welcomed(5);
    bench.now += 15 * SECOND;
    let linked = bench.event(Event::Linked);
    assert!(has(&linked, |action| matches!(action, Action::KillEverything)), "{linked:?}");
    assert!(!has(&linked, |action| matches!(action, Action::Disconnect(_))), "{linked:?}");
    let empty = bench.event(Event::NoChildren);
    assert!(matches!(sent(&empty)[..], [NodeToMaster::Hello(ref hello)] if hello.epoch == 0), "{empty:?}");
}

/// Two members' ghosts have told of a call, and ghostd does not know any more that they are of one group.
#[test]
fn a_group_signal_that_another_member_bore_is_not_sent_again_in_that_ones_name() {
    let mut bench = Bench::welcomed(1);
    bench.running(1, 1);
    bench.running(2, 1);
    let standing = Standing { pgid: 1001, ..Standing::default() };
    bench.core.tell_tree(vec![Told::Execed { proc: ProcId(2), standing }], &mut Vec::new());
    bench.reaped(1, 0);
    assert_eq!(signals(&bench.message(MasterToNode::Signal(group_signal(1)))), [10], "process 2 bears it");
    bench.event(Event::Signaled { proc: ProcId(2), errno: 0 });
    assert_eq!(signals(&bench.message(MasterToNode::Signal(group_signal(2)))), []);
}

/// To the group, in the name of this process.
fn group_signal(proc: u64) -> Signal {
    let scope = Scope::Group as i32;
    Signal { proc, seq: 5, signal: 10, sender_uid: 4321, scope, confirm: true, ..Default::default() }
}

/// Two members are dead, and each is named: the third one bears the signal for both, once.
#[test]
fn a_group_signal_in_the_name_of_two_dead_members_is_sent_once() {
    let mut bench = Bench::welcomed(1);
    for process in 1..=3 {
        bench.running(process, 1);
    }
    for process in [2, 3] {
        let standing = Standing { pgid: 1001, ..Standing::default() };
        bench.core.tell_tree(vec![Told::Execed { proc: ProcId(process), standing }], &mut Vec::new());
    }
    bench.reaped(1, 0);
    bench.reaped(2, 0);
    assert_eq!(signals(&bench.message(MasterToNode::Signal(group_signal(1)))), [10], "process 3 bears it");
    bench.event(Event::Signaled { proc: ProcId(3), errno: 0 });
    assert_eq!(signals(&bench.message(MasterToNode::Signal(group_signal(2)))), []);
}

fn sent(actions: &[Action]) -> Vec<NodeToMaster> {
    let message = |action: &Action| match action {
        Action::Send(message) => Some(message.clone()),
        _ => None,
    };
    actions.iter().filter_map(message).collect()
}

fn signals(actions: &[Action]) -> Vec<u8> {
    let signal = |action: &Action| match action {
        Action::Signal { order, .. } => Some(order.signal),
        _ => None,
    };
    actions.iter().filter_map(signal).collect()
}

fn done(actions: &[Action]) -> Vec<(u64, u32)> {
    let done = |message: NodeToMaster| match message {
        NodeToMaster::SignalDone(done) => Some((done.seq, done.errno)),
        _ => None,
    };
    sent(actions).into_iter().filter_map(done).collect()
}

fn has(actions: &[Action], wanted: impl Fn(&Action) -> bool) -> bool {
    actions.iter().any(wanted)
}

fn kills_all(actions: &[Action]) -> bool {
    matches!(actions.first(), Some(Action::KillEverything))
}

#[test]
fn the_lease_is_looked_at_before_anything_else() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.now += 14 * SECOND;
    for seq in 8..=9 {
        let renewed = bench.message(MasterToNode::Lease(Lease { seq, second: false }));
        assert!(has(&renewed, |action| matches!(action, Action::AckLease { seq: s } if *s == seq)));
    }
    bench.now += 15 * SECOND - Duration::from_nanos(1);
    assert!(bench.event(Event::Tick).is_empty());
    assert_eq!(bench.core.deadline(), Some(bench.now + Duration::from_nanos(1)));

    // It was stopped, and finds a renewal in the socket that is older than the stop.
    bench.now += 100 * SECOND;
    let late = bench.message(MasterToNode::Lease(Lease { seq: 10, second: false }));
    assert!(kills_all(&late), "{late:?}");
    assert!(has(&late, |action| matches!(action, Action::Disconnect(_))));
    assert!(!has(&late, |action| matches!(action, Action::AckLease { .. })), "nothing else is done");

    // What it then says of itself is that of another holder, which knows nothing.
    bench.event(Event::NoChildren);
    let NodeToMaster::Hello(hello) = sent(&bench.event(Event::Linked)).remove(0) else { panic!("no hello") };
    assert_eq!((hello.epoch, hello.processes.len()), (0, 0));
    assert_ne!(hello.holder, 77);
}

/// The master counts from the moment at which it sent a lease. One that is long under way must not make this end later.
#[test]
fn a_lease_begins_with_the_last_word_that_the_master_answers() {
    let mut bench = Bench::welcomed(5);
    let begin = bench.now;
    bench.now += 4 * SECOND;
    bench.message(MasterToNode::Lease(Lease { seq: 1, second: false }));
    assert_eq!(bench.core.deadline(), Some(begin + 15 * SECOND), "it may have been sent right after the hello");
    let second = bench.message(MasterToNode::Lease(Lease { seq: 2, second: true }));
    assert!(!has(&second, |action| matches!(action, Action::AckLease { .. })), "the second of a pair wants no answer");
    assert_eq!(bench.core.deadline(), Some(begin + 19 * SECOND), "not before the first was acknowledged");
    // Ten seconds on the way.
    bench.now += 10 * SECOND;
    bench.message(MasterToNode::Lease(Lease { seq: 3, second: false }));
    assert_eq!(bench.core.deadline(), Some(begin + 19 * SECOND));
    // The same with a welcome.
    bench.event(Event::Unlinked);
    bench.event(Event::Linked);
    let hello = bench.now;
    bench.now += 3 * SECOND;
    bench.welcome(5);
    assert_eq!(bench.core.deadline(), Some(hello + 15 * SECOND));
}

#[test]
fn the_lease_rides_out_a_lost_connection() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.event(Event::Unlinked);
    bench.now += 14 * SECOND;
    let said = sent(&bench.link(5));
    assert!(said.iter().any(|message| matches!(message, NodeToMaster::Started(started) if started.proc == 1)));
    bench.now += 14 * SECOND;
    assert!(bench.event(Event::Tick).is_empty(), "the welcome has renewed it");
}

#[test]
fn another_epoch_is_fenced_before_it_is_served() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.event(Event::Unlinked);
    let NodeToMaster::Hello(hello) = sent(&bench.event(Event::Linked)).remove(0) else { panic!("no hello") };
    assert_eq!(
        (hello.epoch, hello.processes.as_slice()),
        (5, &[HeldProcess { proc: 1, pid: 1001, launch: 1, uid: 4321, stdin: 0 }][..])
    );
    let actions = bench.welcome(6);
    assert!(kills_all(&actions));
    assert!(sent(&actions).is_empty(), "nothing of the old epoch is told: {actions:?}");
    assert!(!bench.core.accepts(), "and nothing of the new one is begun");
    // Its end is told to nobody.
    assert!(bench.reaped(1, 9).is_empty());
    bench.event(Event::NoChildren);
    assert!(bench.core.accepts());
    bench.running(1, 1);
}

#[test]
fn a_process_that_cannot_die_does_not_stop_the_next_epoch_for_ever() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.link(6);
    assert!(!bench.core.accepts());
    bench.now = bench.core.deadline().expect("a time is set");
    bench.event(Event::Tick);
    assert!(bench.core.accepts());
}

#[test]
fn nothing_is_heard_before_the_welcome() {
    let mut bench = Bench::new();
    bench.event(Event::Linked);
    let actions = bench.spawn(1, 1);
    assert!(matches!(actions.as_slice(), [Action::Disconnect(_)]), "{actions:?}");
    assert!(bench.spawn(2, 1).is_empty(), "the connection is over");
}

#[test]
fn an_end_is_repeated_until_it_is_forgotten() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    let actions = bench.reaped(1, 7 << 8);
    assert!(matches!(actions.as_slice(), [Action::Send(NodeToMaster::Ended(_)), Action::Drain { .. }]), "{actions:?}");
    for _ in 0..2 {
        bench.event(Event::Unlinked);
        let said = sent(&bench.link(5));
        assert!(said.iter().any(|m| matches!(m, NodeToMaster::Ended(ended) if ended.status == 7 << 8)), "{said:?}");
    }
    let actions = bench.message(MasterToNode::Forget(Forget { proc: 1 }));
    assert!(matches!(actions.as_slice(), [Action::Release { .. }]));
    bench.event(Event::Unlinked);
    assert!(!sent(&bench.link(5)).iter().any(|m| matches!(m, NodeToMaster::Ended(_))));
}

#[test]
fn a_living_process_cannot_be_forgotten() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    assert!(bench.message(MasterToNode::Forget(Forget { proc: 1 })).is_empty());
    assert_eq!(bench.core.living(LaunchId(1)), [1001]);
}

#[test]
fn a_spawn_that_comes_twice_starts_once() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    assert!(bench.spawn(1, 1).is_empty());
}

#[test]
fn a_failed_start_is_told_and_its_death_is_not() {
    let mut bench = Bench::welcomed(5);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 1001, pgid: 0, sid: 0 });
    let (proc, stage) = (ProcId(1), StartStage::Exec);
    let actions = bench.event(Event::StartFailed { proc, stage, errno: 2 });
    assert!(matches!(sent(&actions).as_slice(), [NodeToMaster::StartFailed(failed)] if failed.errno == 2));
    assert!(bench.reaped(1, 127 << 8).is_empty());
    assert!(bench.core.living(LaunchId(1)).is_empty());
}

#[test]
fn a_stop_before_the_program_is_not_told() {
    let mut bench = Bench::welcomed(5);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 1001, pgid: 0, sid: 0 });
    assert!(bench.event(Event::Stopped { pid: 1001, signal: 19 }).is_empty());
    assert!(bench.event(Event::Continued { pid: 1001 }).is_empty());
    bench.event(Event::Executed { proc: ProcId(1), directory_errno: 0 });
    assert_eq!(sent(&bench.event(Event::Stopped { pid: 1001, signal: 19 })).len(), 1);
}

#[test]
fn signals_wait_for_the_program_and_keep_their_order() {
    let mut bench = Bench::welcomed(5);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 1001, pgid: 0, sid: 0 });
    assert!(bench.signal(1, 10, 1).is_empty());
    assert!(bench.signal(1, 19, 2).is_empty());
    let actions = bench.event(Event::Executed { proc: ProcId(1), directory_errno: 0 });
    assert_eq!(signals(&actions), [10], "one at a time");
    let actions = bench.event(Event::Signaled { proc: ProcId(1), errno: 0 });
    assert_eq!((signals(&actions), done(&actions)), (vec![19], vec![(1, 0)]));
    let actions = bench.event(Event::Signaled { proc: ProcId(1), errno: libc::EPERM });
    assert_eq!((signals(&actions), done(&actions)), (vec![], vec![(2, 1)]));
}

#[test]
fn a_kill_does_not_wait_for_the_program() {
    let mut bench = Bench::welcomed(5);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 1001, pgid: 0, sid: 0 });
    bench.signal(1, 10, 1);
    assert_eq!(signals(&bench.signal(1, 9, 2)), [9]);
    assert_eq!(done(&bench.event(Event::Signaled { proc: ProcId(1), errno: 0 })), [(2, 0)]);
    assert_eq!(done(&bench.reaped(1, 9)), [(1, libc::ESRCH.unsigned_abs())]);
}

#[test]
fn a_kill_overtakes_signals_that_wait_for_room() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.signal(1, 40, 1);
    bench.event(Event::Signaled { proc: ProcId(1), errno: libc::EAGAIN });
    assert!(bench.signal(1, 41, 2).is_empty());
    assert_eq!(signals(&bench.signal(1, 9, 3)), [9]);
    // Not allowed after all: the others have their turn.
    let actions = bench.event(Event::Signaled { proc: ProcId(1), errno: libc::EPERM });
    assert_eq!((signals(&actions), done(&actions)), (vec![40], vec![(3, libc::EPERM.unsigned_abs())]));
}

#[test]
fn a_foreign_kill_of_a_starting_process_is_judged_when_it_has_its_own_rights() {
    let mut bench = Bench::welcomed(5);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 1001, pgid: 0, sid: 0 });
    let foreign = Signal { proc: 1, seq: 1, signal: 9, sender_uid: 1, sender_euid: 1, ..Default::default() };
    assert!(bench.message(MasterToNode::Signal(foreign)).is_empty());
    let actions = bench.event(Event::Executed { proc: ProcId(1), directory_errno: 0 });
    assert!(matches!(actions.last(), Some(Action::Signal { order, .. }) if !order.privileged));
}

#[test]
fn a_full_queue_of_the_kernel_is_tried_again_in_order_and_not_for_ever() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    assert_eq!(signals(&bench.signal(1, 40, 1)), [40]);
    assert!(bench.signal(1, 41, 2).is_empty());
    let begin = bench.now;
    loop {
        let actions = bench.event(Event::Signaled { proc: ProcId(1), errno: libc::EAGAIN });
        if let [(seq, errno)] = done(&actions).as_slice() {
            assert_eq!((*seq, *errno), (1, libc::EAGAIN.unsigned_abs()));
            assert_eq!(signals(&actions), [41]);
            break;
        }
        bench.message(MasterToNode::Lease(Lease { seq: 1, second: false }));
        bench.now = bench.core.deadline().expect("it is tried again");
        assert_eq!(signals(&bench.event(Event::Tick)), [40]);
        assert!(bench.now < begin + 60 * SECOND, "it is tried for ever");
    }
}

#[test]
fn a_signal_for_nobody_is_answered() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    assert_eq!(done(&bench.signal(2, 15, 1)), [(1, libc::ESRCH.unsigned_abs())]);
    assert_eq!(done(&bench.signal(1, 65, 2)), [(2, libc::EINVAL.unsigned_abs())]);
    assert_eq!(done(&bench.signal(1, 0, 3)), [(3, libc::EINVAL.unsigned_abs())]);
    // One that waits when the process ends is answered as well.
    bench.signal(1, 10, 4);
    bench.signal(1, 12, 5);
    let actions = bench.reaped(1, 0);
    assert_eq!(done(&actions), [(4, libc::ESRCH.unsigned_abs()), (5, libc::ESRCH.unsigned_abs())]);
    assert!(bench.event(Event::Signaled { proc: ProcId(1), errno: 0 }).is_empty(), "the answer that was under way");
}

#[test]
fn a_confirmation_is_for_the_connection_that_asked() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.signal(1, 10, 1);
    bench.event(Event::Unlinked);
    bench.link(5);
    assert!(bench.event(Event::Signaled { proc: ProcId(1), errno: 0 }).is_empty());
}

#[test]
fn output_goes_on_where_the_master_has_taken_the_last_byte() {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    let read = |bytes: &'static [u8]| Event::Read { proc: ProcId(1), fd: 1, bytes: Bytes::from_static(bytes) };
    bench.event(read(b"abc"));
    bench.event(Event::Unlinked);
    assert!(bench.event(read(b"def")).is_empty(), "nobody is there to be told");
    bench.reaped(1, 0);
    bench.event(Event::OutputOver { proc: ProcId(1), fd: 1 });
    let frames = |actions: Vec<Action>| -> Vec<(u64, Bytes, bool)> {
        let frame = |action| match action {
            Action::SendData(data) => Some((data.offset, data.bytes, data.eof)),
            _ => None,
        };
        actions.into_iter().filter_map(frame).collect()
    };
    assert_eq!(frames(bench.link(5)), [(0, Bytes::from_static(b"abcdef"), false), (6, Bytes::new(), true)]);
    bench.message(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: 4 }));
    bench.event(Event::Unlinked);
    assert_eq!(frames(bench.link(5)), [(4, Bytes::from_static(b"ef"), false), (6, Bytes::new(), true)]);
    let bad = bench.message(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: 7 }));
    assert!(matches!(bad.as_slice(), [Action::Disconnect(_)]));
}

/// Any of the things that can come in, from a small world so that they meet.
fn anything() -> impl Strategy<Value = (u8, u64, u32, u64)> {
    (0u8..22, 1u64..5, 0u32..70, 0u64..20_000)
}

proptest! {
    /// Whatever comes in whatever order: no panic; nothing is sent on a connection that is not welcomed; nothing is created
    /// or signalled without a lease; every process that was created is in the end released or still known.
    #[test]
    fn any_order_of_events_keeps_the_invariants(steps in prop::collection::vec(anything(), 0..200)) {
        let mut bench = Bench::new();
        let (mut linked, mut welcomed) = (false, false);
        for (kind, proc, number, millis) in steps {
            let id = ProcId(proc);
            let actions = match kind {
                0 => { linked = true; welcomed = false; bench.event(Event::Linked) }
                1 => { linked = false; welcomed = false; bench.event(Event::Unlinked) }
                2 | 3 => {
                    let takes = bench.core.accepts();
                    let actions = bench.welcome(5 + u64::from(number) % 2);
                    welcomed |= linked && takes;
                    actions
                }
                4..=6 => bench.spawn(proc, proc % 2),
                7 => bench.event(Event::Created { proc: id, pid: 1000 + proc as u32, pgid: 0, sid: 0 }),
                8 => bench.event(Event::Executed { proc: id, directory_errno: 0 }),
                9 => bench.event(Event::StartFailed { proc: id, stage: StartStage::Exec, errno: 2 }),
                10 => bench.reaped(proc, 0),
                11 => bench.signal(proc, number, 1),
                12 => bench.event(Event::Signaled { proc: id, errno: if number < 35 { 0 } else { libc::EAGAIN } }),
                13 => {
                    let room = bench.core.output(id, 1).map_or(0, Output::room);
                    bench.event(Event::Read { proc: id, fd: 1, bytes: vec![0; room.min(number as usize)].into() })
                }
                14 => bench.event(Event::OutputOver { proc: id, fd: 1 }),
                15 => bench.message(MasterToNode::Forget(Forget { proc })),
                16 => bench.event(Event::InputGone { proc: id }),
                17 => bench.event(Event::Data(Data {
                    id: proc, offset: millis, fd: (number % 3) as u8, eof: false, bytes: vec![1; number as usize].into(),
                })),
                18 => bench.message(MasterToNode::Lease(Lease { seq: 1, second: false })),
                19 => bench.message(MasterToNode::EndLaunch(EndLaunch { launch: proc, everything: proc % 2 == 0 })),
                20 => { bench.now += Duration::from_millis(millis); bench.event(Event::Tick) }
                _ => bench.event(Event::NoChildren),
            };
            if has(&actions, |action| matches!(action, Action::Disconnect(_))) {
                linked = false;
                welcomed = false;
            }
            for action in &actions {
                match action {
                    Action::Send(NodeToMaster::Hello(_)) => prop_assert!(linked && !welcomed),
                    Action::Send(_) | Action::SendData(_) | Action::AckLease { .. } => prop_assert!(welcomed, "{:?}", action),
                    Action::Create(_) | Action::EndLaunch { .. } => {
                        prop_assert!(bench.core.lease.is_some_and(|lease| lease.over > bench.now));
                    }
                    _ => {}
                }
            }
            if let Some(lease) = bench.core.lease {
                prop_assert!(lease.over > bench.now || bench.core.deadline() <= Some(bench.now));
            } else {
                prop_assert!(bench.core.processes.is_empty(), "without a lease nothing is kept");
            }
        }
    }
}

/// `kill -9 -PGID`: the member that the master names is gone by then, and another one gets it for all.
#[test]
fn a_group_signal_whose_bearer_is_gone_is_borne_by_another_member() {
    use ghost_abi::tree::Process as Seen;
    let mut bench = Bench::welcomed(7);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 50, pgid: 0, sid: 0 });
    bench.event(Event::Executed { proc: ProcId(1), directory_errno: 0 });
    let own = std::process::id().cast_signed();
    let seen = |pid: i32, parent: i32| Seen {
        kind: 1,
        parent,
        seq: 0,
        key: pid as u64,
        parent_key: parent as u64,
        creator_key: 0,
        pid,
        pgid: 50,
        sid: 1,
        uid: 4321,
        euid: 4321,
        gid: 4321,
        status: 0,
        flags: 0,
        comm: [0; 16],
    };
    bench.event(Event::Tree(TreeEvent::Forked { process: seen(50, own), by_us: true, launch: None }));
    let told = bench.event(Event::Tree(TreeEvent::Forked { process: seen(51, 50), by_us: false, launch: None }));
    let [Action::Send(NodeToMaster::Forked(forked))] = &told[..] else { panic!("{told:?}") };
    let proc = forked.proc;
    bench.event(Event::Tree(TreeEvent::Ended { key: 51, status: 0, heir: 0 }));
    let kill = |seq: u64, group: u32, scope: Scope| {
        let scope = scope as i32;
        MasterToNode::Signal(Signal { proc, seq, signal: 9, scope, group, confirm: true, ..Signal::default() })
    };
    let sent = |actions: Vec<Action>| -> Vec<u32> {
        let sent = |action: &Action| if let Action::Signal { pid, .. } = action { Some(*pid) } else { None };
        actions.iter().filter_map(sent).collect()
    };
    assert_eq!(sent(bench.message(kill(1, 0, Scope::Process))), [0; 0], "it is dead");
    assert_eq!(sent(bench.message(kill(2, 99, Scope::Group))), [0; 0], "nobody is in that group");
    assert_eq!(sent(bench.message(kill(3, 50, Scope::Group))), [50]);
}

#[test]
fn a_signal_upwards_is_told_under_its_senders_name() {
    let mut bench = Bench::new();
    bench.link(7);
    bench.running(1, 1);
    let seen = |sender: u32| Sent { sender, target: 50, group: true, signal: 10, code: 0, value: 3 };
    let told = sent(&bench.event(Event::Sent(seen(1001))));
    assert!(
        matches!(&told[..], [NodeToMaster::Sent(sent)] if (sent.proc, sent.target, sent.group, sent.value) == (1, 50, true, 3)),
        "{told:?}"
    );
    assert!(sent(&bench.event(Event::Sent(seen(77)))).is_empty(), "nobody that is known");
}

#[test]
fn a_node_says_whether_it_makes_stand_ins_and_terminals() {
    let mut bench = Bench::new();
    for expected in [&["root"][..], &["root", "stand-ins", "terminal"]] {
        let hello = sent(&bench.event(Event::Linked));
        assert!(matches!(&hello[..], [NodeToMaster::Hello(hello)] if hello.features == expected), "{hello:?}");
        bench.core.stand_in();
    }
}

#[test]
fn the_group_of_a_started_process_is_told() {
    let mut bench = Bench::new();
    bench.link(7);
    bench.spawn(1, 1);
    bench.event(Event::Created { proc: ProcId(1), pid: 1001, pgid: 50, sid: 0 });
    let told = sent(&bench.event(Event::Executed { proc: ProcId(1), directory_errno: 0 }));
    assert!(matches!(&told[..], [NodeToMaster::Started(started)] if started.pgid == 50), "{told:?}");
}

/// Two processes of one group: the first executes its program, the second does not yet.
fn one_that_starts_in_anothers_group() -> Bench {
    let mut bench = Bench::new();
    bench.link(7);
    for (proc, pid) in [(1, 1001), (2, 1002)] {
        bench.spawn(proc, 1);
        bench.event(Event::Created { proc: ProcId(proc), pid, pgid: 50, sid: 0 });
    }
    bench.event(Event::Executed { proc: ProcId(1), directory_errno: 0 });
    bench
}

/// Whom signals were sent to, and how.
fn aims(actions: &[Action]) -> Vec<(u32, Scope)> {
    let aim = |action: &Action| match action {
        Action::Signal { pid, order, .. } => Some((*pid, order.scope)),
        _ => None,
    };
    actions.iter().filter_map(aim).collect()
}

fn to_group(proc: u64, signal: u32) -> MasterToNode {
    let scope = Scope::Group as i32;
    let (sender_uid, sender_euid) = (4321, 4321);
    MasterToNode::Signal(Signal {
        proc,
        seq: 1,
        signal,
        scope,
        group: 50,
        sender_uid,
        sender_euid,
        ..Signal::default()
    })
}

#[test]
fn a_group_is_killed_though_one_of_it_is_still_starting() {
    let kill = |named| aims(&one_that_starts_in_anothers_group().message(to_group(named, 9)));
    assert_eq!(kill(2), [(1002, Scope::Process), (1001, Scope::Group)]);
    assert_eq!(kill(1), [(1001, Scope::Group), (1002, Scope::Process)]);
}

#[test]
fn one_that_is_still_starting_gets_its_groups_signal_once_and_the_others_do_not_wait() {
    for named in [1, 2] {
        let mut bench = one_that_starts_in_anothers_group();
        assert_eq!(bench.core.starting_in(50), [1002]);
        assert_eq!(aims(&bench.message(to_group(named, 10))), [(1001, Scope::Group)]);
        assert_eq!(aims(&bench.message(to_group(3 - named, 10))), [], "the other one's ghost tells of the same call");
        bench.event(Event::Signaled { proc: ProcId(1), errno: 0 });
        let executed = bench.event(Event::Executed { proc: ProcId(2), directory_errno: 0 });
        assert_eq!(aims(&executed), [(1002, Scope::Process)]);
        assert_eq!(aims(&bench.event(Event::Signaled { proc: ProcId(2), errno: 0 })), []);
    }
}

#[test]
fn a_signal_upwards_is_told_again_until_it_is_done_and_before_its_senders_end() {
    let mut bench = Bench::welcomed(7);
    bench.running(1, 1);
    let seen = Sent { sender: 1001, target: 50, group: false, signal: 10, code: 0, value: 0 };
    let told = |actions: &[Action]| -> Vec<(&'static str, u64)> {
        let name = |message: NodeToMaster| match message {
            NodeToMaster::Sent(sent) => Some(("sent", sent.seq)),
            NodeToMaster::Ended(_) => Some(("ended", 0)),
            _ => None,
        };
        sent(actions).into_iter().filter_map(name).collect()
    };
    bench.event(Event::Unlinked);
    assert_eq!(told(&bench.event(Event::Sent(seen))), []);
    assert_eq!(told(&bench.reaped(1, 0)), []);
    assert_eq!(told(&bench.link(7)), [("sent", 1), ("ended", 0)]);
    bench.event(Event::Unlinked);
    assert_eq!(told(&bench.link(7)), [("sent", 1), ("ended", 0)]);
    bench.message(MasterToNode::SentDone(standin::SentDone { seq: 1 }));
    bench.event(Event::Unlinked);
    assert_eq!(told(&bench.link(7)), [("ended", 0)]);
}

#[test]
fn ranks_on_other_nodes_are_for_launches_that_live_here() {
    let mut bench = Bench::welcomed(7);
    bench.running(1, 1);
    let others = vec![standin::Other { pid: 60, rank: 3 }];
    for (launch, wanted) in [(1, 1), (2, 0)] {
        let actions = bench.message(MasterToNode::Beside(standin::Beside { launch, others: others.clone() }));
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::Beside { .. })).count(), wanted);
    }
}

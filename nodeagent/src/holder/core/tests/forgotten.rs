//! Forked processes that have ended, and that the master needs nothing more of but to hear that they were waited for.

use super::*;
use crate::holder::event::TreeEvent;
use ghost_abi::tree::Process as TreeProcess;

fn forked(key: u64, parent_key: u64, pid: i32) -> TreeProcess {
    TreeProcess {
        kind: 1,
        key,
        parent_key,
        pid,
        pgid: 1001,
        sid: 1,
        uid: 4321,
        euid: 4321,
        gid: 4321,
        parent: 0,
        seq: 0,
        creator_key: 0,
        status: 0,
        flags: 0,
        comm: [0; 16],
    }
}

/// Rank 1 has forked a process of which the master has heard, which has ended, and which the master has let go.
fn forgotten() -> (Bench, u64) {
    let mut bench = Bench::welcomed(5);
    bench.running(1, 1);
    bench.event(Event::Tree(TreeEvent::Forked {
        process: forked(11, 0, 1001),
        by_us: true,
        launch: Some(LaunchId(1)),
    }));
    let child = TreeEvent::Forked { process: forked(12, 11, 2000), by_us: false, launch: None };
    let said = sent(&bench.event(Event::Tree(child)));
    let name = said.iter().find_map(|m| match m {
        NodeToMaster::Forked(forked) => Some(forked.proc),
        _ => None,
    });
    let name = name.unwrap_or_else(|| panic!("the master hears of it: {said:?}"));
    bench.event(Event::Tree(TreeEvent::Ended { key: 12, status: 0, heir: 0 }));
    bench.message(MasterToNode::Forget(Forget { proc: name }));
    (bench, name)
}

fn names(said: &[NodeToMaster]) -> Vec<u64> {
    let hello = said.iter().find_map(|m| match m {
        NodeToMaster::Hello(hello) => Some(hello.processes.iter().map(|held| held.proc).collect()),
        _ => None,
    });
    hello.expect("a hello")
}

fn is_told(said: &[NodeToMaster], name: u64) -> bool {
    said.iter().any(|m| matches!(m, NodeToMaster::Reaped(reaped) if reaped.proc == name))
}

#[test]
fn who_was_waited_for_is_told_and_gone() {
    let (mut bench, name) = forgotten();
    assert!(is_told(&sent(&bench.event(Event::Tree(TreeEvent::Reaped { key: 12 }))), name));
    bench.event(Event::Unlinked);
    assert_eq!(names(&sent(&bench.event(Event::Linked))), [1]);
}

/// The master has been greeted with it, and would wait for ever.
#[test]
fn who_was_waited_for_between_hello_and_welcome_is_told_after_it() {
    let (mut bench, name) = forgotten();
    bench.event(Event::Unlinked);
    assert!(names(&sent(&bench.event(Event::Linked))).contains(&name));
    assert!(!is_told(&sent(&bench.event(Event::Tree(TreeEvent::Reaped { key: 12 }))), name));
    assert!(is_told(&sent(&bench.welcome(5)), name));
    bench.message(MasterToNode::Forget(Forget { proc: name }));
    bench.event(Event::Unlinked);
    assert_eq!(names(&sent(&bench.event(Event::Linked))), [1]);
}

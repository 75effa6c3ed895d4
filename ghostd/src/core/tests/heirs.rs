//! Who gets the children of a ghost that ends.

use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{self, NodeToMaster};
use ghost_proto::tree::{Forked, Reaped, Standing, forked_id};
use ghost_sys::ghost::{Answer, Birth};

use super::super::{Action, Event};
use super::transitions::{Bench, GHOST, answers};

/// What node 0 forks.
const CHILD: u32 = 1_048_600;
/// The rank, which they all come from.
const RANK: ProcId = ProcId(2);

fn child(counter: u64) -> ProcId {
    forked_id(NodeNumber(0), counter)
}

impl Bench {
    /// A process forks; its ghost makes the child's. Gives what that reads as.
    fn has_child(&mut self, counter: u64, parent: ProcId, maker: (u32, u32)) -> u32 {
        let pid = CHILD + counter as u32;
        let standing = Standing { pgid: GHOST, sid: 1, uid: 1000, gid: 1000, comm: "sh".to_owned().into() };
        let (proc, parent) = (child(counter).0, parent.0);
        let forked = Forked { proc, parent, launch: 1, pid, standing: Some(standing), creator: 0 };
        let asked = answers(&self.node(0, 10, NodeToMaster::Forked(forked)));
        let [Answer::Fork(Birth { rank, .. })] = asked[..] else { panic!("{asked:?}") };
        self.read(maker.0, u64::from(maker.1));
        self.read(pid, u64::from(rank));
        self.feed(Event::Adopted { process: child(counter), ok: true, pgid: 100 });
        self.read(pid, u64::from(rank));
        rank
    }

    /// The rank, its child 1, and that one's child 2. Gives what their ghosts read as.
    fn with_family() -> (Bench, [u32; 2]) {
        let mut bench = Bench::running();
        let first = bench.has_child(1, RANK, (GHOST, 0));
        let second = bench.has_child(2, child(1), (CHILD + 1, first));
        (bench, [first, second])
    }

    fn ends_with_heir(&mut self, counter: u64, heir: ProcId) -> Vec<Answer> {
        let ended = node::Ended { proc: child(counter).0, status: 0, usage: None, heir: heir.0 };
        answers(&self.node(0, 10, NodeToMaster::Ended(ended)))
    }

    fn ghost_is_gone(&mut self, counter: u64) -> Vec<Action> {
        self.feed(Event::GhostExited { ghost: child(counter).0, launcher: false, pid: 0 })
    }

    fn is_reaped(&mut self, counter: u64) -> Vec<Answer> {
        answers(&self.node(0, 10, NodeToMaster::Reaped(Reaped { proc: child(counter).0 })))
    }
}

#[test]
fn an_end_waits_until_the_heirs_ghost_is_ready() {
    let (mut bench, _) = Bench::with_family();
    assert_eq!(bench.ends_with_heir(1, RANK), [Answer::TakeIn]);
    assert_eq!(bench.is_reaped(1), [], "not even if it has been waited for");
    assert_eq!(answers(&bench.read(GHOST, 0)), [Answer::Exit(0)]);
    let gone = bench.ghost_is_gone(1);
    assert_eq!(answers(&gone), [Answer::Reap(CHILD + 1)]);
    bench.read(GHOST, 0);
    // The other one is the heir's now: a zombie until that has waited for it.
    assert_eq!(bench.ends_with_heir(2, RANK), [Answer::Exit(0)]);
    assert_eq!(answers(&bench.ghost_is_gone(2)), []);
    assert_eq!(bench.is_reaped(2), [Answer::Reap(CHILD + 2)]);
}

#[test]
fn it_is_told_once() {
    let (mut bench, [_, second]) = Bench::with_family();
    bench.has_child(3, child(2), (CHILD + 2, second));
    assert_eq!(bench.ends_with_heir(1, RANK), [Answer::TakeIn]);
    assert_eq!(bench.ends_with_heir(2, RANK), [], "it is told already");
    assert_eq!(answers(&bench.read(GHOST, 0)), [Answer::Exit(0), Answer::Exit(0)]);
    // Also the children of its grandchild, whose own parent is dead.
    bench.ghost_is_gone(1);
    bench.ghost_is_gone(2);
    assert_eq!(bench.ends_with_heir(3, RANK), [Answer::Exit(0)]);
    bench.ghost_is_gone(3);
    assert_eq!(bench.is_reaped(3), [Answer::Reap(CHILD + 3)]);
}

#[test]
fn without_children_nobody_is_told() {
    let (mut bench, _) = Bench::with_family();
    assert_eq!(bench.ends_with_heir(2, RANK), [Answer::Exit(0)]);
}

#[test]
fn an_heir_of_which_nothing_is_known_is_none() {
    for heir in [ProcId(0), ProcId(99), child(9), child(1)] {
        let (mut bench, _) = Bench::with_family();
        assert_eq!(bench.ends_with_heir(1, heir), [Answer::Exit(0)]);
        bench.ghost_is_gone(1);
        assert_eq!(bench.ends_with_heir(2, ProcId(0)), [Answer::Exit(0)]);
        bench.ghost_is_gone(2);
        assert_eq!(bench.is_reaped(2), [], "init waits for it");
    }
}

#[test]
fn an_heir_that_does_not_come_back_is_not_awaited_for_long() {
    let (mut bench, _) = Bench::with_family();
    assert_eq!(bench.ends_with_heir(1, RANK), [Answer::TakeIn]);
    let ticks = (0..100).position(|_| {
        bench.now += std::time::Duration::from_millis(20);
        answers(&bench.feed(Event::Tick)) == [Answer::Exit(0)]
    });
    assert_eq!(ticks, Some(19));
    bench.ghost_is_gone(1);
    // Whoever takes in orphans here has got it.
    bench.ends_with_heir(2, RANK);
    bench.ghost_is_gone(2);
    assert_eq!(bench.is_reaped(2), []);
}

#[test]
fn the_heir_of_an_heir_inherits() {
    let (mut bench, [first, second]) = Bench::with_family();
    bench.has_child(3, child(2), (CHILD + 2, second));
    assert_eq!(bench.ends_with_heir(2, child(1)), [Answer::TakeIn]);
    assert_eq!(answers(&bench.read(CHILD + 1, u64::from(first))), [Answer::Exit(0)]);
    bench.ghost_is_gone(2);
    assert_eq!(bench.ends_with_heir(1, RANK), [Answer::TakeIn]);
    assert_eq!(answers(&bench.read(GHOST, 0)), [Answer::Exit(0)]);
    bench.ghost_is_gone(1);
    bench.ends_with_heir(3, RANK);
    bench.ghost_is_gone(3);
    assert_eq!(bench.is_reaped(3), [Answer::Reap(CHILD + 3)]);
}

//! Many signals: order, quotas, a full ring, and what it costs.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Instant;

use ghost_host::programs::{Event, Programs, SignalRecord};

use super::actor::{Actor, events, signals};

/// `GHOST_QUOTA` of ghost-abi; a change of it has to be one on purpose.
const QUOTA: usize = 16 * 1024;

pub fn realtime_in_order() {
    let mut programs = Programs::load().expect("load");
    let ghost = Actor::ghost(&programs, 1);
    let mut sender = Actor::new();
    // Nobody reads meanwhile.
    sender.does(&format!("queue {} 40 0 10000", ghost.pid));
    let values: Vec<u64> = signals(&mut programs, 10_000).iter().map(|record| record.value).collect();
    assert_eq!(values, (0..10_000).collect::<Vec<_>>());
    assert_eq!(programs.dropped(), 0);
}

pub fn flooded_ghost_does_not_hide_others() {
    let mut programs = Programs::load().expect("load");
    let flooded = Actor::ghost(&programs, 1);
    let other = Actor::ghost(&programs, 2);
    let mut sender = Actor::new();
    let before = programs.state(flooded.pidfd().as_fd()).expect("state").expect("a ghost");
    sender.does(&format!("queue {} 40 0 40000", flooded.pid));
    sender.does(&format!("kill {} 12", flooded.pid));
    sender.does(&format!("kill {} 12", other.pid));
    let mut seen = events(&mut programs, QUOTA + 2);
    assert_eq!(seen.pop(), Some(Event::Dropped));
    let Some(Event::Signal(last)) = seen.pop() else { panic!("no signal") };
    assert_eq!((last.ghost, last.sig), (2, 12));
    assert_eq!(seen.len(), QUOTA);
    let state = programs.state(flooded.pidfd().as_fd()).expect("state").expect("a ghost");
    assert_eq!(state.dropped_realtime_since(&before), 40_000 - QUOTA as u64);
    assert_eq!(state.dropped_since(&before), 1 << 39 | 1 << 11, "the standard signal is not lost");
    assert_eq!(programs.dropped(), 40_000 - QUOTA as u64 + 1);
    // All is read: a new window, and the ghost is heard again.
    sender.does(&format!("queue {} 40 7 100", flooded.pid));
    assert_eq!(signals(&mut programs, 100)[0].value, 7);
    assert_eq!(programs.next_event(), None);
}

/// However often somebody takes over, a ghost's quota does not add up.
pub fn a_successor_begins_with_a_new_quota() {
    const EACH: usize = 5_000;
    let mut programs = Programs::load().expect("load");
    let ghost = Actor::ghost(&programs, 1);
    let mut sender = Actor::new();
    for round in 0..QUOTA / EACH + 2 {
        sender.does(&format!("queue {} 40 {} {EACH}", ghost.pid, round * EACH));
        if round % 2 == 0 {
            // Read by the successor.
            let mut kept: BTreeMap<_, _> = programs.descriptors().expect("copies").into_iter().collect();
            drop(programs);
            programs = Programs::take_over(&mut kept, 1).expect("taken over");
        }
        let values: Vec<u64> = signals(&mut programs, EACH).iter().map(|record| record.value).collect();
        assert_eq!(values, (round as u64 * EACH as u64..).take(EACH).collect::<Vec<_>>());
        let mut kept: BTreeMap<_, _> = programs.descriptors().expect("copies").into_iter().collect();
        drop(programs);
        programs = Programs::take_over(&mut kept, 1).expect("taken over");
    }
    assert_eq!(programs.dropped(), 0);
}

pub fn full_ring_keeps_room_for_kills_and_exits() {
    const EACH: usize = 16_000;
    let mut programs = Programs::load().expect("load");
    let ghosts: Vec<Actor> = (0..8).map(|ghost| Actor::ghost(&programs, ghost)).collect();
    let mut sender = Actor::new();
    for ghost in &ghosts {
        sender.does(&format!("queue {} 40 0 {EACH}", ghost.pid));
    }
    let dropped = programs.dropped();
    assert!(dropped > 0, "the ring holds more than it did when this test was written");
    for ghost in &ghosts {
        sender.does(&format!("kill {} 9", ghost.pid));
    }
    let reported = ghosts.len() * EACH - usize::try_from(dropped).expect("small");
    assert!(reported >= 50_000, "{reported}");
    let seen = events(&mut programs, reported + 2 * ghosts.len() + 1);
    let count = |wanted: fn(&Event) -> bool| seen.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Signal(SignalRecord { sig: 40, .. }))), reported);
    assert_eq!(count(|event| matches!(event, Event::Signal(SignalRecord { sig: 9, .. }))), ghosts.len());
    assert_eq!(count(|event| matches!(event, Event::Exit(_))), ghosts.len());
    assert_eq!(count(|event| matches!(event, Event::Dropped)), 1);
}

/// Prints what an event costs; asserts only that none is lost.
pub fn cost() {
    const COUNT: u32 = 10_000;
    let mut plain = Actor::new();
    plain.does("ignore");
    let mut sender = Actor::new();
    let mut send = |pid: i32| {
        let start = Instant::now();
        sender.does(&format!("queue {pid} 40 0 {COUNT}"));
        start.elapsed() / COUNT
    };
    let unwatched = send(plain.pid);
    let mut programs = Programs::load().expect("load");
    let bystander = send(plain.pid);
    let ghost = Actor::ghost(&programs, 1);
    let watched = send(ghost.pid);
    let start = Instant::now();
    let records = signals(&mut programs, COUNT as usize);
    let read = start.elapsed() / COUNT;
    assert_eq!(records.len(), COUNT as usize);
    let rate = 1_000_000_000 / (watched + read).as_nanos().max(1);
    print!(
        "(sigqueue {unwatched:?}, with programs {bystander:?}, to a ghost {watched:?}, reading {read:?}: {rate} events/s) "
    );
}

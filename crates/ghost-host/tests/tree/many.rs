//! Many processes: none is lost, a full ring is told of and made up for, and what it costs.

use std::time::{Duration, Instant};

use ghost_host::programs::tree::{Event, Process, Record, TreePrograms};
use ghost_sys::namespace::{Place, spawn};

use super::actor;
use super::space::{Space, lives};

pub fn all_are_counted() {
    let mut space = Space::new("storm");
    space.go();
    space.until(|events| events.len() >= 3 * 20_000);
    space.end();
    assert_eq!(space.programs.dropped(), 0, "the reader was too slow");
    let lives = lives(&space.records());
    assert_eq!(lives.len(), 20_000);
    assert!(lives.iter().all(|life| life.reaped && life.status() == 0 && life.fork.parent == 1));
}

/// Nobody reads while 10,000 are forked: the list makes up for what is lost, and nothing is lost afterwards.
pub fn full_ring() {
    let mut space = Space::new("many_alive");
    space.go();
    space.here();
    assert!(space.programs.dropped() > 0, "the ring holds more than it did when this test was written");
    // The last are freed.
    std::thread::sleep(Duration::from_millis(500));
    space.until(|events| events.last() == Some(&Event::Dropped));
    let dropped = space.programs.dropped();
    let listed = space.programs.list().expect("list");
    assert_eq!(listed.len(), 2_001);
    let init = listed.iter().find(|process| process.pid == 1).expect("init");
    let children = listed.iter().filter(|process| process.parent == 1 && process.parent_key == init.key);
    assert_eq!(children.count(), 2_000);
    assert_eq!(space.programs.next_event(), None);
    space.events.clear();
    space.go();
    let gone = |events: &[Event], process: &Process| {
        events.iter().any(|event| matches!(event, Event::Record(Record::Reaped(reaped)) if reaped.key == process.key))
    };
    space.end();
    space.until(|events| listed.iter().all(|process| gone(events, process)));
    assert_eq!(space.programs.dropped(), dropped, "what is told once is told once");
    let exits =
        space.records().iter().filter(|record| matches!(record, Record::Exit(exit) if exit.status == 9)).count();
    assert_eq!(exits, 2_000);
}

/// Processes that are older than the programs are listed, and their ends are told.
pub fn older_ones() {
    let mut space = Space::new("older");
    space.go();
    space.here();
    let mut late = TreePrograms::load_namespace(space.namespace()).expect("load");
    let listed = late.list().expect("list");
    assert_eq!(
        listed.iter().map(|process| (process.flags, process.status)).collect::<Vec<_>>(),
        [(0, 0), (Process::ENDED, 15 << 8), (0, 0)]
    );
    space.go();
    space.end();
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while told.len() < 5 && Instant::now() < deadline {
        match late.next_event() {
            Some(Event::Record(record)) => told.push(record),
            Some(Event::Dropped) => panic!("dropped"),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    let ends = |wanted: u64| -> Vec<String> {
        let of = told.iter().filter(|record| record.key() == wanted);
        of.map(|record| match record {
            Record::Exit(exit) => format!("{:x}", exit.status),
            Record::Reaped(_) => "reaped".to_owned(),
            other => panic!("{other:?}"),
        })
        .collect()
    };
    assert_eq!(ends(listed[0].key), ["0", "reaped"]);
    assert_eq!(ends(listed[1].key), ["reaped"]);
    assert_eq!(ends(listed[2].key), ["0", "reaped"]);
}

/// Prints what the programs cost; asserts nothing.
pub fn cost() {
    const COUNT: u32 = 20_000;
    let loops = || {
        let mut command = actor::playing("storm");
        command.stdin(std::process::Stdio::piped());
        let mut child = spawn(command, Place::here()).expect("spawn");
        let start = Instant::now();
        drop(std::io::Write::write_all(child.stdin.as_mut().expect("piped"), b"go\n"));
        child.wait().expect("wait");
        start.elapsed() / COUNT
    };
    loops();
    let without = loops();
    let mut space = Space::shell("read line");
    let bystander = loops();
    assert_eq!(space.programs.records(), 0);
    space.go();
    drop(space);
    let members = |pause: Duration| {
        let mut space = Space::new("storm");
        let start = Instant::now();
        space.go();
        space.until(|events| {
            std::thread::sleep(pause);
            events.len() >= 3 * COUNT as usize
        });
        start.elapsed() / COUNT
    };
    let woken = members(Duration::ZERO);
    // Whoever does not read everything at once is not woken for each record.
    let paused = members(Duration::from_millis(2));
    print!(
        "(fork, exit and wait {without:?}, with programs {bystander:?}, of a member {woken:?}, read every 2 ms {paused:?}) "
    );
}

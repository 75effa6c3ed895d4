//! How processes end, and when they are gone.

use ghost_host::programs::tree::{Event, Record};

use super::space::{Life, Space, lives};

pub fn codes() {
    // The actor has waited for each; `run` compares.
    let lives = Space::new("codes").run();
    let told: Vec<u32> = lives.iter().map(Life::status).collect();
    assert_eq!(told, (0..=255).map(|code| code << 8).collect::<Vec<_>>());
}

pub fn signals() {
    let lives = Space::new("signals").run();
    assert_eq!(lives.len(), 65);
    for (life, sig) in lives.iter().zip(1..=64) {
        let ends = if matches!(sig, 17..=23 | 28) { 9 } else { sig };
        assert_eq!(life.status() & 0x7f, ends, "signal {sig}");
    }
    // The core flag, in the first of those that dump and in the fault.
    let core = |index: usize| lives[index].status() & 0x80 != 0;
    assert_eq!((core(0), core(2), core(64)), (false, true, true));
    assert_eq!(lives[64].status() & 0x7f, 11);
}

/// The end is that of the last thread, and it is told once, whoever ends when. (`run` compares the statuses.)
pub fn threads() {
    assert_eq!(Space::new("leader_ends_first").run()[0].status(), 9 << 8);
    assert_eq!(Space::new("leader_then_process").run()[0].status(), 6 << 8);
    let lives = Space::new("threads_end_at_once").run();
    assert_eq!(lives.len(), 300);
    let leaders = lives.iter().filter(|life| life.status() >> 8 < 250).count();
    print!("(the leader was the last in {leaders} of 300) ");
}

/// A zombie is not reaped before its parent waits for it.
pub fn zombie() {
    let mut space = Space::new("zombie");
    space.go();
    space.here();
    space.until(|events| events.iter().any(|event| matches!(event, Event::Record(Record::Exit(_)))));
    std::thread::sleep(std::time::Duration::from_millis(300));
    space.until(|_| true);
    let life = &lives(&space.records())[0];
    assert_eq!((life.status(), life.reaped), (13 << 8, false));
    let listed = space.programs.list().expect("list");
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[1].key, listed[1].pid), (life.fork.key, life.fork.pid));
    assert_eq!((listed[1].flags, listed[1].status), (1, 13 << 8));
    space.go();
    let reaped = |event: &Event| matches!(event, Event::Record(Record::Reaped(_)));
    let start = std::time::Instant::now();
    space.until(|events| events.iter().any(reaped));
    print!("(reaped is told {:?} after the parent may wait) ", start.elapsed());
    space.end();
}

/// Nobody wants to know of its end.
pub fn unwanted() {
    let mut space = Space::new("unwanted");
    space.go();
    space.here();
    space.until(|events| events.iter().any(|event| matches!(event, Event::Record(Record::Reaped(_)))));
    assert_eq!(lives(&space.records())[0].status(), 14 << 8);
    space.go();
    space.end();
}

/// With its init the whole namespace ends.
pub fn namespace() {
    let mut space = Space::new("killed");
    space.go();
    space.here();
    space.kill();
    space.end();
    let lives = lives(&space.records());
    assert_eq!(lives.len(), 5);
    assert!(lives.iter().all(|life| life.status() == 9 && life.reaped));
    let Some(Event::Record(Record::Exit(init))) = space.events.iter().find(|event| is_exit_of_init(event)) else {
        panic!("no end of init: {:?}", space.events)
    };
    assert_eq!(init.status, 9);
}

fn is_exit_of_init(event: &Event) -> bool {
    matches!(event, Event::Record(Record::Exit(exit)) if exit.pid == 1)
}

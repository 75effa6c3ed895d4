//! KILL and STOP, exits, and the life of an attachment.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

use ghost_host::programs::{Event, ExitRecord, Programs};

use super::actor::{Actor, events, signals};

/// The only event, an exit.
fn exit(programs: &mut Programs) -> ExitRecord {
    let events = events(programs, 1);
    let [Event::Exit(record)] = events[..] else { panic!("{events:?}") };
    record
}

pub fn kill_and_stop() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::ghost(&programs, 4);
    let mut sender = Actor::new();
    let pidfd = ghost.pidfd();
    let killed = |programs: &Programs| programs.state(pidfd.as_fd()).expect("state").expect("a ghost").killed();
    sender.does(&format!("kill {} 19", ghost.pid));
    sender.does(&format!("kill {} 18", ghost.pid));
    sender.does(&format!("kill {} 19", ghost.pid));
    let numbers: Vec<u16> = signals(&mut programs, 3).iter().map(|record| record.sig).collect();
    assert_eq!(numbers, [19, 18, 19]);
    assert!(!killed(&programs));
    // Stopped as it is, it ends at once.
    sender.does(&format!("kill {} 9", ghost.pid));
    assert!(killed(&programs), "the bit is there before the record is read");
    let events = events(&mut programs, 2);
    let [Event::Signal(signal), Event::Exit(exit)] = events[..] else { panic!("{events:?}") };
    assert_eq!((signal.sig, signal.ghost, signal.sender_pid), (9, 4, sender.pid));
    assert_eq!((exit.ghost, exit.live, exit.status & 0x7f), (4, 0, 9));
    assert!(killed(&programs), "a zombie still has its state");
    ghost.wait();
    assert_eq!(programs.state(pidfd.as_fd()).expect("state"), None);
}

pub fn exits() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::ghost(&programs, 6);
    let pidfd = ghost.pidfd();
    ghost.begins("exit 7");
    let record = exit(&mut programs);
    assert_eq!((record.ghost, record.live, record.status), (6, 0, 7 << 8));
    assert!(programs.state(pidfd.as_fd()).expect("state").expect("a zombie").exited());
    ghost.wait();
    // A signal that is neither ignored nor blocked is the ghost's own end, and not reported as a signal.
    let mut ghost = Actor::ghost(&programs, 7);
    ghost.does("default 15");
    Actor::new().does(&format!("kill {} 15", ghost.pid));
    let record = exit(&mut programs);
    assert_eq!((record.ghost, record.status & 0x7f), (7, 15));
}

pub fn attachment() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::ghost(&programs, 1);
    let pidfd = ghost.pidfd();
    let errno = |result: std::io::Result<()>| result.expect_err("refused").raw_os_error();
    assert_eq!(errno(programs.attach_ghost(pidfd.as_fd(), 2, false)), Some(nix::libc::EEXIST));
    let file = File::open("/dev/null").expect("/dev/null");
    assert_eq!(errno(programs.attach_ghost(file.as_fd(), 2, false)), Some(nix::libc::EBADF));
    let mut sender = Actor::new();
    programs.detach(pidfd.as_fd()).expect("detach");
    programs.detach(pidfd.as_fd()).expect("detach again");
    assert_eq!(programs.state(pidfd.as_fd()).expect("state"), None);
    sender.does(&format!("kill {} 10", ghost.pid));
    programs.attach_ghost(pidfd.as_fd(), 3, false).expect("attach anew");
    sender.does(&format!("kill {} 12", ghost.pid));
    let records = signals(&mut programs, 1);
    assert_eq!((records.len(), records[0].ghost, records[0].sig), (1, 3, 12));
    ghost.begins("exit 0");
    ghost.wait();
    assert_eq!(exit(&mut programs).ghost, 3);
    assert_eq!(errno(programs.attach_ghost(pidfd.as_fd(), 4, false)), Some(nix::libc::ENOENT));
}

/// What happens while nobody reads is read by who takes over.
pub fn taken_over() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::ghost(&programs, 11);
    let mut doomed = Actor::ghost(&programs, 12);
    let mut sender = Actor::new();
    sender.does(&format!("kill {} 10", ghost.pid));
    assert_eq!(signals(&mut programs, 1)[0].sig, 10);
    // Not read any more by the first.
    sender.does(&format!("kill {} 12", ghost.pid));
    let mut kept: BTreeMap<_, _> = programs.descriptors().expect("copies").into_iter().collect();
    drop(programs);
    sender.does(&format!("kill {} 14", ghost.pid));
    doomed.begins("exit 3");
    doomed.wait();
    let mut programs = Programs::take_over(&mut kept, 1).expect("taken over");
    assert!(kept.is_empty());
    let seen = events(&mut programs, 3);
    let [Event::Signal(first), Event::Signal(second), Event::Exit(exit)] = seen[..] else { panic!("{seen:?}") };
    assert_eq!((first.sig, second.sig, first.ghost, exit.ghost), (12, 14, 11, 12));
    let pidfd = ghost.pidfd();
    assert_eq!(programs.state(pidfd.as_fd()).expect("state").expect("still a ghost").ghost, 11);
    // What it sends itself is left out, as before; its successor's programs work on.
    ghost_sys::pidfd::signal(&pidfd, 10).expect("sent");
    sender.does(&format!("kill {} 15", ghost.pid));
    assert_eq!(signals(&mut programs, 1)[0].sig, 15);
    let another = Actor::ghost(&programs, 13);
    sender.does(&format!("kill {} 10", another.pid));
    assert_eq!(signals(&mut programs, 1)[0].ghost, 13);
    ghost.begins("exit 0");
    ghost.wait();
}

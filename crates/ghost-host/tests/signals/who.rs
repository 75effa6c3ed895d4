//! Which signals are reported, once each, and which are not.

use std::os::fd::AsFd;

use ghost_host::programs::{Programs, Scope, SignalFlags};
use ghost_sys::signal::{catchable, send};

use super::actor::{Actor, signals};

const USR1: i32 = 10;
const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;
const SI_KERNEL: i32 = 0x80;

pub fn every_catchable_signal() {
    let mut programs = Programs::load().expect("load");
    let ghost = Actor::ghost(&programs, 5);
    let mut sender = Actor::new();
    for sig in catchable() {
        sender.does(&format!("kill {} {sig}", ghost.pid));
    }
    let records = signals(&mut programs, 62);
    let numbers: Vec<i32> = records.iter().map(|record| i32::from(record.sig)).collect();
    assert_eq!(numbers, catchable().collect::<Vec<_>>());
    assert!(records.is_sorted_by(|a, b| a.seq + 1 == b.seq), "{records:?}");
    for record in records {
        assert_eq!((record.ghost, record.scope(), record.call, record.pgid), (5, Scope::Process, 0, 0), "{record:?}");
        assert_eq!((record.si_code, record.value, record.sender_pid), (SI_USER, 0, sender.pid), "{record:?}");
        assert_eq!(
            (record.sender_uid, record.sender_euid, record.flags),
            (0, 0, SignalFlags::PRIVILEGED),
            "{record:?}"
        );
    }
}

pub fn values_and_codes() {
    let mut programs = Programs::load().expect("load");
    let ghost = Actor::ghost(&programs, 1);
    let mut sender = Actor::new();
    sender.does(&format!("queue {} 12 18446744073709551614 1", ghost.pid));
    sender.does(&format!("queue {} 64 5 1", ghost.pid));
    sender.does(&format!("tgkill {} 12", ghost.pid));
    let records = signals(&mut programs, 3);
    let seen: Vec<_> = records.iter().map(|record| (record.sig, record.si_code, record.value)).collect();
    assert_eq!(seen, [(12, SI_QUEUE, u64::MAX - 1), (64, SI_QUEUE, 5), (12, SI_TKILL, 0)]);
    assert!(records.iter().all(|record| record.sender_pid == sender.pid && record.scope() == Scope::Process));
}

pub fn not_reported() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::ghost(&programs, 1);
    let mut sender = Actor::new();
    // What the loader sends, what the ghost sends itself, and what the kernel says of the ghost's own children. With
    // SIGCHLD ignored the kernel would not even try (kernel/signal.c, do_notify_parent).
    send(ghost.pid, USR1).expect("kill");
    let itself = ghost.pid;
    ghost.does(&format!("kill {itself} {USR1}"));
    ghost.does("default 17");
    ghost.does("child");
    // A user's SIGCHLD is one like any other.
    sender.does(&format!("kill {} 17", ghost.pid));
    sender.does(&format!("kill {} {USR1}", ghost.pid));
    let records = signals(&mut programs, 2);
    let seen: Vec<_> = records.iter().map(|record| (record.sig, record.sender_pid)).collect();
    assert_eq!(seen, [(17, sender.pid), (10, sender.pid)]);
}

pub fn launcher() {
    let mut programs = Programs::load().expect("load");
    let mut launcher = Actor::new();
    launcher.does("block");
    programs.attach_ghost(launcher.pidfd().as_fd(), 9, true).expect("attach");
    let mut sender = Actor::new();
    // The second TERM finds the first one pending.
    for sig in [2, 17, 10, 15, 15, 23, 40, 18, 28, 1, 3, 20] {
        sender.does(&format!("kill {} {sig}", launcher.pid));
    }
    let records = signals(&mut programs, 9);
    let numbers: Vec<u16> = records.iter().map(|record| record.sig).collect();
    assert_eq!(numbers, [2, 10, 15, 15, 40, 18, 1, 3, 20]);
    assert!(records.iter().all(|record| record.ghost == 9 && record.has(SignalFlags::LAUNCHER)));
}

pub fn blocked_then_unblocked() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::new();
    ghost.does("ignore");
    ghost.does("block");
    let mut sender = Actor::new();
    // Sent before it is known as a ghost.
    sender.does(&format!("kill {} {USR1}", ghost.pid));
    sender.does(&format!("queue {} 34 0 3", ghost.pid));
    programs.attach_ghost(ghost.pidfd().as_fd(), 3, false).expect("attach");
    // And after: a standard signal coalesces.
    sender.does(&format!("kill {} {USR1}", ghost.pid));
    sender.does(&format!("queue {} 34 3 2", ghost.pid));
    assert_eq!(programs.next_event(), None, "the ghost has them blocked");
    ghost.does("unblock");
    sender.does(&format!("kill {} 12", ghost.pid));
    let records = signals(&mut programs, 7);
    let seen: Vec<_> = records.iter().map(|record| (record.sig, record.value, record.flags)).collect();
    let delivered = SignalFlags::DELIVERED;
    let expected: Vec<_> = (0..5).map(|value| (34, value, delivered)).collect();
    assert_eq!(seen[0], (10, 0, delivered));
    assert_eq!(seen[1..6], expected);
    assert_eq!(seen[6], (12, 0, SignalFlags::PRIVILEGED));
    assert!(records[..6].iter().all(|record| record.ghost == 3 && record.sender_pid == sender.pid), "{records:?}");
}

pub fn forged_siginfo_has_no_authority() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::new();
    ghost.does("ignore");
    ghost.does("uids 1234 1234");
    programs.attach_ghost(ghost.pidfd().as_fd(), 3, false).expect("attach");
    ghost.does("block");
    ghost.does(&format!("forge 40 {SI_USER} 0"));
    ghost.does(&format!("forge 41 {SI_KERNEL} 0"));
    ghost.does(&format!("forge 42 {SI_QUEUE} 0"));
    ghost.does("unblock");
    let records = signals(&mut programs, 3);
    for (record, (sig, code)) in records.iter().zip([(40, SI_USER), (41, SI_KERNEL), (42, SI_QUEUE)]) {
        assert_eq!((record.sig, record.si_code), (sig, code), "{record:?}");
        assert_eq!(record.flags, SignalFlags::DELIVERED, "{record:?}");
        assert_eq!((record.sender_uid, record.sender_euid), (1234, 1234), "{record:?}");
    }
}

pub fn two_loads_are_isolated() {
    let mut first = Programs::load().expect("load");
    let mut second = Programs::load().expect("load again");
    let one = Actor::ghost(&first, 1);
    let two = Actor::ghost(&second, 2);
    let both = Actor::ghost(&first, 11);
    second.attach_ghost(both.pidfd().as_fd(), 22, false).expect("attach to the second");
    let mut sender = Actor::new();
    for target in [&one, &two, &both] {
        sender.does(&format!("kill {} {USR1}", target.pid));
    }
    let ghosts = |programs: &mut Programs| signals(programs, 2).iter().map(|record| record.ghost).collect::<Vec<_>>();
    assert_eq!(ghosts(&mut first), [1, 11]);
    assert_eq!(ghosts(&mut second), [2, 22]);
    assert_eq!(first.state(two.pidfd().as_fd()).expect("state"), None);
}

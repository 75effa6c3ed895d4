//! Who sent a signal, and at whom it was aimed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::process::Command;

use ghost_host::programs::{Programs, Scope, SignalFlags, SignalRecord};

use super::actor::{Actor, own_path, signals};

const USR1: i32 = 10;
const SI_KERNEL: i32 = 0x80;

/// Ghosts 1 and 2 in the group of the first.
fn pair(programs: &Programs) -> (Actor, Actor) {
    let leader = Actor::ghost(programs, 1);
    let mut member = Actor::ghost(programs, 2);
    member.does(&format!("pgid {}", leader.pid));
    (leader, member)
}

/// Ghosts by call id.
fn by_call(records: &[SignalRecord]) -> BTreeMap<u64, Vec<u64>> {
    let mut calls: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for record in records {
        calls.entry(record.call).or_default().push(record.ghost);
    }
    for ghosts in calls.values_mut() {
        ghosts.sort_unstable();
    }
    calls
}

pub fn process_group() {
    let mut programs = Programs::load().expect("load");
    let (leader, _member) = pair(&programs);
    let mut sender = Actor::new();
    let assert_group = |records: &[SignalRecord], sig: u16| {
        assert_eq!(records.len(), 2, "{records:?}");
        for record in records {
            assert_eq!((record.sig, record.scope(), record.pgid), (sig, Scope::Group, leader.pid), "{record:?}");
        }
        let calls = by_call(records);
        assert_eq!(calls.into_values().collect::<Vec<_>>(), [[1, 2]], "{records:?}");
        assert_ne!(records[0].call, 0);
    };
    sender.does(&format!("kill -{} {USR1}", leader.pid));
    assert_group(&signals(&mut programs, 2), 10);
    sender.does(&format!("queue-group {} 40", leader.pid));
    let records = signals(&mut programs, 2);
    assert_group(&records, 40);
    assert!(records.iter().all(|record| record.value == 7 && record.si_code == -1));
    sender.does("ignore");
    sender.does(&format!("pgid {}", leader.pid));
    sender.does(&format!("kill 0 {USR1}"));
    assert_group(&signals(&mut programs, 2), 10);
    // One member alone, by a sender in the group.
    sender.does(&format!("kill {} {USR1}", leader.pid));
    let records = signals(&mut programs, 1);
    assert_eq!((records.len(), records[0].scope(), records[0].call), (1, Scope::Process, 0));
}

pub fn successive_group_calls() {
    let mut programs = Programs::load().expect("load");
    let (leader, _member) = pair(&programs);
    let mut sender = Actor::new();
    let call = format!("kill -{} 40", leader.pid);
    for _ in 0..3 {
        sender.does(&call);
    }
    // A member that joins between two calls may be counted to the former, but never twice to one.
    let mut third = Actor::ghost(&programs, 3);
    third.does(&format!("pgid {}", leader.pid));
    for _ in 0..2 {
        sender.does(&call);
    }
    let records = signals(&mut programs, 12);
    let calls = by_call(&records);
    assert_eq!(calls.len(), 5, "{records:?}");
    for ghosts in calls.values() {
        assert_eq!(ghosts.len(), ghosts.iter().collect::<BTreeSet<_>>().len(), "{records:?}");
        assert!(ghosts.starts_with(&[1, 2]), "{records:?}");
    }
    assert_eq!(records.iter().filter(|record| record.ghost == 3).count(), 2);
}

pub fn everyone() {
    let mut programs = Programs::load().expect("load");
    // kill(-1) reaches all of a PID namespace: not here, but in one made for it.
    let init = Actor::in_new_pid_namespace();
    let _one = init.neighbour().into_ghost(&programs, 1);
    let _two = init.neighbour().into_ghost(&programs, 2);
    let mut sender = init.neighbour();
    sender.does(&format!("kill -1 {USR1}"));
    let records = signals(&mut programs, 2);
    assert_eq!(by_call(&records).into_values().collect::<Vec<_>>(), [[1, 2]], "{records:?}");
    for record in records {
        assert_eq!((record.scope(), record.sender_pid, record.pgid), (Scope::Everyone, sender.pid, 0), "{record:?}");
    }
}

pub fn terminal() {
    let mut programs = Programs::load().expect("load");
    let terminal = nix::pty::openpty(None, None).expect("openpty");
    let path = nix::unistd::ttyname(&terminal.slave).expect("ttyname");
    let mut leader = Actor::without_group();
    leader.does("setsid");
    leader.does(&format!("terminal {}", path.display()));
    let leader = leader.into_ghost(&programs, 1);
    let mut keyboard = File::from(terminal.master);
    for (key, sig) in [(3u8, 2), (0x1c, 3), (0x1a, 20)] {
        keyboard.write_all(&[key]).expect("type");
        let records = signals(&mut programs, 1);
        assert_eq!(records.len(), 1, "{records:?}");
        let record = records[0];
        assert_eq!((record.sig, record.scope(), record.pgid), (sig, Scope::Group, leader.pid), "{record:?}");
        assert_eq!(
            (record.flags, record.si_code, record.sender_pid),
            (SignalFlags::KERNEL, SI_KERNEL, 0),
            "{record:?}"
        );
        assert_ne!(record.call, 0, "{record:?}");
    }
}

pub fn credentials() {
    let mut programs = Programs::load().expect("load");
    let mut ghost = Actor::ghost(&programs, 1);
    ghost.does("uids 1234 1234");
    let mut check = |sender: &mut Actor, expected: (u32, u32, u32)| {
        sender.does(&format!("kill {} {USR1}", ghost.pid));
        let record = signals(&mut programs, 1)[0];
        assert_eq!((record.sender_uid, record.sender_euid, record.flags), expected, "{record:?}");
    };
    let privileged = SignalFlags::PRIVILEGED;
    let mut sender = Actor::new();
    check(&mut sender, (0, 0, privileged));
    sender.does("uids 1234 0");
    check(&mut sender, (1234, 0, privileged));
    sender.does("uids 1234 4321");
    check(&mut sender, (1234, 4321, 0));
    // All capabilities, but in a user namespace of its own.
    let mut sender = Actor::new();
    sender.does("uids 1234 1234");
    check(&mut sender, (1234, 1234, 0));
    sender.does("user-namespace");
    check(&mut sender, (1234, 1234, 0));
}

pub fn sender_in_nested_pid_namespace() {
    let mut programs = Programs::load().expect("load");
    let init = Actor::in_new_pid_namespace();
    let ghost = init.neighbour().into_ghost(&programs, 1);
    let mut sender = init.neighbour();
    assert_ne!(sender.inner_pid(), sender.pid);
    sender.does(&format!("queue {} {USR1} 3 1", ghost.inner_pid()));
    sender.does(&format!("kill -{} {USR1}", ghost.inner_pid()));
    let records = signals(&mut programs, 2);
    assert_eq!((records[0].sender_pid, records[0].scope(), records[0].value), (sender.pid, Scope::Process, 3));
    assert_eq!((records[1].sender_pid, records[1].scope(), records[1].pgid), (sender.pid, Scope::Group, ghost.pid));
}

pub fn loader_in_nested_pid_namespace() {
    let tests = ["values_and_codes", "not_reported", "process_group", "sender_in_nested_pid_namespace", "terminal"];
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(own_path()).arg("--exact").args(tests);
    let output = command.output().expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("test result: ok. 5 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! Ghosts on a pin that is a plain file: an answer lies at each rank's offset, a missing one makes the ghost ask again.
//!
//! Each test runs in a child of its own, because holding ghosts asks for a process with one thread.

use super::*;
use crate::quiet::{Quiet, bit};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

fn pin() -> File {
    let fd = nix::sys::memfd::memfd_create(c"pin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("memfd");
    File::from(fd)
}

fn answer(pin: &File, rank: u32, answer: Answer) {
    pin.write_all_at(&answer.encode(), u64::from(rank) << RANK_SHIFT).expect("write");
}

/// Runs `test` in a forked child that has one thread and all signals quiet.
fn alone(test: impl FnOnce(&mut Quiet)) {
    // SAFETY: the child runs test code that allocates; glibc keeps its allocator usable after a fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut quiet = Quiet::begin().expect("signalfd");
            test(&mut quiet);
        }));
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    let mut status = 0;
    // SAFETY: one int is written.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the test's child failed, see its output");
}

fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn status_field(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("field");
    line.trim_start_matches(':').trim().to_owned()
}

fn ended(ghosts: &mut Ghosts, pid: i32) -> i32 {
    wait_until("end of the ghost", || ghosts.reap(pid).expect("reap"))
}

#[test]
fn answers_survive_their_bytes() {
    let answers = [Answer::Armed, Answer::Exit(0), Answer::Exit(255), Answer::Die(64), Answer::Stop(20), Answer::Again];
    let birth = Birth { rank: 7, pid: 1_048_600, place: NURSERY - 1, kin: Kin::Sibling, comm: *b"fifteen bytes!!" };
    let more = [
        Answer::Fork(birth),
        Answer::Reap(9),
        Answer::Name(birth.comm),
        Answer::Group(5),
        Answer::Session,
        Answer::Found(6),
        Answer::TakeIn,
    ];
    for answer in answers.into_iter().chain(more) {
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }
    assert_eq!(Answer::Stop(20).encode()[..9], [4, 0, 0, 0, 20, 0, 0, 0, 0]);
    let place_too_high = Answer::Fork(Birth { place: NURSERY, ..birth }).encode();
    assert_eq!(Answer::decode(&place_too_high), None);
    for start in [
        [0; 8],
        [3, 0, 0, 0, 65, 0, 0, 0],
        [3, 0, 0, 0, 0, 0, 0, 0],
        [2, 0, 0, 0, 0, 1, 0, 0],
        [7, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut bytes = [0; ANSWER_SIZE];
        bytes[..8].copy_from_slice(&start);
        assert_eq!(Answer::decode(&bytes), None);
    }
}

#[test]
fn a_ghost_ends_with_every_status() {
    alone(|_| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        for code in [0u8, 1, 42, 255] {
            answer(&pin, u32::from(code), Answer::Exit(code));
            let pid = ghosts.spawn(pin.as_fd(), u32::from(code), c"ghost").expect("spawn");
            assert_eq!(ended(&mut ghosts, pid), i32::from(code) << 8);
        }
        for signal in 1u8..=64 {
            let rank = 1000 + u32::from(signal);
            answer(&pin, rank, Answer::Die(signal));
            let pid = ghosts.spawn(pin.as_fd(), rank, c"ghost").expect("spawn");
            let survives = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
            let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
            let number = i32::from(signal);
            let exits = survives.contains(&number) || stops.contains(&number);
            // No core bit, whatever the signal.
            let expected = if exits { (128 + number) << 8 } else { number };
            assert_eq!(ended(&mut ghosts, pid), expected, "signal {signal}");
        }
    });
}

#[test]
fn it_is_named_and_holds_the_pin_only() {
    alone(|_| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        let pid = ghosts.spawn(pin.as_fd(), 3, c"a-name-that-is-too-long").expect("spawn");
        wait_until("its name", || (status_field(pid, "Name") == "a-name-that-is-").then_some(()));
        wait_until("closed descriptors", || {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten();
            let names: Vec<_> = open.map(|entry| entry.file_name()).collect();
            (names == [pin.as_raw_fd().to_string().as_str()]).then_some(())
        });
        answer(&pin, 3, Answer::Exit(0));
        assert_eq!(ended(&mut ghosts, pid), 0);
    });
}

#[test]
fn it_is_born_blocked_and_unblocks_when_armed() {
    alone(|_| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        let pid = ghosts.spawn(pin.as_fd(), 0, c"ghost").expect("spawn");
        let kill_and_stop = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
        let mask = |field| u64::from_str_radix(&status_field(pid, field), 16).expect("mask");
        assert_eq!(mask("SigBlk"), !kill_and_stop);
        assert_eq!(mask("SigIgn"), !(kill_and_stop | bit(libc::SIGCHLD)));
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGRTMIN() + 1, 32] {
            crate::signal::send(pid, signal).expect("kill");
        }
        answer(&pin, 0, Answer::Armed);
        wait_until("unblocking", || (mask("SigBlk") == 0 && mask("ShdPnd") == 0).then_some(()));
        answer(&pin, 0, Answer::Exit(7));
        assert_eq!(ended(&mut ghosts, pid), 7 << 8);
    });
}

#[test]
fn it_stops_by_the_signal_it_is_told_and_goes_on() {
    alone(|_| {
        // A group of our own below a parent in the same session: not orphaned.
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        nix::unistd::setpgid(nix::unistd::Pid::this(), nix::unistd::Pid::this()).expect("setpgid");
        for (rank, signal) in (0u32..).zip([libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGSTOP]) {
            answer(&pin, rank, Answer::Stop(signal as u8));
            let pid = ghosts.spawn(pin.as_fd(), rank, c"ghost").expect("spawn");
            let change = wait_until("the stop", || ghosts.next_change().expect("waitid"));
            assert_eq!(change, (pid, Change::Stopped(signal as u8)));
            answer(&pin, rank, Answer::Exit(3));
            crate::signal::send(pid, libc::SIGCONT).expect("kill");
            assert_eq!(ended(&mut ghosts, pid), 3 << 8);
        }
    });
}

#[test]
fn in_an_orphaned_group_it_stops_by_sigstop() {
    alone(|_| {
        nix::unistd::setsid().expect("setsid");
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        answer(&pin, 0, Answer::Stop(libc::SIGTSTP as u8));
        let pid = ghosts.spawn(pin.as_fd(), 0, c"ghost").expect("spawn");
        let change = wait_until("the stop", || ghosts.next_change().expect("waitid"));
        assert_eq!(change, (pid, Change::Stopped(libc::SIGSTOP as u8)));
        crate::signal::send(pid, libc::SIGKILL).expect("kill");
        assert_eq!(ended(&mut ghosts, pid), 9);
    });
}

#[test]
fn who_leads_a_group_leaves_it_to_lead_a_session() {
    alone(|_| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        let pid = ghosts.spawn(pin.as_fd(), 0, c"ghost").expect("spawn");
        let ghost = nix::unistd::Pid::from_raw(pid);
        answer(&pin, 0, Answer::Group(pid.unsigned_abs()));
        wait_until("its own group", || (nix::unistd::getpgid(Some(ghost)) == Ok(ghost)).then_some(()));
        answer(&pin, 0, Answer::Session);
        wait_until("its own session", || (nix::unistd::getsid(Some(ghost)) == Ok(ghost)).then_some(()));
        assert_eq!(nix::unistd::getpgid(Some(ghost)), Ok(ghost));
        crate::signal::send(pid, libc::SIGKILL).expect("kill");
        assert_eq!(ended(&mut ghosts, pid), 9);
    });
}

#[test]
fn a_group_that_nobody_leads_outlives_its_number() {
    alone(|_| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        let pids = [0, 1].map(|rank| ghosts.spawn(pin.as_fd(), rank, c"ghost").expect("spawn"));
        let group = |pid| nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).expect("getpgid").as_raw();
        let before = group(pids[0]);
        answer(&pin, 0, Answer::Found(0));
        wait_until("the new group", || (group(pids[0]) != before).then_some(()));
        answer(&pin, 0, Answer::Stop(libc::SIGSTOP as u8));
        wait_until("the stop", || ghosts.next_change().expect("waitid"));
        let found = group(pids[0]);
        assert!(!pids.contains(&found));
        answer(&pin, 1, Answer::Group(found.unsigned_abs()));
        wait_until("the other joins", || (group(pids[1]) == found).then_some(()));
        assert!(crate::signal::send(found, 0).is_err(), "nobody has that number");
        for pid in pids {
            crate::signal::send(pid, libc::SIGKILL).expect("kill");
            assert_eq!(ended(&mut ghosts, pid), 9);
        }
    });
}

#[test]
fn a_killed_ghost_waits_to_be_reaped_and_is_told_by_sigchld() {
    alone(|quiet| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        let pid = ghosts.spawn(pin.as_fd(), 0, c"ghost").expect("spawn");
        assert_eq!(ghosts.peek(pid).expect("peek"), None);
        crate::signal::send(pid, libc::SIGKILL).expect("kill");
        assert_eq!(wait_until("death", || ghosts.peek(pid).expect("peek")), 9);
        let received = wait_until("SIGCHLD", || quiet.read());
        assert_eq!((received.signal, received.pid), (libc::SIGCHLD, pid));
        assert!(status_field(pid, "State").starts_with('Z'));
        assert_eq!(ghosts.reap(pid).expect("reap"), Some(9));
        assert_eq!(ghosts.reap(pid).expect_err("reaped twice").raw_os_error(), Some(libc::ECHILD));
    });
}

#[test]
fn stacks_are_used_again_after_reaping_only() {
    alone(|_| {
        let (pin, mut ghosts) = (pin(), Ghosts::new());
        // More than one arena at a time, twice.
        for _ in 0..2 {
            let pids: Vec<i32> =
                (0..300).map(|rank| ghosts.spawn(pin.as_fd(), rank, c"ghost").expect("spawn")).collect();
            let stacks: std::collections::BTreeSet<_> = ghosts.living.values().collect();
            assert_eq!(stacks.len(), 300);
            for pid in &pids {
                crate::signal::send(*pid, libc::SIGKILL).expect("kill");
            }
            for pid in pids {
                assert_eq!(ended(&mut ghosts, pid), 9);
            }
            assert_eq!((ghosts.living.len(), ghosts.free.len()), (0, 512));
        }
    });
}

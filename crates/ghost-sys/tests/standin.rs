//! Stand-ins, tried as root in a process of their own: it changes what it does with signals.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ghost_sys::pidfd;
use ghost_sys::reaper::{self, Change, Wait};
use ghost_sys::spawn::{Outcome, Place as SpawnPlace, Program, Spawned, spawn};
use ghost_sys::standin::{self, Original, Place, StandIn};
use nix::fcntl::OFlag;

const USER: u32 = 4321;

fn original(uid: u32) -> Original {
    Original { pid: 0, uid, comm: *b"original\0\0\0\0\0\0\0" }
}

fn program(script: &str) -> Program {
    let c = |text: &str| CString::new(text).unwrap();
    Program {
        uid: USER,
        gid: USER,
        candidates: vec![c("/bin/sh")],
        argv: vec![c("sh"), c("-c"), c(script)],
        environment: vec![c("PATH=/bin:/usr/bin")],
        directory: c("/"),
        ..Program::default()
    }
}

fn child_of(parent: Option<&StandIn>, script: &str) -> std::io::Result<Spawned> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let place =
        SpawnPlace { pid: None, cgroup: None, stdio: [null.as_fd(); 3], parent, foreground: false, namespaces: None };
    spawn(program(script), place)
}

/// Waits for a change; a stand-in's reports come before what became the caller's own child, as the holder has it.
fn wait_for(reports: &OwnedFd, mut wanted: impl FnMut(&Change) -> bool) -> Change {
    let begin = Instant::now();
    loop {
        let own = match reaper::next() {
            Ok(Wait::Change(change)) => Some(change),
            _ => None,
        };
        while let Some(change) = standin::next_report(reports) {
            if wanted(&change) {
                return change;
            }
        }
        if let Some(change) = own
            && wanted(&change)
        {
            return change;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn end_of(pid: u32) -> impl FnMut(&Change) -> bool {
    move |change| matches!(change, Change::Ended { pid: dead, .. } if *dead == pid)
}

fn status(change: Change) -> i32 {
    if let Change::Ended { status, .. } = change { status } else { -1 }
}

/// Parent, group, session.
fn numbers(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = text.get(text.rfind(')').unwrap() + 1..).unwrap();
    rest.split_whitespace().skip(1).take(3).map(|word| word.parse().unwrap()).collect()
}

/// A test that fails leaves nobody behind, who would have its standard output open.
struct EndAll;

impl Drop for EndAll {
    fn drop(&mut self) {
        // Who loses his parent by that is our child by the next round.
        for _ in 0..10 {
            let all = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
            let texts = all.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
            for pid in texts.collect::<String>().split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let _ = pidfd::kill(pid, 9);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn stand_ins() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): cannot become another user");
        return;
    }
    standin::prepare().unwrap();
    // What a holder is as its namespace's init: who has lost his parent is its child.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let _end = EndAll;
    let (reports, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    let make = |maker, place, busy| StandIn::new(maker, &original(USER), place, writer.as_fd(), busy).unwrap();

    // Parent, group and session of a program.
    let leader = make(None, Place::LeadsSession, true);
    let group = make(Some(&leader), Place::LeadsGroup, false);
    let parent = make(Some(&leader), Place::Group(group.pid()), true);
    let asleep = child_of(Some(&parent), "exec sleep 1000").unwrap();
    assert_eq!(numbers(asleep.pid), [parent.pid(), group.pid(), leader.pid()]);
    assert_eq!(numbers(parent.pid()), [leader.pid(), group.pid(), leader.pid()]);
    assert_eq!(std::fs::read_to_string(format!("/proc/{}/comm", group.pid())).unwrap(), "original\n");

    // Statuses are exact, also the use of the processor; stops and continuations come too.
    let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    for (script, expected) in [("exit 7", 7 << 8), ("kill -TERM $$", 15), (busy, 0)] {
        let spawned = child_of(Some(&parent), script).unwrap();
        let change = wait_for(&reports, end_of(spawned.pid));
        assert_eq!(status(change), expected, "{script}");
        if let (0, Change::Ended { usage, .. }) = (expected, change) {
            assert!(usage.user_us > 1_000 && usage.max_rss_kib > 100, "{usage:?}");
        }
    }
    pidfd::signal(&asleep.pidfd, 19).unwrap();
    wait_for(&reports, |change| *change == Change::Stopped { pid: asleep.pid, signal: 19 });
    pidfd::signal(&asleep.pidfd, 18).unwrap();
    wait_for(&reports, |change| *change == Change::Continued { pid: asleep.pid });

    // A number that is taken costs equality.
    let taken = Original { pid: asleep.pid, ..original(USER) };
    let other = StandIn::new(Some(&leader), &taken, Place::Same, writer.as_fd(), false).unwrap();
    assert_ne!(other.pid(), asleep.pid);
    assert_eq!(numbers(other.pid()), [leader.pid(); 3]);
    other.end();
    wait_for(&reports, end_of(other.pid()));
    other.gone();

    // Its user may stop it: it is continued where something is wanted of it.
    for _ in 0..20 {
        pidfd::signal(&parent.pidfd(), 19).unwrap();
        let spawned = child_of(Some(&parent), "exit 3").unwrap();
        assert_eq!(status(wait_for(&reports, end_of(spawned.pid))), 3 << 8);
    }

    // The user's rights reach it, and it ignores everything; nobody may look into it.
    let command = format!("kill -USR1 {0} && kill -TERM {0} && kill -0 {0} && ! cat /proc/{0}/environ", parent.pid());
    let spawned = child_of(Some(&parent), &command).unwrap();
    assert_eq!(status(wait_for(&reports, end_of(spawned.pid))), 0);
    let stranger = StandIn::new(None, &original(0), Place::Same, writer.as_fd(), false).unwrap();
    let spawned = child_of(Some(&parent), &format!("kill -0 {}", stranger.pid())).unwrap();
    assert_eq!(status(wait_for(&reports, end_of(spawned.pid))), 1 << 8, "root's");

    killed_at_any_instant(&leader, &reports, &writer);

    // Killed, it leaves its children to the next above that takes them.
    let pid = parent.pid();
    parent.end();
    wait_for(&reports, end_of(pid));
    let why = child_of(Some(&parent), "exit 0").map(|spawned| spawned.pid).expect_err("it is dead");
    assert!([libc::ESRCH, libc::ETIMEDOUT].contains(&why.raw_os_error().unwrap()), "{why}");
    parent.gone();
    for other in [&stranger, &group, &leader] {
        other.end();
        wait_for(&reports, end_of(other.pid()));
    }
    for gone in [stranger, group, leader] {
        gone.gone();
    }
    pidfd::signal(&asleep.pidfd, 9).unwrap();
}

/// Whoever is killed while he makes a process has made it, or never will: what the process uses until then is not used again before.
fn killed_at_any_instant(leader: &StandIn, reports: &OwnedFd, writer: &OwnedFd) {
    let (mut made, mut not_made) = (0, 0);
    for round in 0..400u64 {
        let maker = StandIn::new(Some(leader), &original(USER), Place::Same, writer.as_fd(), true).unwrap();
        let its_pidfd = maker.pidfd().try_clone_to_owned().unwrap();
        let killer = std::thread::spawn(move || {
            let begin = Instant::now();
            // Spread over what making one takes here, and more.
            while begin.elapsed() < Duration::from_micros(round % 200) {}
            pidfd::signal(&its_pidfd, 9).unwrap();
        });
        // Both end, in any order.
        let mut of_maker = end_of(maker.pid());
        let mut maker_ended = false;
        match child_of(Some(&maker), "exit 6") {
            Ok(mut spawned) => {
                made += 1;
                let mut of_child = end_of(spawned.pid);
                let ended = wait_for(reports, |change| {
                    maker_ended |= of_maker(change);
                    of_child(change)
                });
                assert_eq!(status(ended), 6 << 8);
                assert_eq!(spawned.starting.outcome(), Some(Outcome::Running { directory_errno: 0 }));
            }
            Err(why) => {
                not_made += 1;
                assert!([libc::ESRCH, libc::ETIMEDOUT, libc::ECHILD].contains(&why.raw_os_error().unwrap()), "{why}");
            }
        }
        killer.join().unwrap();
        if !maker_ended {
            wait_for(reports, of_maker);
        }
        maker.gone();
    }
    println!("killed while making a process: {made} made, {not_made} not");
}

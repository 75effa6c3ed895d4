//! The holder on the real kernel: leases, epochs, the end of launches, and masters that talk nonsense.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use ghost_proto::node::*;
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::*;

#[test]
fn the_leases_end_kills_everything() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.connect();
    let first = link.hello();
    link.welcome(7, 1000);
    // One that has left its launch, its group, its session, and ignores what can be ignored.
    link.spawn(1, shell("(trap '' TERM HUP INT; setsid sleep 100 &); sleep 100"), 4321);
    link.started(1);
    // The second lease answers the acknowledgement of the first, and counts from there.
    for seq in 1..=12 {
        if seq % 2 == 1 {
            std::thread::sleep(Duration::from_millis(400));
        }
        link.send(MasterToNode::Lease(Lease { seq, second: seq % 2 == 0 }));
        if seq % 2 == 0 {
            assert_eq!(holder.processes().len(), 3, "each renewal counts");
            continue;
        }
        let ack = link.wait_for(|got| match got {
            Got::Message(NodeToMaster::LeaseAck(ack)) => Some(ack.clone()),
            _ => None,
        });
        assert_eq!(ack.seq, seq);
        assert!(seq > 1 || ack.mem_total_kib > ack.mem_available_kib, "the first one has figures: {ack:?}");
    }
    let begin = Instant::now();
    while link.next().is_some() {}
    assert!(begin.elapsed() >= Duration::from_millis(500), "not before its time");
    eventually("all processes are dead", || holder.processes().is_empty());
    let mut link = holder.connect();
    let hello = link.hello();
    assert_eq!((hello.epoch, hello.processes.len()), (0, 0));
    assert_ne!(hello.holder, first.holder, "as after a new start");
    link.welcome(7, 40_000);
    assert_eq!(link.run(2, program(&["true"]), 4321).status, 0);
}

/// A holder that was stopped past its lease kills before it says or hears anything.
#[test]
fn a_holder_that_stood_still_looks_at_its_lease_first() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.connect();
    link.hello();
    link.welcome(7, 1000);
    link.spawn(1, program(&["/bin/sleep", "100"]), 4321);
    link.started(1);
    let pid = Pid::from_raw(holder.child.id() as i32);
    kill(pid, Sig::SIGSTOP).expect("stop");
    link.send(MasterToNode::Lease(Lease { seq: 1, second: false }));
    std::thread::sleep(Duration::from_millis(1300));
    kill(pid, Sig::SIGCONT).expect("continue");
    let mut said = Vec::new();
    while let Some(got) = link.next() {
        said.push(got);
    }
    assert!(said.is_empty(), "{said:?}");
    eventually("all processes are dead", || holder.processes().is_empty());
}

#[test]
fn another_masters_epoch_fences_the_old_one() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["yes"]), 4321);
    link.started(1);
    let mut link = holder.connect();
    let hello = link.hello();
    assert_eq!((hello.epoch, hello.processes.len()), (7, 1));
    link.welcome(8, 40_000);
    link.spawn(1, shell("set -- /proc/[0-9]*; echo $#"), 4321);
    let ran = link.follow(1);
    assert_eq!(ran.stdout(), "2\n", "init and the shell that counts: yes is gone before");
    assert_eq!(ran.order.iter().filter(|what| **what == "ended").count(), 1);
}

#[test]
fn a_newer_agent_takes_the_place_of_the_old_one() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut old = holder.welcomed(7);
    let mut new = holder.welcomed(7);
    assert_eq!(old.next(), None);
    assert_eq!(new.run(1, program(&["true"]), 4321).status, 0);
}

#[test]
fn the_socket_is_for_root() {
    if !root() {
        return;
    }
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let holder = Holder::start();
    drop(holder.connect());
    let socket = std::fs::metadata(holder.socket()).expect("socket");
    assert_eq!((socket.permissions().mode() & 0o777, socket.uid()), (0o600, 0));
    assert_eq!(std::fs::metadata(holder.instance.run()).expect("directory").permissions().mode() & 0o777, 0o755);
}

/// Ranks, children, a subreaper's and a forking crowd die; what the kernel has given to init lives, and so does the rest.
#[test]
fn the_end_of_a_launch_takes_its_tree_and_no_more() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let crowd = "(setsid sleep 201 &); while :; do sleep 202 & sh -c 'sleep 203 & sleep 204'& sleep 0.005; done";
    link.spawn_in(1, 10, 0, shell(crowd), 4321);
    link.spawn_in(2, 10, 0, program(&["/bin/sleep", "205"]), 4321);
    link.spawn_in(3, 11, 0, program(&["/bin/sleep", "206"]), 4321);
    for proc in 1..=3 {
        link.started(proc);
    }
    eventually("there is a crowd", || holder.processes().len() > 40);
    link.send(MasterToNode::EndLaunch(EndLaunch { launch: 10, everything: false }));
    assert_eq!(link.ended(1), libc::SIGKILL);
    assert_eq!(link.ended(2), libc::SIGKILL);
    let arguments = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    };
    eventually("the daemon and the other launch alone live", || {
        let mut left: Vec<String> = holder.processes().into_iter().map(arguments).collect();
        left.sort_unstable();
        left == ["/bin/sleep 206 ", "sleep 201 "]
    });
    let frozen = std::fs::read_dir(holder.cgroups()).expect("cgroups").flatten().filter(|entry| {
        std::fs::read_to_string(entry.path().join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"))
    });
    assert_eq!(frozen.count(), 0, "nothing is left frozen");
    assert_eq!(link.signal(signal(3, libc::SIGTERM)), 0);
    assert_eq!(link.ended(3), libc::SIGTERM);
}

#[test]
fn the_end_of_everything_of_a_launch_finds_daemons() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    // The program has ended before; its daemon is all that is left.
    link.spawn_in(1, 10, 0, shell("setsid sleep 301 > /dev/null 2>&1 < /dev/null & sleep 0.2"), 4321);
    link.spawn_in(2, 11, 0, program(&["/bin/sleep", "302"]), 4321);
    assert_eq!(link.ended(1), 0);
    link.started(2);
    eventually("the daemon is an orphan", || holder.processes().len() == 2);
    link.send(MasterToNode::EndLaunch(EndLaunch { launch: 10, everything: true }));
    eventually("the other launch alone lives", || holder.processes().len() == 1);
    assert_eq!(link.signal(signal(2, libc::SIGTERM)), 0);
    assert_eq!(link.ended(2), libc::SIGTERM);
}

#[test]
fn the_end_of_a_launch_finds_stopped_ones() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, shell("sleep 100 & kill -STOP $! $$"), 4321);
    link.started(1);
    link.wait_for(|got| matches!(got, Got::Message(NodeToMaster::Stopped(_))).then_some(()));
    link.send(MasterToNode::EndLaunch(EndLaunch { launch: 1, everything: false }));
    assert_eq!(link.ended(1), libc::SIGKILL);
    eventually("nothing is left", || holder.processes().is_empty());
}

#[test]
fn the_end_of_all_still_tells_the_statuses() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    for proc in 1..=20 {
        link.spawn(proc, shell("sleep 100 & sleep 100"), 4321);
    }
    for proc in 1..=20 {
        link.started(proc);
    }
    link.send(MasterToNode::EndAll(EndAll {}));
    for proc in 1..=20 {
        assert_eq!(link.ended(proc), libc::SIGKILL);
    }
    eventually("nothing is left", || holder.processes().is_empty());
}

/// Generated nonsense, in frames and as bare bytes, with and without a welcome: the connection may end, the holder may not,
/// and its processes go on.
#[test]
fn nonsense_ends_the_connection_only() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["/bin/sleep", "100"]), 4321);
    let pid = link.started(1).pid;
    drop(link);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let nonsense = (any::<bool>(), 0u8..4, any::<bool>(), prop::collection::vec(any::<u8>(), 0..200));
    let result = runner.run(&nonsense, |(welcome, kind, framed, bytes)| {
        let mut link = holder.connect();
        if welcome {
            link.welcome(7, 40_000);
        }
        let mut wire = Vec::new();
        if framed {
            wire.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            wire.extend_from_slice(&[kind, 0, 0, 0]);
        }
        wire.extend_from_slice(&bytes);
        // It may have closed already. Its end of file shows that it has read everything.
        let _ = link.stream.write_all(&wire);
        let _ = link.stream.shutdown(Shutdown::Write);
        let _ = link.stream.read_to_end(&mut Vec::new());
        Ok(())
    });
    result.expect("no failure");
    let mut link = holder.connect();
    let hello = link.hello();
    assert_eq!((hello.processes.len(), hello.processes[0].proc, hello.processes[0].pid), (1, 1, pid));
    link.welcome(7, 40_000);
    assert_eq!(link.signal(signal(1, libc::SIGTERM)), 0);
    assert_eq!(link.ended(1), libc::SIGTERM);
}

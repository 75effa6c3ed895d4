//! The holder on the real kernel: what it starts, and how that ends.

mod support;

use ghost_proto::launch::{Limit, Stdio};
use ghost_proto::node::*;
use support::*;

#[test]
fn a_program_runs_with_the_ghosts_pid_as_the_user() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let script = "echo $$; id -u; id -G; umask; pwd; echo \"$A|$BPROC_RANK|$BPROC_PROGNAME\"; echo err >&2; exit 9";
    let mut spec = shell(script);
    spec.umask = 0o077;
    spec.cwd = "/usr".into();
    link.spawn_in(1, 1, 3_000_123, spec, 4321);
    let ran = link.follow(1);
    assert_eq!(ran.failed, None);
    assert_eq!(ran.stdout(), "3000123\n4321\n4321\n0077\n/usr\nb c|5|/bin/sh\n");
    assert_eq!(ran.stderr(), "err\n");
    assert_eq!((ran.pid, ran.cwd_errno, ran.status), (3_000_123, 0, 9 << 8));
    assert_eq!(ran.order.first(), Some(&"started"));
}

#[test]
fn only_cluster_processes_are_in_its_proc_and_mounts_are_the_nodes() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let ran = link.run(1, shell("ls -d /proc/[0-9]*; cat /proc/1/comm; cat /proc/sys/kernel/pid_max"), 0);
    let text = ran.stdout();
    let processes = text.lines().filter(|line| line.starts_with("/proc/")).count();
    assert_eq!(processes, 2, "init and the shell that looks: {text}");
    assert!(text.contains("ghost-holder\n4194304\n"), "{text}");
    let here = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("pid_max");
    let elsewhere = std::process::Command::new("cat").arg("/proc/self/comm").output().expect("cat");
    assert_eq!(elsewhere.stdout, b"cat\n", "our own /proc is untouched (pid_max {here})");
}

#[test]
fn what_cannot_be_started_says_why() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let check = |ran: Ran, stage: i32, errno: i32| {
        let failed = ran.failed.expect("it did not start");
        assert_eq!((failed.stage, failed.errno), (stage, errno.unsigned_abs()), "{failed:?}");
    };
    check(link.run(1, program(&["/no/such/program"]), 4321), 3, libc::ENOENT);
    check(link.run(2, program(&["no-such-program"]), 4321), 3, libc::ENOENT);
    check(link.run(3, program(&["/etc/passwd"]), 4321), 3, libc::EACCES);
    let failed = link.run(4, program(&[""]), 4321).failed.expect("no command");
    assert!(failed.text.contains("command"), "{failed:?}");
    // It goes on working.
    assert_eq!(link.run(5, program(&["true"]), 4321).status, 0);
    eventually("no process is left", || holder.processes().is_empty());
}

#[test]
fn every_code_and_signal_is_the_status() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    for code in [0, 1, 127, 128, 255] {
        assert_eq!(link.run(100 + code as u64, shell(&format!("exit {code}")), 4321).status, code << 8);
    }
    for signal in [1, 2, 3, 6, 9, 11, 13, 15, 34, 64] {
        let status = link.run(1000 + signal as u64, shell(&format!("ulimit -c 0; kill -{signal} $$")), 4321).status;
        assert_eq!(status & 0x7f, signal);
    }
}

#[test]
fn a_directory_the_user_cannot_enter_is_told() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    for (directory, errno) in [("/no/such/place", libc::ENOENT), ("/root", libc::EACCES)] {
        let mut spec = shell("pwd");
        spec.cwd = directory.into();
        let ran = link.run(errno as u64, spec, 4321);
        assert_eq!((ran.stdout().as_str(), ran.cwd_errno), ("/\n", errno.unsigned_abs()));
    }
}

#[test]
fn limits_are_lowered_never_raised() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let mut spec = shell("ulimit -Sn; ulimit -Hn; ulimit -Sc");
    spec.limits = vec![Limit { resource: 7, soft: 77, hard: u64::MAX }, Limit { resource: 4, soft: 0, hard: 0 }];
    let text = link.run(1, spec, 4321).stdout();
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("limit").1;
    assert_eq!(text, format!("77\n{own}\n0\n"));
}

#[test]
fn descriptors_that_are_no_streams_are_the_null_device() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let mut spec = shell("ls -l /proc/self/fd >&2");
    spec.stdio = vec![Stdio::Null.into(), Stdio::Null.into(), Stdio::Stream.into()];
    link.spawn(1, spec, 4321);
    let mut text = Vec::new();
    loop {
        let data = link.wait_for(|got| match got {
            Got::Data(data) => Some(data.clone()),
            Got::Message(_) => None,
        });
        text.extend_from_slice(&data.bytes);
        if data.eof {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("0 -> /dev/null") && text.contains("2 -> pipe:"), "{text}");
    assert_eq!(text.matches("->").count(), 4, "and 3 is ls's own: {text}");
}

#[test]
fn the_outputs_can_be_opened_by_name() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let ran = link.run(1, shell("echo one > /dev/stdout; echo two > /dev/stderr"), 4321);
    assert_eq!((ran.stdout().as_str(), ran.stderr().as_str()), ("one\n", "two\n"));
}

#[test]
fn orphans_are_reaped() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let ran = link.run(1, shell("for i in 1 2 3 4 5; do (sleep 0.05 & ) ; done; exit 0"), 4321);
    assert_eq!(ran.status, 0);
    eventually("sleepers are gone, not zombies", || holder.processes().is_empty());
}

#[test]
fn stops_and_continuations_are_told() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["/bin/sleep", "100"]), 4321);
    link.started(1);
    for number in [libc::SIGSTOP, libc::SIGTSTP] {
        assert_eq!(link.signal(signal(1, number)), 0);
        let told = link.wait_for(|got| match got {
            Got::Message(NodeToMaster::Stopped(stopped)) => Some(stopped.signal),
            _ => None,
        });
        assert_eq!(told, number.unsigned_abs());
        assert_eq!(link.signal(signal(1, libc::SIGCONT)), 0);
        link.wait_for(|got| matches!(got, Got::Message(NodeToMaster::Continued(_))).then_some(()));
    }
    assert_eq!(link.signal(signal(1, libc::SIGKILL)), 0);
    assert_eq!(link.ended(1), libc::SIGKILL);
}

/// What 300 launches leave: nothing. Descriptors, cgroups, processes and memory are as after the first ones.
#[test]
fn nothing_is_left_of_many_launches() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let resident = |holder: &Holder| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", holder.child.id())).expect("status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("KiB")
    };
    let groups = |holder: &Holder| {
        std::fs::read_dir(holder.cgroups()).expect("cgroups").flatten().filter(|e| e.path().is_dir()).count()
    };
    let mut before = None;
    for proc in 1..=300 {
        assert_eq!(link.run(proc, program(&["/bin/true"]), 4321).status, 0);
        if proc == 50 {
            before = Some(resident(&holder));
        }
    }
    // The last Forget has been seen once this is answered.
    link.run(1000, program(&["/bin/true"]), 4321);
    eventually("processes are gone", || holder.processes().is_empty());
    let files = holder.open_files();
    eventually("slots are back: the stock of 8 and the holder's own", || groups(&holder) == 9);
    for proc in 2000..2020 {
        link.spawn(proc, program(&["/bin/sleep", "100"]), 4321);
    }
    for proc in 2000..2020 {
        link.started(proc);
    }
    assert!(groups(&holder) >= 20 && holder.open_files() >= files + 20, "this test sees what is there");
    for proc in 2000..2020 {
        link.signal(signal(proc, libc::SIGKILL));
        link.follow(proc);
    }
    eventually("slots are back", || groups(&holder) == 9);
    eventually("descriptors are closed", || holder.open_files() <= files);
    let grown = resident(&holder).saturating_sub(before.expect("measured"));
    assert!(grown < 1024, "the holder has grown by {grown} KiB");
}

#[test]
fn a_thousand_at_once() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    for proc in 1..=1000 {
        link.spawn_in(proc, proc % 10, 0, program(&["/bin/sleep", "100"]), 4321);
    }
    for proc in 1..=1000 {
        link.started(proc);
    }
    assert_eq!(holder.processes().len(), 1000);
    link.send(MasterToNode::EndAll(EndAll {}));
    for proc in 1..=1000 {
        assert_eq!(link.ended(proc), libc::SIGKILL);
    }
}

/// Where descriptors are scarce a start fails; the agent can still come back.
#[test]
fn too_many_processes_leave_room_for_the_agent() {
    if !root() {
        return;
    }
    // What is kept for everything else, relays of commands among it, and ten processes.
    let holder = Holder::start_with_files(256 + 10 * 8);
    let mut link = holder.welcomed(7);
    for proc in 1..=10 {
        link.spawn(proc, program(&["/bin/sleep", "100"]), 4321);
        link.started(proc);
    }
    let failed = link.run(11, program(&["true"]), 4321).failed.expect("there is no room");
    assert_eq!((failed.stage, failed.errno), (1, libc::EMFILE.unsigned_abs()));
    let mut link = holder.welcomed(7);
    assert_eq!(link.signal(signal(1, libc::SIGKILL)), 0);
    link.follow(1);
    assert_eq!(link.run(12, program(&["true"]), 4321).status, 0);
}

#[test]
fn a_setuid_program_is_one_here_too() {
    if !root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    // Not below /tmp, which may be mounted nosuid.
    let path = holder.instance.state();
    std::fs::copy("/usr/bin/id", &path).expect("copy");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).expect("chmod");
    let ran = link.run(1, program(&[path.to_str().expect("text")]), 4321);
    std::fs::remove_file(&path).expect("remove");
    assert!(ran.stdout().contains("uid=4321") && ran.stdout().contains("euid=0(root)"), "{ran:?}");
}

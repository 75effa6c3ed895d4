//! What a user may not do: be somebody else, touch what is somebody else's, or harm the daemons, whatever he sends them.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use acceptance::health::{Health, MOST_KIB, hostile, survived, works};
use acceptance::permission::Rights;
use acceptance::random::seed;
use acceptance::{Cluster, Cmd, Ended, Running, User, eventually, memory, process};

const LONG: Duration = Duration::from_secs(60);

fn bpsh(cluster: &Cluster, user: User, words: &[&str]) -> Cmd {
    cluster.command("bpsh").args(words).user(user)
}

/// A launch that runs on a node: bpsh, its ghost and the remote process, all in the host's numbers.
struct Job {
    bpsh: Running,
    ghost: u32,
    /// In the master's numbers, as its users see it.
    ghost_number: u32,
    remote: u32,
    remote_number: u32,
}

fn job(cluster: &Cluster, user: User, node: &str) -> Job {
    job_of(cluster, bpsh(cluster, user, &[node, "sleep", "1000"]).start())
}

fn job_of(cluster: &Cluster, bpsh: Running) -> Job {
    let (ghost, remote) = eventually("it runs", LONG, || {
        let ghost = *process::children_of(bpsh.pid()).first()?;
        let number = process::own_number_of(ghost)?;
        let snapshot = cluster.snapshot();
        let remote = snapshot.remote().find(|it| it.name == "sleep" && it.own_number() == number)?.clone();
        Some((ghost, remote))
    });
    let ghost_number = process::own_number_of(ghost).expect("it runs");
    Job { bpsh, ghost, ghost_number, remote: remote.pid, remote_number: remote.own_number() }
}

impl Job {
    #[track_caller]
    fn is_untouched(&self) {
        for pid in [self.ghost, self.remote] {
            let state = process::state_of(pid);
            assert!(matches!(state, Some('S' | 'D' | 'R')), "process {pid}: {state:?}");
        }
    }
}

#[test]
fn a_remote_program_has_its_users_identity_and_no_more() {
    let cluster = Cluster::attach();
    for user in [User::ordinary(), User::other(), User { uid: 1002, gid: 7, groups: vec![] }] {
        let job = job(&cluster, user.clone(), "2");
        let wanted = Rights::of_user(&user);
        for pid in [job.ghost, job.remote] {
            let rights = Rights::of(pid).expect("it runs");
            // bpsh may carry a file capability for the number of its ghosts; a remote program has none.
            let wrong: Vec<String> = rights.wrong(&wanted);
            let wrong = wrong.iter().filter(|line| pid == job.remote || !line.starts_with("capabilities"));
            assert_eq!(wrong.collect::<Vec<_>>(), [""; 0], "process {pid} of {user:?}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", job.remote)).expect("it runs");
        let empty = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            assert_eq!(line.trim(), "0000000000000000", "{name}");
        };
        empty("CapInh:");
        empty("CapAmb:");
    }
}

#[test]
fn what_it_inherits_is_what_a_local_child_inherits() {
    let cluster = Cluster::attach();
    let script = "ulimit -n 123; ulimit -c 0; umask 027; cd /tmp; trap '' USR1; exec \"$@\"";
    let shown = |launcher: &[&str]| {
        let words = [&["-c", script, "sh"], launcher, &["probe", "inherited"]].concat();
        cluster.command("sh").args(words).user(User::ordinary()).run().success()
    };
    let (here, there) = (shown(&[]), shown(&["bpsh", "1"]));
    assert_eq!(there, here);
}

#[test]
fn a_root_only_file_stays_unreadable() {
    let cluster = Cluster::attach();
    let path = cluster.node(1).path("/tmp/root-only");
    std::fs::write(&path, "secret\n").expect("a file on node 1");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let user = bpsh(&cluster, User::ordinary(), &["1", "cat", "/tmp/root-only"]).run();
    assert_eq!((user.ended, user.text().as_str()), (Ended::Exited(1), ""));
    assert!(user.error_text().contains("Permission denied"), "{}", user.error_text());
    assert_eq!(bpsh(&cluster, User::root(), &["1", "cat", "/tmp/root-only"]).run().success(), "secret\n");
    // One that belongs to a group of his can be read.
    nix::unistd::chown(&path, None, Some(nix::unistd::Gid::from_raw(3000))).expect("its group");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("its mode");
    assert_eq!(bpsh(&cluster, User::ordinary(), &["1", "cat", "/tmp/root-only"]).run().success(), "secret\n");
    assert_ne!(bpsh(&cluster, User::other(), &["1", "cat", "/tmp/root-only"]).run().ended, Ended::Exited(0));
}

#[test]
fn secrets_of_the_cluster_are_roots() {
    let cluster = Cluster::attach();
    let user = |member: &acceptance::Member, script: &str| {
        member.command("sh").args(["-c", script]).user(User::ordinary()).run()
    };
    for member in cluster.members() {
        // Whatever contains a key or a token, wherever it is.
        let script = "find /etc/ghostproc /var/lib/ghostproc -type f 2> /dev/null | while read f; do \
                      grep -lE 'PRIVATE KEY|secret' \"$f\" 2> /dev/null; done; true";
        assert_eq!(user(member, script).success(), "", "{}: readable by everybody", member.name);
        let there = member.command("sh").args(["-c", script]).run().success();
        assert!(!there.is_empty(), "{}: nothing secret found even by root", member.name);
    }
    for node in cluster.nodes() {
        let finished = user(node, "test -S /run/ghostproc/holder.sock && test -w /run/ghostproc/holder.sock");
        assert_ne!(finished.ended, Ended::Exited(0), "{}: the holder's socket is open to all", node.name);
    }
}

#[test]
fn another_users_ghost_and_program_cannot_be_signalled() {
    let cluster = Cluster::attach();
    for owner in [User::root(), User::ordinary()] {
        let job = job(&cluster, owner, "0");
        let ghost = job.ghost_number.to_string();
        let remote = job.remote_number.to_string();
        for signal in ["0", "1", "9", "15", "18", "19", "34"] {
            // From another session: within one, everybody may send SIGCONT (kill(2)).
            let words = ["--wait", "probe", "kill", &ghost, signal];
            let here = cluster.command("setsid").args(words).user(User::other()).run().success();
            assert!(here.contains("not permitted"), "signal {signal} to the ghost: {here}");
            let words = ["0", "setsid", "--wait", "probe", "kill", &remote, signal];
            let there = bpsh(&cluster, User::other(), &words).run().success();
            assert!(there.contains("not permitted"), "signal {signal} on the node: {there}");
        }
        // All that he may signal: his own.
        bpsh(&cluster, User::other(), &["0", "kill -9 -1"]).run();
        cluster.command("sh").args(["-c", "kill -9 -1"]).user(User::other()).run();
        job.is_untouched();
    }
}

#[test]
fn another_users_ghost_cannot_be_read_or_traced() {
    let cluster = Cluster::attach();
    for owner in [User::root(), User::ordinary()] {
        let job = job(&cluster, owner, "0");
        let number = job.ghost_number;
        for look in
            ["head -c 1 environ", "head -c 1 mem", "head -c 1 maps", "ls fd", "readlink exe", "ls cwd/.", "ls root/."]
        {
            let script = format!("cd /proc/{number} && exec {look}");
            let finished = cluster.command("sh").args(["-c", &script]).user(User::other()).run();
            assert_ne!(finished.ended, Ended::Exited(0), "{look} in /proc/GHOST: {}", finished.text());
        }
        let there = job.remote_number;
        for file in ["environ", "mem", "maps"] {
            let script = format!("head -c 1 /proc/{there}/{file}");
            let finished = bpsh(&cluster, User::other(), &["0", &script]).run();
            assert_ne!(finished.ended, Ended::Exited(0), "/proc/PID/{file} on the node: {}", finished.text());
        }
        job.is_untouched();
    }
}

#[test]
fn the_daemons_cannot_be_touched() {
    let cluster = Cluster::attach();
    let before: Vec<u32> = cluster.members().iter().map(acceptance::Member::daemon).collect();
    let ghostd = process::own_number_of(before[0]).expect("ghostd runs").to_string();
    let here = cluster.command("probe").args(["kill", &ghostd, "9"]).user(User::ordinary()).run().success();
    assert!(here.contains("not permitted"), "{here}");
    // PID 1 there is the holder. It is root's, and the kernel protects it even from root of its own namespace.
    let there = bpsh(&cluster, User::ordinary(), &["1", "probe", "kill", "1", "9"]).run().success();
    assert!(there.contains("not permitted"), "{there}");
    for script in ["cat /proc/1/environ", "cat /proc/1/maps", "ls /proc/1/fd", ": > /run/ghostproc/x"] {
        assert_ne!(bpsh(&cluster, User::ordinary(), &["1", script]).run().ended, Ended::Exited(0), "{script}");
    }
    // The pin, and what the kernel programs keep.
    let script = "ls /run/ghostproc/* > /dev/null 2>&1; cat /run/ghostproc/pin/* 2> /dev/null; \
                  cat /sys/fs/bpf/* 2> /dev/null; true";
    assert_eq!(cluster.command("sh").args(["-c", script]).user(User::ordinary()).run().success(), "");
    let after: Vec<u32> = cluster.members().iter().map(acceptance::Member::daemon).collect();
    assert_eq!(after, before);
}

#[test]
fn administration_is_for_root() {
    let cluster = Cluster::attach();
    for words in [&["token"][..], &["nodes", "add", "9"], &["nodes", "revoke", "0"], &["nodes", "remove", "0"]] {
        let finished = cluster.command("bpctl").args(words).user(User::ordinary()).run();
        assert_ne!(finished.ended, Ended::Exited(0), "{words:?}: {}", finished.text());
        assert!(finished.error_text().contains("root"), "{words:?}: {}", finished.error_text());
    }
    assert_eq!(bpsh(&cluster, User::ordinary(), &["0", "hostname"]).run().success(), "n0\n");
}

#[test]
fn hostile_input_on_the_socket_harms_nobody() {
    let cluster = Cluster::attach();
    let health = Health::of(&cluster);
    let seed = seed().to_string();
    let rounds = if acceptance::long() { "20000" } else { "2000" };
    survived(&cluster, hostile(&cluster, &["socket", &seed, rounds]).start());
    health.must_be_as_before(&cluster);
}

#[test]
fn hostile_input_on_the_port_harms_nobody() {
    let cluster = Cluster::attach();
    // For one node that there is not: its secret must not be guessed, what it says of the cluster may be known.
    let token = cluster.command("bpctl").args(["token", "--nodes", "200"]).run().success();
    let health = Health::of(&cluster);
    let seed = seed().to_string();
    let rounds = if acceptance::long() { "10000" } else { "1000" };
    let address = format!("{}:2223", cluster.master().address);
    survived(&cluster, hostile(&cluster, &["port", &address, &seed, rounds]).input(token).start());
    health.must_be_as_before(&cluster);
    let nodes = cluster.command("bpctl").args(["nodes", "list"]).run().success();
    assert!(!nodes.lines().any(|line| line.split_whitespace().next() == Some("200")), "somebody joined:\n{nodes}");
}

#[test]
fn who_takes_no_answers_costs_little_memory() {
    let cluster = Cluster::attach();
    let ghostd = cluster.master().daemon();
    let flood = || {
        let health = Health::of(&cluster);
        memory::forget_peak(ghostd);
        let mut deaf: Vec<Running> = (0..10).map(|_| hostile(&cluster, &["deaf", "2"]).start()).collect();
        survived(&cluster, deaf.remove(0));
        for deaf in deaf {
            deaf.wait().expect(Ended::Exited(0));
        }
        let (rest, peak) = (health.memory_kib[0], memory::peak_kib(ghostd).expect("ghostd runs"));
        println!("ghostd: {rest} KiB, {peak} KiB with ten clients that take nothing");
        assert!(peak <= rest + 10 * MOST_KIB, "ghostd: {peak} KiB with ten clients, {rest} KiB at rest");
        health
    };
    // What the allocator has once been given it may keep, but it must not need more the next time.
    flood();
    flood().must_be_as_before(&cluster);
}

#[test]
fn only_ghosts_sleep_on_a_pin() {
    let cluster = Cluster::attach();
    let health = Health::of(&cluster);
    let shown = survived(&cluster, hostile(&cluster, &["pin"]).limit(LONG).start()).success();
    let wanted = "launcher: EPERM\nlauncher, no such rank: EPERM\ngrandchild: EPERM\nchild, no such rank: EPERM\n";
    assert_eq!(shown, wanted);
    health.must_be_as_before(&cluster);
}

#[test]
fn who_traces_his_own_ghost_harms_himself_alone() {
    let cluster = Cluster::attach();
    // A copy of his own, without the file's capability: the kernel lets nobody trace what has more rights than he
    // (security/commoncap.c, cap_ptrace_access_check).
    let user = User::other();
    let copy = "cp /opt/ghostproc/bin/bpsh /tmp/own-bpsh";
    cluster.command("sh").args(["-c", copy]).user(user.clone()).run().success();
    let health = Health::of(&cluster);
    let bystander = job(&cluster, User::ordinary(), "0");
    let mut random = acceptance::random::Random::new(seed());
    let rounds = if acceptance::long() { 200 } else { 1 };
    for deed in ["detach", "kill", "hold", "answer", "registers", "call"].repeat(rounds) {
        let bpsh = cluster.command("/tmp/own-bpsh").args(["0", "sleep", "1000"]).user(user.clone()).start();
        let job = job_of(&cluster, bpsh);
        let ghost = job.ghost_number.to_string();
        let words = ["trace", &ghost, deed, &random.next().to_string()];
        let mut trace = hostile(&cluster, &words).start();
        if deed == "hold" {
            // Its process ends while the ghost is held: ghostd does not wait for it.
            trace.lines(1, LONG);
            ghost_sys::pidfd::kill(job.remote.cast_signed(), 9).expect("it runs");
            works(&cluster);
            trace.kill();
        } else {
            let traced = trace.wait();
            assert!(!traced.error_text().contains("attach"), "{deed}: {}", traced.error_text());
        }
        works(&cluster);
        bystander.is_untouched();
        if deed == "detach" {
            for signal in ["18", "15"] {
                cluster.command("probe").args(["kill", &ghost, signal]).user(user.clone()).run();
            }
        }
        // What he has not ended himself ends with bpsh.
        if !matches!(deed, "kill" | "detach") {
            drop(job.bpsh);
        }
        eventually(deed, LONG, || process::is_gone(job.remote).then_some(()));
    }
    drop(bystander);
    health.must_be_as_before(&cluster);
}

/// `CapPrm`, `CapBnd` and `NoNewPrivs` of a process.
fn rights_of(pid: u32) -> [u64; 3] {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    ["CapPrm:", "CapBnd:", "NoNewPrivs:"].map(|name| {
        let row = status.lines().find_map(|line| line.strip_prefix(name)).expect("a row");
        u64::from_str_radix(row.trim(), 16).expect("a number")
    })
}

#[test]
fn daemons_on_the_master_have_given_up_what_they_do_not_need() {
    let cluster = Cluster::attach();
    bpsh(&cluster, User::ordinary(), &["0", "true"]).run().success();
    // include/uapi/linux/capability.h: 1 DAC_OVERRIDE, 2 DAC_READ_SEARCH, 5 KILL, 10 NET_BIND_SERVICE, 12 NET_ADMIN, 19 SYS_PTRACE,
    // 21 SYS_ADMIN, 24 SYS_RESOURCE, 38 PERFMON, 39 BPF, 40 CHECKPOINT_RESTORE.
    let set = |numbers: &[u32]| numbers.iter().fold(0u64, |set, number| set | 1 << number);
    let daemon = set(&[1, 2, 5, 10, 12, 19, 21, 24, 38, 39, 40]);
    let (guard, server) = (set(&[1, 2, 19, 21]), set(&[2, 19]));
    let ghostd = cluster.master().daemon();
    let mut seen = Vec::new();
    let snapshot = cluster.snapshot();
    // With all that it has started.
    let mut ours = vec![ghostd];
    while let Some(pid) = ours.pop() {
        ours.extend(process::children_of(pid));
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is = |word: &str| words.split(|byte| *byte == 0).any(|w| w == word.as_bytes());
        let allowed = if is("serve") {
            server
        } else if is("guard") {
            guard
        } else {
            daemon
        };
        let [permitted, bounding, no_more] = rights_of(pid);
        let name = snapshot.get(pid).map_or("", |process| &process.name);
        assert_eq!(permitted & !allowed, 0, "{name}: capabilities {permitted:x}, {allowed:x} at most");
        assert_eq!(bounding & !daemon, 0, "{name}: bounding set {bounding:x}");
        assert_eq!(no_more, 1, "{name}: may gain rights by executing a program");
        seen.push(allowed);
    }
    assert!([daemon, guard, server].iter().all(|one| seen.contains(one)), "not all were seen: {seen:x?}");
    // What users run here and there is as it was: a setuid program works.
    let shown =
        bpsh(&cluster, User::ordinary(), &["0", "grep", "-E", "NoNewPrivs", "/proc/self/status"]).run().success();
    assert_eq!(shown.split_whitespace().last(), Some("0"), "{shown}");
}

/// The checkers of this file must see what they are there for.
mod planted {
    use super::*;

    #[test]
    #[should_panic(expected = "a daemon was started again")]
    fn a_daemon_that_died_is_seen() {
        let cluster = Cluster::attach();
        let health = Health::of(&cluster);
        cluster.node(3).control("kill SIGKILL");
        eventually("node 3 is back", LONG, || {
            let finished = bpsh(&cluster, User::ordinary(), &["3", "true"]).run();
            (finished.ended == Ended::Exited(0) && cluster.node(3).control("status").state == "running").then_some(())
        });
        health.must_be_as_before(&cluster);
    }

    #[test]
    #[should_panic(expected = "still there")]
    fn a_connection_that_stays_is_seen() {
        let cluster = Cluster::attach();
        let health = Health::of(&cluster);
        let _stays = hostile(&cluster, &["deaf", "100"]).start();
        health.must_be_as_before_within(&cluster, Duration::from_secs(5));
    }
}

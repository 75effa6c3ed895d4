//! What a user may not do: be somebody else, touch what is somebody else's, or harm the daemons, whatever he sends them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use acceptance::permission::Rights;
use acceptance::random::seed;
use acceptance::{Cluster, Cmd, Ended, Running, User, eventually, leak, memory, process};

const LONG: Duration = Duration::from_secs(60);
const VERY_LONG: Duration = Duration::from_secs(300);
/// What hostile input may cost a daemon in memory, once it is over.
const MOST_KIB: u64 = 32 * 1024;

fn bpsh(cluster: &Cluster, user: User, words: &[&str]) -> Cmd {
    cluster.command("bpsh").args(words).user(user)
}

/// A launch that runs on a node: bpsh, its ghost and the remote process, all in the host's numbers.
struct Job {
    _bpsh: Running,
    ghost: u32,
    /// In the master's numbers, as its users see it.
    ghost_number: u32,
    remote: u32,
    remote_number: u32,
}

fn job(cluster: &Cluster, user: User, node: &str) -> Job {
    let bpsh = bpsh(cluster, user, &[node, "sleep", "1000"]).start();
    let (ghost, remote) = eventually("it runs", LONG, || {
        let ghost = *process::children_of(bpsh.pid()).first()?;
        let number = process::own_number_of(ghost)?;
        let snapshot = cluster.snapshot();
        let remote = snapshot.remote().find(|it| it.name == "sleep" && it.own_number() == number)?.clone();
        Some((ghost, remote))
    });
    let ghost_number = process::own_number_of(ghost).expect("it runs");
    Job { _bpsh: bpsh, ghost, ghost_number, remote: remote.pid, remote_number: remote.own_number() }
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

/// The hostile program, to be run on the master.
fn hostile(cluster: &Cluster, words: &[&str]) -> Cmd {
    let source = PathBuf::from(env!("CARGO_BIN_EXE_hostile"));
    let target = cluster.master().path("/usr/local/bin/hostile");
    if !target.exists() {
        std::fs::copy(&source, &target).expect("the hostile program");
    }
    cluster.command("hostile").args(words).user(User::other()).limit(VERY_LONG)
}

/// The daemons as they were before something hostile happened.
struct Health {
    before: leak::Census,
    daemons: Vec<u32>,
    memory_kib: Vec<u64>,
}

impl Health {
    fn of(cluster: &Cluster) -> Self {
        // What is made once, on first use, is there now.
        bpsh(cluster, User::ordinary(), &["0-3", "true"]).run().success();
        eventually("nothing runs", LONG, || (cluster.snapshot().remote().count() == 0).then_some(()));
        let daemons: Vec<u32> = cluster.members().iter().map(acceptance::Member::daemon).collect();
        let memory_kib = daemons.iter().map(|pid| memory::resident_kib(*pid).expect("it runs")).collect();
        Self { before: leak::Census::take(cluster), daemons, memory_kib }
    }

    /// The same daemons, as healthy, with nothing more than before, and they work.
    #[track_caller]
    fn must_be_as_before(&self, cluster: &Cluster) {
        self.must_be_as_before_within(cluster, LONG);
    }

    #[track_caller]
    fn must_be_as_before_within(&self, cluster: &Cluster, within: Duration) {
        let shown = bpsh(cluster, User::ordinary(), &["-s", "0-3", "hostname"]).run().success();
        assert_eq!(shown, "n0\nn1\nn2\nn3\n");
        let daemons: Vec<u32> = cluster.members().iter().map(acceptance::Member::daemon).collect();
        assert_eq!(daemons, self.daemons, "a daemon was started again");
        self.before.must_come_back(cluster, within);
        for (pid, before) in self.daemons.iter().zip(&self.memory_kib) {
            let now = memory::resident_kib(*pid).expect("it runs");
            assert!(now <= before + MOST_KIB, "process {pid}: {now} KiB instead of {before} KiB");
        }
    }
}

/// While it goes on, another user works.
#[track_caller]
fn survived(cluster: &Cluster, mut hostile: Running) -> acceptance::Finished {
    let mut launches = 0;
    while hostile.ended().is_none() || launches < 3 {
        let finished = bpsh(cluster, User::ordinary(), &["0-3", "true"]).limit(LONG).run();
        assert_eq!(finished.ended, Ended::Exited(0), "launch {launches} meanwhile: {}", finished.error_text());
        launches += 1;
    }
    println!("{launches} launches meanwhile");
    hostile.wait().expect(Ended::Exited(0))
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

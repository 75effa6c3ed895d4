//! Every signal that is sent to a ghost reaches the process, with sender and value; real-time ones in order and counted;
//! STOP, CONT and KILL by their effect; process groups; and no way past a setuid program.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use acceptance::process::{children_of, is_gone, own_number_of, state_of};
use acceptance::{Cluster, Ended, Running, Shell, User, eventually};

const LONG: Duration = Duration::from_secs(30);

const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const USR1: i32 = 10;

/// One signal as the program on the node saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    signal: i32,
    code: i32,
    sender: u32,
    uid: u32,
    value: u64,
}

impl Seen {
    fn parse(line: &str) -> Self {
        let words: Vec<i64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let [signal, code, sender, uid, value] = words.try_into().expect("five numbers");
        Self { signal: signal as i32, code: code as i32, sender: sender as u32, uid: uid as u32, value: value as u64 }
    }
}

/// `bpsh 0 probe record`, ready to record.
struct Recorder {
    cluster: Cluster,
    user: User,
    running: Running,
    /// In the master's numbers.
    ghost: u32,
    ghost_outside: u32,
    remote: u32,
}

impl Recorder {
    fn start(user: User) -> Self {
        Self::program(user, "probe", "record")
    }

    fn program(user: User, program: &str, command: &str) -> Self {
        let cluster = Cluster::attach();
        let running = cluster.command("bpsh").args(["0", program, command]).user(user.clone()).start();
        let ready = running.lines(1, LONG).remove(0);
        let ghost: u32 = ready.strip_prefix("ready ").and_then(|word| word.parse().ok()).expect("`ready PID`");
        let ghost_outside = children_of(running.pid()).into_iter().find(|&pid| own_number_of(pid) == Some(ghost));
        let remote =
            cluster.snapshot().remote().find(|process| process.own_number() == ghost).map(|process| process.pid);
        Self {
            cluster,
            user,
            running,
            ghost,
            ghost_outside: ghost_outside.expect("a ghost with the program's number"),
            remote: remote.expect("the process on the node"),
        }
    }

    /// The first signals that came; waits for so many.
    fn seen(&self, count: usize) -> Vec<Seen> {
        self.running.lines(count + 1, LONG).iter().skip(1).map(|line| Seen::parse(line)).collect()
    }

    /// `probe queue`, as the recorder's user; returns the sender's PID.
    fn queue(&self, signal: i32, first: u64, count: u64) -> u32 {
        self.sender(&["queue", &self.ghost.to_string(), &signal.to_string(), &first.to_string(), &count.to_string()])
    }

    /// kill(2) by a program; returns the sender's PID.
    fn kill(&self, signal: i32) -> u32 {
        self.sender(&["kill", &self.ghost.to_string(), &signal.to_string()])
    }

    fn sender(&self, words: &[&str]) -> u32 {
        let output = self.cluster.command("probe").args(words).user(self.user.clone()).run().success();
        let mut lines = output.lines();
        let pid = lines.next().and_then(|line| line.parse().ok()).expect("the sender's PID");
        assert!(lines.next().is_none_or(|line| line == "sent"), "{output}");
        pid
    }

    /// By SIGKILL, as every test's end.
    fn end(self) {
        self.kill(9);
        self.running.wait().expect(Ended::Signaled(9));
        assert!(is_gone(self.remote), "the process on the node is gone");
    }
}

fn catchable() -> Vec<i32> {
    ghost_sys::signal::catchable().collect()
}

#[test]
fn all_62_signals_arrive_with_sender_and_value() {
    for user in [User::ordinary(), User::root()] {
        let recorder = Recorder::start(user);
        let signals = catchable();
        assert_eq!(signals.len(), 62);
        for (place, &signal) in signals.iter().enumerate() {
            let value = 0x1234_5678_9000_0000 + signal as u64;
            let sender = recorder.queue(signal, value, 1);
            let seen = recorder.seen(place + 1).pop().expect("it was waited for");
            let uid = recorder.user.uid;
            assert_eq!(seen, Seen { signal, code: SI_QUEUE, sender, uid, value });
        }
        recorder.end();
    }
}

#[test]
fn all_62_signals_of_kill_arrive_with_the_sender() {
    let recorder = Recorder::start(User::ordinary());
    for (place, signal) in catchable().into_iter().enumerate() {
        let sender = recorder.kill(signal);
        let seen = recorder.seen(place + 1).pop().expect("it was waited for");
        assert_eq!((seen.signal, seen.sender, seen.uid), (signal, sender, 1000), "{seen:?}");
        // Only the kernel may say SI_USER of another; the difference is documented.
        assert!([SI_USER, SI_QUEUE].contains(&seen.code), "{seen:?}");
    }
    recorder.end();
}

#[test]
fn ten_thousand_queued_signals_arrive_in_order() {
    let recorder = Recorder::start(User::ordinary());
    let sender = recorder.queue(40, 0, 10_000);
    let seen = recorder.seen(10_000);
    for (value, seen) in seen.iter().enumerate() {
        let value = value as u64;
        assert_eq!(*seen, Seen { signal: 40, code: SI_QUEUE, sender, uid: 1000, value });
    }
    // Not one too many: the next is another one.
    recorder.queue(41, 7, 1);
    assert_eq!(recorder.seen(10_001)[10_000].signal, 41);
    recorder.end();
}

#[test]
fn two_senders_at_once_arrive_each_in_order() {
    const EACH: u64 = 2_000;
    let recorder = Recorder::start(User::ordinary());
    let start = |first: u64| {
        let (ghost, first, each) = (recorder.ghost.to_string(), first.to_string(), EACH.to_string());
        recorder.cluster.command("probe").args(["queue", &ghost, "50", &first, &each]).user(User::ordinary()).start()
    };
    let (low, high) = (start(0), start(1_000_000));
    low.wait().expect(Ended::Exited(0));
    high.wait().expect(Ended::Exited(0));
    let mut values: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for seen in recorder.seen(2 * EACH as usize) {
        values.entry(seen.sender).or_default().push(seen.value);
    }
    let mut values: Vec<Vec<u64>> = values.into_values().collect();
    values.sort_unstable();
    assert_eq!(values, [(0..EACH).collect::<Vec<_>>(), (1_000_000..1_000_000 + EACH).collect()]);
    recorder.end();
}

/// Starts a recorder that inherits all signals blocked, so that what comes before its first instruction waits for it, and
/// sends `line` (with `$ghost`) as soon as there is a ghost. Returns all that the recorder saw, `count` of them.
fn sent_while_starting(
    between: impl FnOnce(&Cluster),
    line: &str,
    after: impl FnOnce(&Cluster),
    count: usize,
) -> Vec<Seen> {
    let cluster = Cluster::attach();
    let mut shell = Shell::start(&cluster, User::ordinary());
    between(&cluster);
    let directory = shell.run("mktemp -d").output.trim().to_owned();
    let wait = "ghost=; until [ -n \"$ghost\" ]; do read -r ghost rest < /proc/$!/task/$!/children; done";
    let answer = shell.run(&format!("probe masked bpsh 0 probe record > {directory}/out & {wait}; {line}"));
    assert_eq!(answer.status, 0, "{answer:?} {}", shell.stderr());
    after(&cluster);
    let path = cluster.master().path(&format!("{directory}/out"));
    let lines = eventually(&format!("{count} signals are recorded"), LONG, || {
        let text = std::fs::read_to_string(&path).ok()?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        (lines.len() > count).then_some(lines)
    });
    shell.run(&format!("kill -9 $ghost; wait; rm -r {directory}"));
    assert!(lines[0].starts_with("ready "), "{:?}", lines[0]);
    lines[1..].iter().map(|line| Seen::parse(line)).collect()
}

#[test]
fn signals_sent_at_the_ghosts_birth_arrive_counted() {
    // Builtins of the shell: the first one comes within microseconds. 99 numbered ones, then a last.
    let line = "for ((i = 0; i < 99; i++)); do kill -40 $ghost; done; kill -41 $ghost";
    for _ in 0..20 {
        let seen = sent_while_starting(|_| {}, line, |_| {}, 100);
        let signals: Vec<i32> = seen.iter().map(|seen| seen.signal).collect();
        // Pending ones are taken lowest number first (signal(7)); the last may have come when all others were taken.
        assert_eq!(signals, [vec![40; 99], vec![41]].concat());
    }
}

#[test]
fn ten_thousand_signals_sent_before_the_programs_start_arrive_in_order() {
    // The node's agent is stopped: the program cannot start.
    let agent = |cluster: &Cluster, signal: i32| {
        ghost_sys::pidfd::kill(cluster.node(0).daemon().cast_signed(), signal).expect("the agent");
    };
    let line = "probe queue $ghost 40 0 10000 > /dev/null";
    let seen = sent_while_starting(|cluster| agent(cluster, 19), line, |cluster| agent(cluster, 18), 10_000);
    let values: Vec<u64> = seen.iter().map(|seen| seen.value).collect();
    assert_eq!(values, (0..10_000).collect::<Vec<u64>>());
}

#[test]
fn signals_sent_across_the_programs_start_arrive_in_order() {
    let line = "probe queue $ghost 45 0 10000 > /dev/null";
    let seen = sent_while_starting(|_| {}, line, |_| {}, 10_000);
    let values: Vec<u64> = seen.iter().map(|seen| seen.value).collect();
    assert_eq!(values, (0..10_000).collect::<Vec<u64>>());
}

#[test]
fn stop_and_continue_by_their_effect() {
    let recorder = Recorder::start(User::ordinary());
    for round in 0..20 {
        recorder.kill(19);
        eventually("the process is stopped", LONG, || (state_of(recorder.remote) == Some('T')).then_some(()));
        eventually("the ghost is stopped", LONG, || (state_of(recorder.ghost_outside) == Some('T')).then_some(()));
        recorder.kill(18);
        // A blocked SIGCONT continues too, and is then recorded.
        assert_eq!(recorder.seen(round + 1)[round].signal, 18);
        eventually("the process goes on", LONG, || (state_of(recorder.remote) == Some('S')).then_some(()));
        eventually("the ghost goes on", LONG, || (state_of(recorder.ghost_outside) != Some('T')).then_some(()));
    }
    recorder.end();
}

#[test]
fn stop_followed_at_once_by_continue_leaves_it_running() {
    let recorder = Recorder::start(User::ordinary());
    let mut shell = Shell::start(&recorder.cluster, User::ordinary());
    for round in 0..100 {
        shell.run(&format!("kill -STOP {0}; kill -CONT {0}; kill -40 {0}", recorder.ghost));
        // CONT and the one behind it.
        let seen: Vec<i32> = recorder.seen(2 * round + 2)[2 * round..].iter().map(|seen| seen.signal).collect();
        assert_eq!(seen, [18, 40], "round {round}");
        eventually("the ghost runs", LONG, || (state_of(recorder.ghost_outside) != Some('T')).then_some(()));
    }
    recorder.end();
}

#[test]
fn stop_followed_at_once_by_kill_ends_it() {
    for _ in 0..50 {
        let recorder = Recorder::start(User::ordinary());
        let mut shell = Shell::start(&recorder.cluster, User::ordinary());
        shell.run(&format!("kill -STOP {0}; kill -KILL {0}", recorder.ghost));
        recorder.running.wait().expect(Ended::Signaled(9));
        assert!(is_gone(recorder.remote));
    }
}

#[test]
fn a_deadly_signal_ends_local_and_remote_members_of_a_group() {
    let cluster = Cluster::attach();
    let mut shell = Shell::start(&cluster, User::ordinary());
    shell.run("set -m");
    for (signal, status) in [("TERM", 143), ("KILL", 137), ("HUP", 129), ("USR1", 138)] {
        let line = "sleep 300 | bpsh 0-4 sleep 301 & echo $!";
        let bpsh = shell.number(line);
        let remote = eventually("five processes run", LONG, || {
            let snapshot = cluster.snapshot();
            let found: Vec<u32> = snapshot.remote().filter(|p| p.name == "sleep").map(|p| p.pid).collect();
            (found.len() == 5).then_some(found)
        });
        let snapshot = cluster.snapshot();
        let group = snapshot.in_member("master", bpsh).expect("bpsh runs").group;
        let members: Vec<u32> = snapshot.processes.iter().filter(|p| p.group == group).map(|p| p.pid).collect();
        assert_eq!(members.len(), 7, "the local sleep, bpsh, five ghosts");
        let answer = shell.run(&format!("kill -{signal} -- -$(ps -o pgid= -p {bpsh} | tr -d ' '); wait {bpsh}"));
        assert_eq!(answer.status, status, "{signal}");
        eventually("no member of the group is left", LONG, || members.iter().all(|&pid| is_gone(pid)).then_some(()));
        eventually("no process of it is left", LONG, || remote.iter().all(|&pid| is_gone(pid)).then_some(()));
    }
}

#[test]
fn a_signal_to_a_group_reaches_each_remote_member_once() {
    let cluster = Cluster::attach();
    let mut shell = Shell::start(&cluster, User::ordinary());
    let directory = shell.run("mktemp -d; set -m").output.trim().to_owned();
    // bpsh itself ignores the one kind of these and catches the other.
    let signals = [23, 28, 18, 1, 2, 3, 15];
    let line = format!("sleep 300 | bpsh -p 0-4 probe record > {directory}/out & echo $!");
    let bpsh = shell.number(&line);
    let path = cluster.master().path(&format!("{directory}/out"));
    let recorded = |count: usize| {
        eventually(&format!("{count} lines are recorded"), LONG, || {
            let text = std::fs::read_to_string(&path).ok()?;
            (text.lines().count() >= count && text.ends_with('\n')).then_some(text)
        })
    };
    recorded(5);
    let snapshot = cluster.snapshot();
    let own = snapshot.in_member("master", bpsh).expect("bpsh runs");
    let group = own.group_numbers.last().copied().expect("its group");
    for (place, signal) in signals.iter().enumerate() {
        shell.run(&format!("kill -{signal} -- -{group}"));
        recorded(5 + 5 * (place + 1));
    }
    // One that only ghosts get shows that no second copy is on its way.
    let ghosts: Vec<String> = snapshot.children(own.pid).map(|ghost| ghost.member_number().to_string()).collect();
    shell.run(&format!("kill -64 {}", ghosts.join(" ")));
    let text = recorded(10 + 5 * signals.len());
    for node in 0..5 {
        let prefix = format!("{node}: ");
        let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix(&prefix));
        let seen: Vec<i32> = lines.skip(1).map(|line| Seen::parse(line).signal).collect();
        assert_eq!(seen, [signals.as_slice(), &[64]].concat(), "node {node}");
    }
    shell.run(&format!("kill -9 -- -{group}; wait; rm -r {directory}"));
}

/// As on this machine: kill(2) compares with the real and the saved user of the target.
#[test]
fn a_user_cannot_signal_a_process_that_has_become_root() {
    let cluster = Cluster::attach();
    let node = cluster.node(0);
    let path = node.path("/usr/local/bin/probe-setuid");
    std::fs::copy(node.path("/usr/local/bin/probe"), &path).expect("a copy of the probe");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).expect("setuid");

    let recorder = Recorder::program(User::ordinary(), "probe-setuid", "record-as-root");
    let snapshot = cluster.snapshot();
    assert_eq!(snapshot.get(recorder.remote).expect("it runs").uids, [0; 4]);
    let ghost = recorder.ghost.to_string();
    let marker = |value: &str| cluster.command("probe").args(["queue", &ghost, "60", value, "1"]).run().success();
    // All but SIGCONT, which kill(2) lets pass within a session, as this one is.
    for signal in catchable().into_iter().filter(|&signal| signal != 18) {
        recorder.kill(signal);
    }
    recorder.queue(40, 0, 10);
    // What was sent before this has been decided when it arrives.
    marker("1");
    let seen = recorder.seen(1);
    assert_eq!((seen[0].signal, seen[0].uid, seen[0].value), (60, 0, 1), "only root's signal arrives: {seen:?}");
    // STOP and KILL hit the user's own ghost, and nothing else; the ghost goes on when the node has refused the STOP.
    recorder.kill(19);
    marker("2");
    assert_eq!((recorder.seen(2)[1].signal, recorder.seen(2)[1].value), (60, 2));
    assert!(matches!(state_of(recorder.remote), Some('S' | 'R')), "its process was not stopped");
    eventually("the ghost goes on", LONG, || (state_of(recorder.ghost_outside) != Some('T')).then_some(()));
    let sender = recorder.kill(18);
    let seen = recorder.seen(3);
    assert_eq!((seen[2].signal, seen[2].sender), (18, sender), "SIGCONT within the session");
    recorder.kill(9);
    // Nothing more is sent behind a SIGKILL until the node has answered it; then root's signals pass again.
    let mut value = 2;
    let last = eventually("root's signal arrives after the refused SIGKILL", LONG, || {
        value += 1;
        marker(&value.to_string());
        let text = String::from_utf8_lossy(&recorder.running.stdout()).into_owned();
        text.lines().nth(4).map(Seen::parse)
    });
    assert_eq!((last.signal, last.uid), (60, 0), "and nothing of the user's: {last:?}");
    assert!(matches!(state_of(recorder.remote), Some('S' | 'R')), "it lives");
    // Whoever may, ends it.
    ghost_sys::pidfd::kill(recorder.remote.cast_signed(), 9).expect("it lives");
    recorder.running.wait().expect(Ended::Signaled(9));
    std::fs::remove_file(path).expect("removed");
}

/// A setuid program that keeps the caller as its real user can be signalled, as locally.
#[test]
fn a_user_can_signal_a_setuid_program_of_his() {
    let cluster = Cluster::attach();
    let node = cluster.node(0);
    let path = node.path("/usr/local/bin/probe-effective");
    std::fs::copy(node.path("/usr/local/bin/probe"), &path).expect("a copy of the probe");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).expect("setuid");
    let recorder = Recorder::program(User::ordinary(), "probe-effective", "record");
    let snapshot = cluster.snapshot();
    assert_eq!(snapshot.get(recorder.remote).expect("it runs").uids, [1000, 0, 0, 0]);
    let sender = recorder.queue(USR1, 5, 1);
    assert_eq!(recorder.seen(1)[0], Seen { signal: USR1, code: SI_QUEUE, sender, uid: 1000, value: 5 });
    recorder.end();
    std::fs::remove_file(path).expect("removed");
}

//! What breaks comes back, and nothing is lost: agents and holders that are killed, links that are cut.

use std::time::{Duration, Instant};

use acceptance::process::{is_gone, state_of};
use acceptance::work::{
    LEASE, NODES, Recorder, Streams, Waiter, agent_state, is_up, link, on_node, says_lost, sleeper,
};
use acceptance::{Cluster, Ended, Running, User, eventually, poll_until};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn an_agent_that_is_killed_is_not_missed() {
    let cluster = Cluster::attach();
    let streams = Streams::begin(&cluster);
    let mut recorder = Recorder::begin(&cluster, "1");
    for _ in 0..if acceptance::long() { 50 } else { 6 } {
        let waiter = Waiter::begin(&cluster, 1);
        recorder.send(&cluster, 50);
        for node in 0..NODES as u32 {
            cluster.node(node).control("kill SIGKILL");
        }
        recorder.send(&cluster, 50);
        waiter.end();
        for node in 0..NODES as u32 {
            eventually("the agent runs again", LONG, || (agent_state(&cluster, node) == "running").then_some(()));
        }
        recorder.send(&cluster, 50);
        streams.flow();
        waiter.judge();
    }
    recorder.judge();
    streams.end();
}

#[test]
fn what_happens_while_there_is_no_agent_is_told_by_the_next() {
    let cluster = Cluster::attach();
    let mut recorder = Recorder::begin(&cluster, "1");
    let waiter = Waiter::begin(&cluster, 1);
    // SIGTERM leaves the holder and its processes: that is how an upgrade goes.
    cluster.node(1).control("stop");
    recorder.send(&cluster, 100);
    let before = on_node(&cluster, 1).len();
    waiter.end();
    eventually("the process has ended", LONG, || (on_node(&cluster, 1).len() < before).then_some(()));
    cluster.node(1).control("start");
    waiter.judge();
    recorder.judge();
}

#[test]
fn a_holder_that_is_killed_takes_its_processes_and_the_ghosts_say_so() {
    let cluster = Cluster::attach();
    let [doomed, other] = [1, 2].map(|node| sleeper(&cluster, &[node], LONG));
    let processes = on_node(&cluster, 1);
    assert!(!processes.is_empty());
    let holder = cluster.snapshot().of("n1").find(|process| process.is_holder()).expect("the holder of node 1").pid;
    ghost_sys::pidfd::kill(holder.cast_signed(), 9).expect("it can be killed");
    let ended = doomed.wait();
    assert!(ended.error_text().contains("1: lost"), "{}", ended.error_text());
    ended.expect(Ended::Signaled(9));
    assert!(processes.iter().all(|pid| is_gone(*pid)), "the kernel has ended them before");
    eventually("the node is up again", LONG, || is_up(&cluster, 1).then_some(()));
    assert!(state_of(other.pid()).is_some(), "nobody else has noticed");
}

#[test]
fn a_cut_within_the_lease_is_a_pause() {
    let cluster = Cluster::attach();
    let short = (0..5).any(|_| {
        let short = cut_for_a_while(&cluster);
        if !short {
            eventually("the node is up again", LONG, || is_up(&cluster, 1).then_some(()));
        }
        short
    });
    assert!(short, "this machine is too slow for this test: no cut was a short one");
}

/// `false`: nothing is proved, the cut was not short.
fn cut_for_a_while(cluster: &Cluster) -> bool {
    let streams = Streams::begin(cluster);
    let mut recorder = Recorder::begin(cluster, "1");
    let waiter = Waiter::begin(cluster, 1);
    let before = on_node(cluster, 1).len();
    let began = Instant::now();
    link(cluster, 1, "down");
    recorder.send(cluster, 100);
    waiter.end();
    let ended = poll_until(LEASE / 4, || (on_node(cluster, 1).len() < before).then_some(()));
    link(cluster, 1, "up");
    if ended.is_none() || began.elapsed() > LEASE / 2 {
        return false;
    }
    streams.flow();
    recorder.send(cluster, 100);
    recorder.judge();
    waiter.judge();
    streams.end();
    true
}

#[test]
fn a_cut_beyond_the_lease_kills_first_and_says_so_then() {
    let cluster = Cluster::attach();
    let mut bpsh = sleeper(&cluster, &[3], LONG);
    let processes = on_node(&cluster, 3);
    let began = Instant::now();
    link(&cluster, 3, "down");
    let ended = loop {
        if let Some(ended) = bpsh.ended_within(Duration::from_millis(1)) {
            break ended;
        }
        assert!(began.elapsed() < LONG, "no verdict");
    };
    assert!(processes.iter().all(|pid| is_gone(*pid)), "the verdict came before the processes were dead");
    assert_eq!(ended, Ended::Signaled(9));
    says_lost(&bpsh, 3);
    let refused = cluster.command("bpsh").args(["3", "true"]).run();
    assert_ne!(refused.ended, Ended::Exited(0), "nothing is started on a node that is away");
    link(&cluster, 3, "up");
    eventually("the node is up again", LONG, || is_up(&cluster, 3).then_some(()));
}

/// What is under way while ghostd is away.
struct Work {
    streams: Streams,
    recorder: Recorder,
}

impl Work {
    fn begin(cluster: &Cluster) -> Work {
        Work { streams: Streams::begin(cluster), recorder: Recorder::begin(cluster, "1") }
    }

    /// `interrupt` ends the ghostd that runs; another one comes. Gives the time to the first signal delivered again, and to all
    /// streams flowing.
    fn survive(&mut self, cluster: &Cluster, interrupt: impl FnOnce()) -> [Duration; 2] {
        let waiter = Waiter::begin(cluster, 2);
        let parents = [self.streams.bpsh.pid(), self.recorder.bpsh.pid()];
        // Not by /proc/PID/task/PID/children, which may leave some out while others come and go (proc_pid_children(5)).
        let all = cluster.snapshot().processes;
        let ghosts: Vec<_> = all.iter().filter(|process| parents.contains(&process.parent)).collect();
        assert_eq!(ghosts.len(), NODES + 1, "{ghosts:?}");
        self.recorder.send(cluster, 20);
        let began = Instant::now();
        interrupt();
        self.recorder.send(cluster, 20);
        waiter.end();
        let signals = || self.recorder.count();
        eventually("the signals have come", LONG, || (signals() >= self.recorder.sent as usize).then_some(()));
        let signal = began.elapsed();
        self.streams.flow();
        let flow = began.elapsed();
        for ghost in ghosts {
            let state = state_of(ghost.pid);
            assert!(state.is_some_and(|state| state != 'Z'), "a ghost did not survive, it is {state:?} now: {ghost:?}");
        }
        self.recorder.send(cluster, 20);
        waiter.judge();
        [signal, flow]
    }

    fn end(self) {
        self.recorder.judge();
        self.streams.end();
    }
}

fn wait_for_ghostd(cluster: &Cluster) {
    eventually("ghostd runs again", LONG, || (cluster.master().control("status").state == "running").then_some(()));
}

#[test]
fn a_ghostd_that_is_killed_is_not_missed() {
    let cluster = Cluster::attach();
    let mut work = Work::begin(&cluster);
    let mut times = Vec::new();
    for _ in 0..if acceptance::long() { 100 } else { 8 } {
        times.push(work.survive(&cluster, || {
            cluster.master().control("kill SIGKILL");
            // While there is none, whoever looks at the ghosts is not made to wait.
            let began = Instant::now();
            cluster.command("ps").args(["xo", "pid,stat,args"]).run().success();
            assert!(began.elapsed() < Duration::from_secs(10), "ps hangs: {:?}", began.elapsed());
        }));
        wait_for_ghostd(&cluster);
    }
    let middle = |which: usize| {
        let mut all: Vec<u128> = times.iter().map(|times| times[which].as_millis()).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    println!(
        "from kill -9 of ghostd: first signal delivered after {} ms, all streams flow after {} ms",
        middle(0),
        middle(1)
    );
    work.end();
    eventually("nothing is left on the nodes", LONG, || {
        (cluster.snapshot().remote().filter(|process| !process.is_holder()).count() == 0).then_some(())
    });
}

#[test]
fn a_ghostd_that_is_restarted_leaves_everything() {
    let cluster = Cluster::attach();
    let mut work = Work::begin(&cluster);
    for _ in 0..3 {
        work.survive(&cluster, || assert!(cluster.master().control("restart").ok, "the restart"));
    }
    work.end();
}

fn hand_over(cluster: &Cluster) -> String {
    cluster.command("bpctl").arg("handover").run().success()
}

#[test]
fn a_ghostd_that_hands_over_is_not_missed() {
    let cluster = Cluster::attach();
    let mut work = Work::begin(&cluster);
    // Launches one after the other, all the while: each of them waits, none fails.
    let script = "until [ -e /tmp/handed-over ]; do bpsh 0,3 true || exit; done";
    let launches = cluster.command("bash").args(["-c", script]).limit(Duration::from_secs(500)).start();
    let daemon = cluster.master().daemon();
    for _ in 0..if acceptance::long() { 100 } else { 8 } {
        work.survive(&cluster, || {
            let told = hand_over(&cluster);
            assert!(told.contains("has handed over to ghostd "), "{told}");
        });
        assert_eq!(cluster.master().daemon(), daemon, "it is the same process");
    }
    work.end();
    std::fs::write(cluster.master().path("/tmp/handed-over"), "").expect("the file");
    launches.wait().success();
    eventually("no child is left unwaited for", LONG, || {
        let children = cluster.snapshot().processes.into_iter().filter(|process| process.parent == daemon);
        children.into_iter().all(|child| state_of(child.pid) != Some('Z')).then_some(())
    });
}

#[test]
fn a_handover_to_what_cannot_start_is_refused() {
    let cluster = Cluster::attach();
    let work = Work::begin(&cluster);
    let file = cluster.master().path("/etc/ghostproc/ghostd.toml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{good}\nlese = \"15s\"\n")).expect("another configuration");
    let refused = cluster.command("bpctl").arg("handover").run();
    std::fs::write(&file, &good).expect("the configuration again");
    let said = refused.error_text();
    assert!(said.contains("nothing has changed") && said.contains("ghostd.toml") && said.contains("lese"), "{said}");
    refused.expect(Ended::Exited(1));
    let forbidden = cluster.command("bpctl").arg("handover").user(User::ordinary()).run();
    assert!(forbidden.error_text().contains("only root"), "{}", forbidden.error_text());
    forbidden.expect(Ended::Exited(1));
    work.streams.flow();
    assert!(is_up(&cluster, 2), "launches go on");
    // The one that is put right goes.
    hand_over(&cluster);
    work.end();
}

#[test]
fn a_configuration_is_read_again() {
    let cluster = Cluster::attach();
    let work = Work::begin(&cluster);
    let file = cluster.master().path("/etc/ghostproc/ghostd.toml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    let hang_up = |text: &str| {
        std::fs::write(&file, text).expect("the configuration");
        ghost_sys::pidfd::kill(cluster.master().daemon().cast_signed(), 1).expect("SIGHUP");
    };
    let nodes = || cluster.command("bpstat").args(["-n"]).run().success();
    let before = nodes();
    hang_up(&format!("nodes = \"0-99\"\nlease_seconds = 39\n{good}"));
    eventually("the node is there", LONG, || nodes().contains("99").then_some(()));
    hang_up(&format!("nodes = \"0-3,200\"\nvieuw = \"off\"\n{good}"));
    let said =
        |what: &str| eventually("a word of it", LONG, || cluster.master().log_tail(200).contains(what).then_some(()));
    said("the configuration stays as it is");
    said("did you mean `view`?");
    said("lease_seconds: ");
    assert!(nodes().contains("99"), "a mistake changes nothing");
    hang_up(&good);
    eventually("the node is gone", LONG, || (nodes() == before).then_some(()));
    work.end();
}

#[test]
fn a_ghostd_that_is_stopped_ends_everything() {
    let cluster = Cluster::attach();
    let sleeper = sleeper(&cluster, &[0, 1, 2, 3], LONG);
    let ghosts = acceptance::process::children_of(sleeper.pid());
    assert!(cluster.master().control("stop").ok, "the stop");
    assert!(ghosts.iter().all(|ghost| state_of(*ghost).is_none_or(|state| state == 'Z')), "a ghost is left");
    sleeper.wait().expect(Ended::Exited(137));
    let left = cluster.snapshot().remote().filter(|process| !process.is_holder()).count();
    assert_eq!(left, 0, "processes on the nodes");
    let refused = cluster.command("bpsh").args(["0", "true"]).run();
    assert!(refused.error_text().contains("is ghostd running?"), "{}", refused.error_text());
    assert!(cluster.master().control("start").ok, "the start");
    for node in 0..NODES as u32 {
        eventually("the node is up again", LONG, || is_up(&cluster, node).then_some(()));
    }
}

/// As before Linux 6.9, where nobody can go on with the pin of a ghostd that has died: here its mount is gone. What ran ends, the
/// statuses say so, and the space is as new.
#[test]
fn a_ghostd_that_cannot_go_on_ends_everything_and_says_so() {
    let cluster = Cluster::attach();
    let everywhere = sleeper(&cluster, &[0, 1, 2, 3], LONG);
    let one = sleeper(&cluster, &[2], LONG);
    let stopped = sleeper(&cluster, &[3], LONG);
    let ghosts = [&everywhere, &one, &stopped].map(|bpsh| acceptance::process::children_of(bpsh.pid())).concat();
    ghost_sys::pidfd::kill(acceptance::process::children_of(stopped.pid())[0].cast_signed(), 19).expect("a ghost");
    let script = "umount -l \"$(awk '$1 == \"ghostproc-pin\" { print $2 }' /proc/mounts)\"";
    cluster.command("sh").args(["-c", script]).run().success();
    cluster.master().control("kill SIGKILL");
    for (bpsh, nodes) in [(one, &[2][..]), (stopped, &[3]), (everywhere, &[0, 1, 2, 3])] {
        let ended = bpsh.wait();
        for node in nodes {
            assert!(ended.error_text().contains(&format!("{node}: lost")), "{}", ended.error_text());
        }
        ended.expect(if nodes.len() == 1 { Ended::Signaled(9) } else { Ended::Exited(137) });
    }
    eventually("the ghosts have ended", LONG, || ghosts.iter().all(|pid| is_gone(*pid)).then_some(()));
    eventually("nothing is left on the nodes", LONG, || {
        (cluster.snapshot().remote().filter(|process| !process.is_holder()).count() == 0).then_some(())
    });
    wait_for_ghostd(&cluster);
    for node in 0..NODES as u32 {
        eventually("the node is up again", LONG, || is_up(&cluster, node).then_some(()));
    }
}

/// Stopped jobs, killed ghosts, dead commands: what is decided while there is no ghostd holds when there is one.
#[test]
fn what_happens_to_ghosts_while_there_is_no_ghostd_happens_to_their_processes() {
    let cluster = Cluster::attach();
    let [killed, stopped, mut dead, kept] = [0, 1, 2, 3].map(|node| sleeper(&cluster, &[node], LONG));
    let ghost_of = |bpsh: &Running| acceptance::process::children_of(bpsh.pid())[0];
    let (ghost_killed, ghost_stopped) = (ghost_of(&killed), ghost_of(&stopped));
    let (on_1, on_2) = (on_node(&cluster, 1), on_node(&cluster, 2));
    cluster.master().control("kill SIGKILL");
    ghost_sys::pidfd::kill(ghost_killed.cast_signed(), 9).expect("a ghost");
    ghost_sys::pidfd::kill(ghost_stopped.cast_signed(), 19).expect("a ghost");
    dead.kill();
    killed.wait().expect(Ended::Signaled(9));
    eventually("the process stops", LONG, || on_1.iter().any(|pid| state_of(*pid) == Some('T')).then_some(()));
    eventually("the ghost stops", LONG, || (state_of(ghost_stopped) == Some('T')).then_some(()));
    eventually("what a dead command launched dies", LONG, || on_2.iter().all(|pid| is_gone(*pid)).then_some(()));
    wait_for_ghostd(&cluster);
    // Once more, with a stopped ghost: it goes on where it was.
    cluster.master().control("kill SIGKILL");
    ghost_sys::pidfd::kill(ghost_stopped.cast_signed(), 18).expect("a ghost");
    eventually("the process goes on", LONG, || on_1.iter().all(|pid| state_of(*pid) != Some('T')).then_some(()));
    eventually("the ghost sleeps again", LONG, || (state_of(ghost_stopped) != Some('T')).then_some(()));
    wait_for_ghostd(&cluster);
    for bpsh in [stopped, kept] {
        ghost_sys::pidfd::kill(ghost_of(&bpsh).cast_signed(), 15).expect("a ghost");
        bpsh.wait().expect(Ended::Signaled(15));
    }
}

/// `systemctl stop nodeagent`, and a machine that goes down: as it ends its own processes.
#[test]
fn an_agent_that_is_stopped_ends_its_processes_in_order_and_tells_how() {
    let cluster = Cluster::attach();
    let start = |script: &str| {
        let run = cluster.command("bpsh").args(["1", "sh", "-c", script]).limit(LONG).start();
        assert_eq!(run.lines(1, LONG), ["on"]);
        run
    };
    let polite = start("trap 'echo saved; exit 7' TERM; echo on; while :; do sleep 0.1; done");
    let plain = start("echo on; exec sleep 1000");
    // bpsh stops with it, and may write nothing before.
    let stops = "trap 'exit 8' TERM; kill -STOP $$; sleep 1000";
    let stopped = cluster.command("bpsh").args(["1", "sh", "-c", stops]).limit(LONG).start();
    let stubborn = start("trap '' TERM; echo on; while :; do sleep 1; done");
    let elsewhere = sleeper(&cluster, &[2], LONG);
    eventually("it has stopped itself", LONG, || {
        let look = cluster.node(1).command("sh").args(["-c", "grep -l '^State:.T' /proc/[0-9]*/status"]).run();
        (!look.text().is_empty()).then_some(())
    });
    // The cluster's init starts another agent, as it was not its own order.
    cluster.node(1).control("kill SIGINT");
    let polite = polite.wait().expect(Ended::Exited(7));
    assert_eq!(polite.text(), "on\nsaved\n");
    plain.wait().expect(Ended::Signaled(15));
    stopped.wait().expect(Ended::Exited(8));
    stubborn.wait().expect(Ended::Signaled(9));
    eventually("node 1 is back", LONG, || is_up(&cluster, 1).then_some(()));
    cluster.command("bpsh").args(["1", "true"]).run().expect(Ended::Exited(0));
    assert!(!is_gone(elsewhere.pid()), "another node's processes go on");
}

/// systemd does so below the cgroup of a unit that stops, as in a restart.
#[test]
fn empty_cgroups_that_somebody_removes_are_not_missed() {
    let cluster = Cluster::attach();
    let script = "cd /sys/fs/cgroup/system.slice/nodeagent.service/ghostproc-holder && for d in slot-*; do rmdir $d && echo gone; done";
    let removed = cluster.node(1).command("sh").args(["-c", script]).run();
    assert!(removed.text().contains("gone"), "{removed:?}");
    // As many as there can be in stock, at once.
    let all: Vec<Running> = (0..12).map(|_| cluster.command("bpsh").args(["1", "true"]).start()).collect();
    for run in all {
        run.wait().expect(Ended::Exited(0));
    }
}

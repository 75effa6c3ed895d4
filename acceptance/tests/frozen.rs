//! Parts that stand still, and links that carry one way only: within the lease a pause, beyond it an end.

use std::time::{Duration, Instant};

use acceptance::process::is_gone;
use acceptance::work::{LEASE, NODES, Recorder, Streams, Waiter, is_up, on_node, says_lost, sleeper};
use acceptance::{Cluster, Ended, Running, eventually};

const LONG: Duration = Duration::from_secs(60);
/// How long things stand still within it.
const PAUSE: Duration = Duration::from_secs(2);

/// What stands still, or carries nothing; as before when this is dropped.
enum Fault<'a> {
    /// A process, in the host's numbers.
    Stopped(u32),
    /// All processes of a node.
    Frozen(&'a Cluster, u32),
    /// What a node sends to the master.
    Upwards(&'a Cluster, u32),
    /// What the master sends to a node.
    Downwards(&'a Cluster, u32),
}

impl<'a> Fault<'a> {
    fn agent(cluster: &Cluster, node: u32) -> Fault<'a> {
        Fault::Stopped(cluster.node(node).daemon()).begun()
    }

    fn holder(cluster: &Cluster, node: u32) -> Fault<'a> {
        let snapshot = cluster.snapshot();
        let holder = snapshot.of(&cluster.node(node).name).find(|process| process.is_holder()).map(|p| p.pid);
        Fault::Stopped(holder.expect("the holder")).begun()
    }

    fn begun(self) -> Fault<'a> {
        self.set(true);
        self
    }

    fn set(&self, on: bool) {
        let route = |from: &acceptance::Member, to: &acceptance::Member| {
            let words = ["route", if on { "add" } else { "del" }, "blackhole", &format!("{}/32", to.address)];
            from.command("ip").args(words).run().success();
        };
        match self {
            Fault::Stopped(pid) => {
                let signal = if on { nix::libc::SIGSTOP } else { nix::libc::SIGCONT };
                // It may have ended by what this was done for.
                let sent = ghost_sys::pidfd::kill(pid.cast_signed(), signal);
                assert!(sent.is_ok() || !on, "process {pid} cannot be stopped");
            }
            Fault::Frozen(cluster, node) => {
                let file = cluster.node(*node).cgroup.join("cgroup.freeze");
                std::fs::write(file, if on { "1" } else { "0" }).expect("the node's cgroup");
            }
            Fault::Upwards(cluster, node) => route(cluster.node(*node), cluster.master()),
            Fault::Downwards(cluster, node) => route(cluster.master(), cluster.node(*node)),
        }
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.set(false);
        }
    }
}

#[test]
fn what_stands_still_within_the_lease_is_a_pause() {
    let cluster = Cluster::attach();
    let short = (0..5).any(|_| {
        let short = stand_still_for_a_while(&cluster);
        if !short {
            for node in 0..NODES as u32 {
                eventually("the node is up again", LONG, || is_up(&cluster, node).then_some(()));
            }
        }
        short
    });
    assert!(short, "this machine is too slow for this test: nothing stood still for a short while");
}

fn faults(cluster: &Cluster, round: usize) -> Vec<Fault<'_>> {
    match round {
        0 => vec![
            Fault::agent(cluster, 0),
            Fault::holder(cluster, 1),
            Fault::Frozen(cluster, 2).begun(),
            Fault::Upwards(cluster, 3).begun(),
        ],
        _ => vec![Fault::holder(cluster, 0), Fault::Downwards(cluster, 1).begun(), Fault::agent(cluster, 3)],
    }
}

/// `false`: nothing is proved, it was not short.
fn stand_still_for_a_while(cluster: &Cluster) -> bool {
    let streams = Streams::begin(cluster);
    let mut recorder = Recorder::begin(cluster, "1");
    let waiter = Waiter::begin(cluster, 2);
    for round in 0..2 {
        let began = Instant::now();
        let faults = faults(cluster, round);
        recorder.send(cluster, 100);
        std::thread::sleep(PAUSE);
        drop(faults);
        if began.elapsed() > LEASE / 2 {
            return false;
        }
        if round == 0 {
            waiter.end();
        }
        streams.flow();
        recorder.send(cluster, 100);
    }
    recorder.judge();
    waiter.judge();
    streams.end();
    true
}

#[test]
fn what_stands_still_beyond_the_lease_has_an_end() {
    let cluster = Cluster::attach();
    let mut sleepers: Vec<Running> = (0..5).map(|node| sleeper(&cluster, &[node], 2 * LONG)).collect();
    let processes: Vec<Vec<u32>> = (0..5).map(|node| on_node(&cluster, node)).collect();
    assert!(processes.iter().all(|there| !there.is_empty()));
    let faults = [
        Fault::agent(&cluster, 0),
        Fault::Upwards(&cluster, 1).begun(),
        Fault::Downwards(&cluster, 2).begun(),
        Fault::Frozen(&cluster, 3).begun(),
        // nodeagent ends it.
        Fault::holder(&cluster, 4),
    ];
    let mut open: Vec<usize> = (0..5).collect();
    eventually("there is a verdict on all", 2 * LONG, || {
        open.retain(|&node| {
            let Some(ended) = sleepers[node].ended() else { return true };
            assert_eq!(ended, Ended::Signaled(9), "node {node}");
            let dead = processes[node].iter().all(|pid| is_gone(*pid));
            assert!(dead || node == 3, "node {node}: the verdict came before the processes were dead");
            false
        });
        open.is_empty().then_some(())
    });
    for (node, sleeper) in (0..).zip(&sleepers) {
        says_lost(sleeper, node);
    }
    // Its agent has ended the holder that stood still, and started another one.
    eventually("the node is up again", LONG, || is_up(&cluster, 4).then_some(()));
    for node in 0..4 {
        let refused = cluster.command("bpsh").args([&node.to_string(), "true"]).run();
        assert_ne!(refused.ended, Ended::Exited(0), "something was started on node {node}, which is away");
    }
    drop(faults);
    for node in 0..5 {
        eventually("the node is up again", LONG, || is_up(&cluster, node).then_some(()));
        // Its lease comes first: nothing of the old life is there when it takes new work.
        assert!(
            processes[node as usize].iter().all(|pid| is_gone(*pid)),
            "node {node}: a process has outlived its ghost"
        );
    }
}

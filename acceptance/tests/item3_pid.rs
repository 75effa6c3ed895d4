//! The PID that the program sees with getpid() is the ghost's.

use std::collections::BTreeSet;
use std::time::Duration;

use acceptance::process::{children_of, own_number_of};
use acceptance::{Cluster, Ended, User};

const LONG: Duration = Duration::from_secs(20);

/// Starts `bpsh NODES probe wait` as this user and compares what getpid() said with the numbers of bpsh's children, by the
/// kernel, and with those of the processes on the nodes.
fn compare(cluster: &Cluster, user: User, nodes: &str, count: usize) {
    let command = cluster.command("bpsh").args([nodes, "probe", "wait"]).user(user).input_pipe();
    let mut running = command.start();
    let stdin = running.take_stdin();
    let said: BTreeSet<u32> = running.lines(count, LONG).iter().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(said.len(), count, "all different");
    let ghosts: BTreeSet<u32> = children_of(running.pid()).into_iter().filter_map(own_number_of).collect();
    assert_eq!(said, ghosts);
    let snapshot = cluster.snapshot();
    let remote: BTreeSet<u32> =
        snapshot.remote().filter(|process| process.name == "probe").map(|process| process.own_number()).collect();
    assert_eq!(remote, ghosts, "by the nodes' kernels");
    // End of input ends them.
    drop(stdin);
    running.wait().expect(Ended::Exited(0));
}

#[test]
fn getpid_is_the_ghosts_number() {
    let cluster = Cluster::attach();
    for _ in 0..20 {
        compare(&cluster, User::ordinary(), "0-4", 5);
    }
    compare(&cluster, User::root(), "0-4", 5);
}

#[test]
fn many_at_once_have_their_ghosts_numbers() {
    let cluster = Cluster::attach();
    let start = |_| cluster.command("bpsh").args(["0-4", "probe", "wait"]).user(User::ordinary()).input_pipe().start();
    let running: Vec<_> = (0..10).map(start).collect();
    let mut all = BTreeSet::new();
    for launch in &running {
        let said: BTreeSet<u32> = launch.lines(5, LONG).iter().map(|line| line.parse().expect("a number")).collect();
        let ghosts: BTreeSet<u32> = children_of(launch.pid()).into_iter().filter_map(own_number_of).collect();
        assert_eq!(said, ghosts);
        all.extend(said);
    }
    assert_eq!(all.len(), 50);
    for launch in running {
        launch.wait().expect(Ended::Exited(0));
    }
}

#[test]
fn a_shells_own_number_is_the_ghosts() {
    let cluster = Cluster::attach();
    // One argument with a blank runs as /bin/sh -c.
    let running = cluster.command("bpsh").args(["2", "echo $$; read line"]).input_pipe().start();
    let said = running.lines(1, LONG).remove(0);
    let ghosts: Vec<String> =
        children_of(running.pid()).into_iter().filter_map(own_number_of).map(|number| number.to_string()).collect();
    assert_eq!(ghosts, [said]);
    running.wait();
}

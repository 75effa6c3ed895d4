//! Launches by the thousand leave nothing behind: not here, not on any node, and not in the daemons' memory.

use std::time::Duration;

use acceptance::leak::Census;
use acceptance::{Cluster, Cmd, Ended, Running, User, eventually, memory, process};

const LONG: Duration = Duration::from_secs(60);
const VERY_LONG: Duration = Duration::from_secs(400);
/// What ghostd's memory may differ between launch 200 and launch 1,000.
const MOST_KIB: u64 = 1024;

fn bash(cluster: &Cluster, script: &str) -> Cmd {
    // Of a session, as one who has logged in: then there are stand-ins on the nodes, too.
    cluster.command("setsid").args(["--wait", "bash", "-c", script]).user(User::ordinary()).limit(VERY_LONG)
}

/// So many launches, one after the other, of all kinds: each uses something else that could be left behind.
fn launches(cluster: &Cluster, count: u32) {
    let script = format!(
        "for i in $(seq {}); do
           bpsh 0 true || exit 1
           bpsh -n 0-3 sh -c 'exit 3'; [ $? = 3 ] || exit 2
           echo input | bpsh 1 cat > /dev/null || exit 3
           bpsh 2 no-such-program 2> /dev/null; [ $? = 127 ] || exit 4
           bpsh 3 sh -c 'kill -9 $$' 2> /dev/null; [ $? = 137 ] || exit 5
           bpsh 0 yes | head -1 > /dev/null || exit 6
           bpsh 1 sleep 1000 & kill -9 $!; wait $!; [ $? = 137 ] || exit 7
           bpsh -s -p 2,3 echo text > /dev/null || exit 8
           bpsh -N 0 true || exit 9
           bpsh 77 true 2> /dev/null && exit 10
         done 2> /dev/null; exit 0",
        count / 10
    );
    bash(cluster, &script).run().expect(Ended::Exited(0));
}

fn until_nothing_runs(cluster: &Cluster) {
    eventually("nothing runs", LONG, || {
        let snapshot = cluster.snapshot();
        let there = snapshot.remote().count() + snapshot.stand_ins().count();
        let busy = there + snapshot.of("master").filter(|it| it.name == "bpsh").count();
        (busy == 0).then_some(())
    });
}

/// ghostd's memory when nothing runs any more: the least in a while, since what was freed goes back to the kernel only then.
fn ghostd_kib(cluster: &Cluster) -> u64 {
    until_nothing_runs(cluster);
    let looks = (0..30).map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        memory::resident_kib(cluster.master().daemon()).expect("ghostd runs")
    });
    looks.min().expect("several looks")
}

#[test]
fn a_thousand_launches_in_a_row_and_two_hundred_at_once() {
    let cluster = Cluster::attach();
    // What is made once, on first use, is there now.
    launches(&cluster, 20);
    until_nothing_runs(&cluster);
    let before = Census::take(&cluster);

    launches(&cluster, 200);
    let after_200 = ghostd_kib(&cluster);
    launches(&cluster, if acceptance::long() { 20_000 } else { 800 });
    // A machine that is busy lets it wait.
    let mut after_1000 = 0;
    acceptance::poll_until(LONG, || {
        after_1000 = ghostd_kib(&cluster);
        (after_1000 <= after_200 + MOST_KIB).then_some(())
    });
    println!("ghostd: {after_200} KiB after launch 200, {after_1000} KiB after launch 1,000");
    assert!(after_1000 <= after_200 + MOST_KIB, "ghostd grew from {after_200} KiB to {after_1000} KiB");
    before.must_come_back(&cluster, LONG);

    let script = "for i in $(seq 200); do bpsh 0-3 sh -c 'sleep .2; echo $$' & done; wait";
    let shown = bash(&cluster, script).run().success();
    assert_eq!(shown.lines().count(), 800);
    before.must_come_back(&cluster, LONG);
}

#[test]
fn two_hundred_at_once_that_are_killed() {
    let cluster = Cluster::attach();
    launches(&cluster, 20);
    until_nothing_runs(&cluster);
    let before = Census::take(&cluster);
    let mut running: Vec<Running> = (0..200)
        .map(|_| cluster.command("bpsh").args(["0-3", "sleep", "1000"]).user(User::ordinary()).start())
        .collect();
    eventually("all run", LONG, || {
        (cluster.snapshot().remote().filter(|it| it.name == "sleep").count() == 800).then_some(())
    });
    // Half of them by bpsh, half by their ghosts.
    for (index, bpsh) in running.iter_mut().enumerate() {
        if index % 2 == 0 {
            bpsh.kill();
        } else {
            for ghost in process::children_of(bpsh.pid()) {
                ghost_sys::pidfd::kill(ghost.cast_signed(), 9).expect("the ghost is there");
            }
        }
    }
    for bpsh in &mut running {
        let ended = bpsh.ended_within(LONG);
        // By the signal itself, or with its number: several ranks.
        assert!(matches!(ended, Some(Ended::Signaled(9) | Ended::Exited(137))), "{ended:?}");
    }
    drop(running);
    before.must_come_back(&cluster, LONG);
}

#[test]
fn a_restarted_agent_holds_no_more_than_the_first() {
    let cluster = Cluster::attach();
    launches(&cluster, 20);
    until_nothing_runs(&cluster);
    let node = cluster.node(2);
    let count = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let before = count(node.daemon());
    let cgroups = Census::take(&cluster);
    for _ in 0..3 {
        node.control("kill SIGKILL");
        eventually("node 2 is back", LONG, || {
            let finished = cluster.command("bpsh").args(["2", "true"]).run();
            (finished.ended == Ended::Exited(0)).then_some(())
        });
    }
    launches(&cluster, 20);
    eventually("as many descriptors as before", LONG, || (count(node.daemon()) <= before).then_some(()));
    // The agent itself is another process now. ghostd closes a command's connection when it has seen its end.
    let mut more = Vec::new();
    let clean = acceptance::poll_until(LONG, || {
        more = Census::take(&cluster).more_than(&cgroups, &cluster);
        more.retain(|line| !line.contains("nodeagent"));
        more.is_empty().then_some(())
    });
    assert!(clean.is_some(), "{more:#?}");
}

//! Large files of `/proc/GHOST`: whole, as they were when they were opened, and whoever reads them can be killed.

use std::fs;
use std::time::{Duration, Instant};

use acceptance::shown::{Shown, sh};
use acceptance::{Cluster, Ended, User, eventually};
use ghost_sys::pidfd::kill;

const LONG: Duration = Duration::from_secs(20);
const STOP: i32 = 19;
const CONT: i32 = 18;

/// A process that is stopped for as long as this is there.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Stopped {
        kill(pid.cast_signed(), STOP).expect("kill");
        eventually("it is stopped", LONG, || (acceptance::process::state_of(pid)? == 'T').then_some(()));
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0.cast_signed(), CONT);
    }
}

fn many_mappings(cluster: &Cluster, node: u32) -> Shown {
    let shown = Shown::start(cluster, User::ordinary(), node, &["probe", "mappings", "20000"]);
    shown.running.lines(1, LONG);
    shown
}

/// What the user's `cat` of this file of the ghost gives. On a machine that is so busy that the node is late it says so.
fn cat(cluster: &Cluster, shown: &Shown, file: &str) -> String {
    eventually("it can be read", LONG * 3, || {
        let read = cluster.command("cat").arg(shown.path(file)).user(User::ordinary()).limit(LONG * 3).run();
        (!read.error_text().contains("timed out")).then(|| read.success())
    })
}

#[test]
fn a_process_with_20_000_mappings_is_shown_whole() {
    let cluster = Cluster::attach();
    let shown = many_mappings(&cluster, 1);
    let process = shown.process(&cluster).pid;
    let stopped = Stopped::new(process);
    let there = fs::read_to_string(format!("/proc/{process}/maps")).expect("maps");
    assert!(there.lines().count() > 20_000 && there.len() > 512 * 1024);
    assert!(cat(&cluster, &shown, "maps") == there, "maps are not those of the node");
    assert!(cat(&cluster, &shown, &format!("task/{}/maps", shown.ghost)) == there, "nor are those of the thread");
    // Figures of memory may move in a process that is stopped, too: the mappings do not.
    let smaps = cat(&cluster, &shown, "smaps");
    let count = there.lines().count();
    assert_eq!((smaps.matches("\nVmFlags:").count(), smaps.ends_with('\n')), (count, true));
    let mappings = |text: &str| {
        let lines = text.lines().filter(|line| !line.split(' ').next().unwrap_or_default().ends_with(':'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(mappings(&smaps) == there.lines().collect::<Vec<_>>(), "smaps are of other mappings");
    drop(stopped);
    shown.end();
}

#[test]
fn whoever_opens_a_file_reads_what_it_was_then() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "hog"]);
    // By its own descriptor the file is the one that was opened; by its name it is a new one each time.
    let script = format!(
        "until : < /proc/{0}/sched; do sleep .1; done; exec 3< /proc/{0}/sched; first=$(cat /proc/self/fd/3)
         while [ \"$(cat /proc/{0}/sched)\" = \"$first\" ]; do sleep .1; done
         [ -n \"$first\" ] && [ \"$(cat /proc/self/fd/3)\" = \"$first\" ] && [ \"$(cat <&3)\" = \"$first\" ]",
        shown.ghost
    );
    sh(&cluster, User::ordinary(), &script).limit(LONG * 3).run().success();
    let mut running = shown.running;
    running.kill();
}

/// While the node does not answer a reader waits, and not for ever; killed, it ends at once.
#[test]
fn a_reader_that_waits_for_a_node_can_be_killed() {
    let cluster = Cluster::attach();
    let shown = many_mappings(&cluster, 2);
    let agent = cluster.node(2).daemon();
    // Without the signal it waits for three seconds: some attempt is not delayed by anything else.
    eventually("a reader that is killed ends", LONG * 3, || {
        // Nobody waits for a node that has let somebody wait in vain.
        cat(&cluster, &shown, "auxv");
        let _stopped = Stopped::new(agent);
        let mut reading = cluster.command("cat").arg(shown.path("smaps")).user(User::ordinary()).start();
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        reading.kill();
        let ended = reading.wait();
        (ended.ended == Ended::Signaled(9) && begun.elapsed() < Duration::from_millis(1000)).then_some(())
    });
    {
        let _stopped = Stopped::new(agent);
        let late = cluster.command("cat").arg(shown.path("maps")).user(User::ordinary()).limit(LONG).run();
        assert!(late.error_text().contains("timed out"), "{late:?}");
    }
    eventually("the node is back", LONG, || {
        let read = cluster.command("cat").arg(shown.path("maps")).user(User::ordinary()).limit(LONG).run();
        (read.ended == Ended::Exited(0) && read.text().lines().count() > 20_000).then_some(())
    });
    shown.end();
}

/// As `ps -eLf` shows it.
#[test]
fn a_process_with_many_threads_is_shown_with_all_of_them() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 3, &["probe", "threads", "600"]);
    shown.running.lines(1, LONG);
    eventually("all its threads are shown", LONG, || {
        let all = cluster.command("ps").args(["-eLo", "pid,lwp,comm"]).limit(LONG).run().success();
        let number = shown.ghost.to_string();
        (all.lines().filter(|line| line.split_whitespace().next() == Some(&number)).count() == 600).then_some(())
    });
    shown.end();
}

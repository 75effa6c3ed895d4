//! `kill -9 GHOST`: once the ghost has left the process table the process on the node is gone, and the shell's `wait` says
//! 137. A thousand times, also in heavy work, stopped, still starting, with a busy ghostd, and with a second signal behind
//! the first.
//!
//! Judged from outside, by the host's /proc: the ghost is looked at until it is gone (a zombie is still there), and only
//! then the process on the node, which must be gone already.

use std::time::{Duration, Instant};

use acceptance::process::{children_of, is_gone, own_number_of, state_of};
use acceptance::{Cluster, Shell, User, eventually};

const LONG: Duration = Duration::from_secs(20);

/// Longer with GHOSTPROC_LONG.
fn times(count: u32) -> u32 {
    if acceptance::long() { count * 20 } else { count }
}

struct Bench {
    cluster: Cluster,
    shell: Shell,
    /// The holder of node 0, in the host's numbers.
    holder: u32,
}

/// A launch on node 0; `bpsh` and `ghost` in the master's numbers, the rest in the host's.
struct Launch {
    bpsh: u32,
    ghost: u32,
    ghost_outside: u32,
    remote: u32,
}

impl Bench {
    fn new() -> Self {
        let cluster = Cluster::attach();
        let shell = Shell::start(&cluster, User::ordinary());
        let snapshot = cluster.snapshot();
        let holder = snapshot.of("n0").find(|process| process.is_holder()).expect("the holder of node 0").pid;
        Self { cluster, shell, holder }
    }

    /// The process on node 0 with this number there.
    fn remote(&self, number: u32) -> Option<u32> {
        children_of(self.holder).into_iter().find(|&pid| own_number_of(pid) == Some(number))
    }

    /// Starts `bpsh 0 PROGRAM` and waits until the process with the name runs.
    fn launch(&mut self, program: &str, name: &str) -> Launch {
        let bpsh = self.shell.number(&format!("bpsh 0 {program} > /dev/null & echo $!"));
        let outside = children_of(self.shell.pid()).into_iter().find(|&pid| own_number_of(pid) == Some(bpsh));
        let outside = outside.expect("bpsh is a child of the shell");
        let ghost_outside = eventually("there is a ghost", LONG, || children_of(outside).first().copied());
        let ghost = own_number_of(ghost_outside).expect("the ghost's number");
        let remote = eventually("the process runs on the node", LONG, || {
            let pid = self.remote(ghost)?;
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (comm.trim_end() == name).then_some(pid)
        });
        Launch { bpsh, ghost, ghost_outside, remote }
    }

    /// Runs the line that kills, then judges.
    fn kill(&mut self, launch: &Launch, line: &str) {
        self.shell.run(line);
        self.judge(launch);
    }

    fn judge(&mut self, launch: &Launch) {
        let until = Instant::now() + LONG;
        while !is_gone(launch.ghost_outside) {
            assert!(Instant::now() < until, "the ghost {} does not go away", launch.ghost);
            std::hint::spin_loop();
        }
        if let Some(state) = state_of(launch.remote) {
            panic!("the ghost {} is gone, its process is there: {state} {}", launch.ghost, launch.remote);
        }
        let answer = self.shell.run(&format!("wait {}", launch.bpsh));
        assert_eq!(answer.status, 137, "the status of bpsh");
    }

    fn nothing_is_left(&self) {
        eventually("nothing is left on the nodes", LONG, || {
            (self.cluster.snapshot().remote().count() == 0).then_some(())
        });
    }
}

#[test]
fn a_sleeping_process_is_dead_before_its_ghost() {
    let mut bench = Bench::new();
    for _ in 0..times(450) {
        let launch = bench.launch("sleep 1000", "sleep");
        bench.kill(&launch, &format!("kill -9 {}", launch.ghost));
    }
    bench.nothing_is_left();
}

#[test]
fn a_process_in_heavy_work_is_dead_before_its_ghost() {
    let mut bench = Bench::new();
    for round in 0..times(100) {
        let program = if round % 2 == 0 { "probe churn" } else { "probe hog" };
        let launch = bench.launch(program, "probe");
        bench.kill(&launch, &format!("kill -9 {}", launch.ghost));
    }
    bench.nothing_is_left();
}

#[test]
fn a_stopped_process_is_dead_before_its_ghost() {
    let mut bench = Bench::new();
    for round in 0..times(100) {
        let launch = bench.launch("sleep 1000", "sleep");
        bench.shell.run(&format!("kill -STOP {}", launch.ghost));
        eventually("the process is stopped", LONG, || (state_of(launch.remote) == Some('T')).then_some(()));
        // Half of the times the ghost may still be on its way to the stop.
        if round % 2 == 0 {
            eventually("the ghost is stopped", LONG, || (state_of(launch.ghost_outside) == Some('T')).then_some(()));
        }
        bench.kill(&launch, &format!("kill -9 {}", launch.ghost));
    }
    bench.nothing_is_left();
}

#[test]
fn a_process_that_is_still_starting_is_killed() {
    let mut bench = Bench::new();
    for round in 0..times(200) {
        // The shell itself waits for the ghost, to be quick, then counts to something.
        let line = format!(
            "bpsh 0 sleep 1000 & ghost=; until [ -n \"$ghost\" ]; do read -r ghost rest < /proc/$!/task/$!/children; done; \
             for ((i = 0; i < {}; i++)); do :; done; kill -9 $ghost; echo $ghost; wait $!",
            (round % 40) * 25
        );
        let answer = bench.shell.run(&line);
        assert_eq!(answer.status, 137, "{answer:?}");
        let ghost: u32 = answer.output.trim().parse().expect("the ghost's number");
        // bpsh has ended, so the ghost is gone.
        if let Some(pid) = bench.remote(ghost) {
            panic!("the ghost {ghost} is gone, its process is there: {:?} {pid}", state_of(pid));
        }
    }
    // Nor does one start later.
    bench.nothing_is_left();
}

#[test]
fn a_busy_ghostd_does_not_change_the_order() {
    let mut bench = Bench::new();
    let mut load = Shell::start(&bench.cluster, User::other());
    for _ in 0..2 {
        // Said explicitly: bash leaves the shell's own input to the first of several loops.
        load.run("while :; do bpsh 1-4 true; done < /dev/null &");
    }
    load.run("bpsh 2 yes < /dev/null > /dev/null &");
    for _ in 0..times(100) {
        let launch = bench.launch("sleep 1000", "sleep");
        bench.kill(&launch, &format!("kill -9 {}", launch.ghost));
    }
    load.run("kill -9 $(jobs -p); wait");
    drop(load);
    bench.nothing_is_left();
}

/// The kill finds a read that nobody has taken up, or one whose server does not answer for a while.
#[test]
fn a_ghostd_that_does_not_answer_for_a_while_does_not_change_the_order() {
    let mut bench = Bench::new();
    let ghostd = bench.cluster.master().daemon().cast_signed();
    for round in 0..times(50) {
        let launch = bench.launch("sleep 1000", "sleep");
        ghost_sys::pidfd::kill(ghostd, 19).expect("stopping ghostd");
        if round % 3 == 0 {
            // Its read is interrupted now; what follows it waits to be taken up.
            bench.shell.run(&format!("kill -STOP {0}; kill -CONT {0}", launch.ghost));
        }
        bench.shell.run(&format!("kill -9 {}", launch.ghost));
        std::thread::sleep(Duration::from_millis(u64::from(round % 10)));
        ghost_sys::pidfd::kill(ghostd, 18).expect("continuing ghostd");
        bench.judge(&launch);
    }
    bench.nothing_is_left();
}

#[test]
fn a_second_signal_behind_the_first_changes_nothing() {
    let mut bench = Bench::new();
    let seconds = ["-TERM", "-CONT", "-STOP", "-9", "-RTMIN"];
    for round in 0..times(50) {
        let launch = bench.launch("sleep 1000", "sleep");
        let second = seconds[round as usize % seconds.len()];
        // The ghost may be gone by then.
        bench.kill(&launch, &format!("kill -9 {0}; kill {second} {0} 2> /dev/null", launch.ghost));
    }
    bench.nothing_is_left();
}

#[test]
fn all_ghosts_of_a_launch_killed_at_once() {
    let mut bench = Bench::new();
    for _ in 0..times(10) {
        let bpsh = bench.shell.number("bpsh 0-4 sleep 1000 & echo $!");
        let outside = children_of(bench.shell.pid()).into_iter().find(|&pid| own_number_of(pid) == Some(bpsh));
        let outside = outside.expect("bpsh is a child of the shell");
        let remote = eventually("five processes run", LONG, || {
            let snapshot = bench.cluster.snapshot();
            let found: Vec<u32> = snapshot.remote().filter(|p| p.name == "sleep").map(|p| p.pid).collect();
            (found.len() == 5).then_some(found)
        });
        let ghosts = children_of(outside);
        let numbers: Vec<String> = ghosts.iter().filter_map(|&pid| own_number_of(pid)).map(|n| n.to_string()).collect();
        bench.shell.run(&format!("kill -9 {}", numbers.join(" ")));
        eventually("all ghosts are gone", LONG, || ghosts.iter().all(|&pid| is_gone(pid)).then_some(()));
        let left: Vec<_> = remote.iter().filter(|&&pid| !is_gone(pid)).collect();
        assert!(left.is_empty(), "the ghosts are gone, processes are there: {left:?}");
        assert_eq!(bench.shell.run(&format!("wait {bpsh}")).status, 137);
    }
    bench.nothing_is_left();
}

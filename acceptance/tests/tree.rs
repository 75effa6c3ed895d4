//! Random trees on the nodes (`src/bin/tree_soak`): at every quiet point the master's ghosts are the nodes' processes, one by
//! one, by what the kernel says of both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use acceptance::ghost_tree::{Life, Numbers, Side, differences, ghosts, numbers, on_node};
use acceptance::leak::Census;
use acceptance::random::{Random, seed};
use acceptance::{Cluster, Ended, Running, Shell, Snapshot, User, eventually, long, poll_until};

const PATIENCE: Duration = Duration::from_secs(40);
/// How long the master may take to show what has happened on the nodes, on a machine that is busy.
const SETTLING: Duration = Duration::from_secs(30);

/// A tree on each of these nodes, standing still.
struct Forest {
    cluster: Cluster,
    nodes: Vec<String>,
    running: Running,
    stdin: ChildStdin,
    lines: usize,
    /// Processes of the master that are no ghosts.
    others: BTreeSet<(u32, u64)>,
}

impl Forest {
    fn plant(nodes: &[u32], most: usize) -> Self {
        let cluster = Cluster::attach();
        for node in nodes {
            cluster.node(*node).install("tree_soak");
        }
        let mut others: BTreeSet<(u32, u64)> =
            cluster.snapshot().of("master").map(|process| (process.pid, process.started)).collect();
        let list = nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let command = cluster.command("bpsh").args([list.as_str(), "tree_soak", "conduct", &most.to_string()]);
        let mut running = command.user(User::ordinary()).input_pipe().limit(Duration::from_secs(7200)).start();
        let stdin = running.take_stdin();
        let launcher = acceptance::Process::read(running.pid()).expect("bpsh runs");
        others.insert((launcher.pid, launcher.started));
        let nodes = nodes.iter().map(|node| format!("n{node}")).collect();
        Self { cluster, nodes, running, stdin, lines: 0, others }
    }

    /// Has the trees go through a round; they stand still after it. Gives how many actors are running.
    fn round(&mut self, seed: u64) -> usize {
        if let Err(why) = writeln!(self.stdin, "round {seed}") {
            self.running.fail(&format!("takes no more rounds: {why}"));
        }
        self.lines += self.nodes.len();
        let lines = self.running.lines(self.lines, PATIENCE);
        let counts = lines[self.lines - self.nodes.len()..].iter().map(|line| {
            let count = line.strip_prefix(&format!("quiet {seed} ")).and_then(|count| count.parse::<usize>().ok());
            count.unwrap_or_else(|| self.running.fail(&format!("says `{line}`")))
        });
        counts.sum()
    }

    fn real(&self, snapshot: &Snapshot) -> BTreeMap<String, Side> {
        let known = snapshot.of("master").filter(|process| self.others.contains(&(process.pid, process.started)));
        let local = known.map(|process| (process.member_number(), process.name.clone())).collect();
        self.nodes.iter().map(|node| (node.clone(), on_node(snapshot, node, &local))).collect()
    }

    /// What is not equal now.
    fn differences(&self, shell: &mut Shell) -> Vec<String> {
        // What changes without an event is compared when somebody looks.
        let table = shell.run("ps -ef > /dev/null; bpstat -p").output;
        let snapshot = self.cluster.snapshot();
        differences(&ghosts(&snapshot, &self.others), &self.real(&snapshot), &numbers(&table))
    }

    fn end(self) -> Cluster {
        drop(self.stdin);
        self.running.wait().expect(Ended::Exited(0));
        self.cluster
    }
}

/// The soak itself: it makes trees, and they do stand still.
#[test]
fn the_tree_stands_still_at_a_quiet_point() {
    let mut forest = Forest::plant(&[0, 1], 60);
    let mut random = Random::new(seed());
    let mut most = 0;
    for _ in 0..20 {
        let actors = forest.round(random.below(1 << 40));
        let look = || forest.real(&forest.cluster.snapshot());
        let living = |real: &BTreeMap<String, Side>| {
            real.values().flat_map(BTreeMap::values).filter(|process| process.life == Life::Alive).count()
        };
        // The conductors are no actors; and who was killed has closed its socket before it is gone.
        let real = eventually("as many as the conductors know", PATIENCE, || {
            let real = look();
            (living(&real) == actors + 2).then_some(real)
        });
        assert_eq!(real, look(), "nothing happens");
        most = most.max(actors);
    }
    assert!(most > 40, "at most {most} actors: no tree worth the name");
    forest.end();
}

/// The checker, on real trees: one process that has gone on one side only is a difference.
#[test]
fn planted_a_process_less_is_found() {
    let mut forest = Forest::plant(&[1], 40);
    for seed in 1..8 {
        forest.round(seed);
    }
    let before = forest.real(&forest.cluster.snapshot());
    assert_eq!(differences(&before["n1"], &before, &Numbers::new()), [""; 0], "equal to itself");
    let snapshot = forest.cluster.snapshot();
    let victim = snapshot.of("n1").find(|process| {
        process.is_remote() && process.name != "tree_soak" && !process.is_holder() && !process.stands_in
    });
    let victim = victim.expect("an actor that has executed a program");
    ghost_sys::pidfd::kill(victim.pid.cast_signed(), 9).expect("kill");
    let number = victim.own_number().to_string();
    eventually("the difference is found", PATIENCE, || {
        let told = differences(&before["n1"], &forest.real(&forest.cluster.snapshot()), &Numbers::new());
        told.iter().any(|line| line.contains(&number)).then_some(())
    });
    // A conductor that misses an actor goes on.
    forest.round(9);
    forest.end();
}

/// A signal from the master to a ghost of the tree (never to a rank), or to its group; gives whether it is to be continued.
fn from_the_master(forest: &Forest, shell: &mut Shell, random: &mut Random) -> Option<u32> {
    let snapshot = forest.cluster.snapshot();
    let all = ghosts(&snapshot, &forest.others);
    let launcher = snapshot.get(forest.running.pid()).map_or(0, acceptance::Process::member_number);
    let below: Vec<u32> = all
        .values()
        .filter(|ghost| ghost.parent != launcher && ghost.life == Life::Alive)
        .map(|ghost| ghost.number)
        .collect();
    if below.is_empty() {
        return None;
    }
    let target = *random.choose(&below);
    let (how, stopped) = match random.below(4) {
        0 => (format!("kill -9 {target}"), None),
        1 => (format!("kill -TERM {target}"), None),
        // Only if it leads one.
        2 => (format!("kill -9 -- -{target}"), None),
        _ => (format!("kill -STOP {target}"), Some(target)),
    };
    shell.run(&format!("{how} 2> /dev/null"));
    stopped
}

#[test]
fn the_ghosts_are_the_processes_at_every_quiet_point() {
    let cluster = Cluster::attach();
    let mut shell = Shell::start(&cluster, User::ordinary());
    shell.run("true");
    let before = Census::take(&cluster);
    let mut forest = Forest::plant(&[0, 1], 250);
    let seed = seed();
    let mut random = Random::new(seed);
    let until = Instant::now() + Duration::from_secs(if long() { 1800 } else { 20 });
    let (mut rounds, mut most, mut slowest) = (0, 0, Duration::ZERO);
    let mut equal = |forest: &Forest, shell: &mut Shell, what: &str| {
        let began = Instant::now();
        let mut last = Vec::new();
        let found = poll_until(SETTLING, || {
            last = forest.differences(shell);
            last.is_empty().then_some(())
        });
        slowest = slowest.max(began.elapsed());
        assert!(found.is_some(), "{what} (seed {seed}): {} differences:\n{}", last.len(), last.join("\n"));
    };
    while Instant::now() < until {
        most = most.max(forest.round(random.below(1 << 40)));
        rounds += 1;
        equal(&forest, &mut shell, &format!("round {rounds}"));
        if random.below(2) == 0 {
            let stopped = from_the_master(&forest, &mut shell, &mut random);
            equal(&forest, &mut shell, &format!("round {rounds}, after a signal from the master"));
            if let Some(number) = stopped {
                shell.run(&format!("kill -CONT {number} 2> /dev/null"));
                equal(&forest, &mut shell, &format!("round {rounds}, continued"));
            }
        }
    }
    forest.end();
    before.must_come_back(&cluster, Duration::from_secs(30));
    println!("soak: {rounds} rounds, at most {most} actors, settled after at most {} ms", slowest.as_millis());
}

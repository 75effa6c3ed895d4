//! Work that is under way while something breaks, and tells whether anything of it was lost or doubled.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::{Cluster, Ended, Running, eventually, poll_until, process};

const LONG: Duration = Duration::from_secs(60);
/// The most that any of it may take.
const LIMIT: Duration = Duration::from_secs(1_500);
/// The lease of the test cluster.
pub const LEASE: Duration = Duration::from_secs(15);
/// Nodes that the streams go to: 0 to 3.
pub const NODES: usize = 4;

/// `bpsh -p 0-3 cat`, fed with numbered lines until it is told to end; each line is looked at when it comes back.
pub struct Streams {
    pub bpsh: Running,
    over: Arc<AtomicBool>,
    feeder: JoinHandle<u64>,
    reader: JoinHandle<Result<(), String>>,
    /// Lines that have come back from each node.
    came: Arc<[AtomicU64; NODES]>,
}

fn line(number: u64) -> String {
    let mut random = Random::new(number);
    let words: String = (0..31).map(|_| format!("{:016x}", random.next())).collect();
    format!("{number:015} {words}\n")
}

fn feed(mut pipe: ChildStdin, over: &AtomicBool) -> u64 {
    for number in 0.. {
        if over.load(Ordering::Relaxed) || pipe.write_all(line(number).as_bytes()).is_err() {
            return number;
        }
    }
    unreachable!("there are more numbers than time")
}

fn check(output: impl std::io::Read, came: &[AtomicU64; NODES]) -> Result<(), String> {
    let mut reader = BufReader::with_capacity(1 << 18, output);
    let mut shown = String::new();
    while {
        shown.clear();
        reader.read_line(&mut shown).map_err(|why| format!("its output: {why}"))? > 0
    } {
        let (node, rest) = shown.split_once(':').ok_or_else(|| format!("no prefix: {shown}"))?;
        let node: usize = node.trim().parse().map_err(|_| format!("prefix {node:?}"))?;
        let next = came[node].load(Ordering::Relaxed);
        if rest.trim_start_matches(' ') != line(next) {
            return Err(format!("line {next} of node {node} is {rest}"));
        }
        came[node].store(next + 1, Ordering::Relaxed);
    }
    Ok(())
}

impl Streams {
    pub fn begin(cluster: &Cluster) -> Streams {
        let command = cluster.command("bpsh").args(["-p", "0-3", "cat"]).limit(LIMIT);
        let mut bpsh = command.input_pipe().stdout_pipe().start();
        let (over, came) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; NODES]));
        let (pipe, their_over) = (bpsh.take_stdin(), Arc::clone(&over));
        let feeder = std::thread::spawn(move || feed(pipe, &their_over));
        let (output, their_came) = (bpsh.take_stdout(), Arc::clone(&came));
        let reader = std::thread::spawn(move || check(output, &their_came));
        let streams = Streams { bpsh, over, feeder, reader, came };
        streams.flow();
        streams
    }

    pub fn counts(&self) -> [u64; NODES] {
        std::array::from_fn(|node| self.came[node].load(Ordering::Relaxed))
    }

    /// Waits until something new has come from every node: more than can have been under way.
    pub fn flow(&self) -> Duration {
        let began = Instant::now();
        let before = self.counts();
        let window = 3 * 1024 * 1024 / 512;
        let all = || (0..NODES).all(|node| self.counts()[node] > before[node] + window);
        if poll_until(LONG, || (all() || self.reader.is_finished()).then_some(())).is_none() {
            self.bpsh.fail(&format!("its streams stand still: {before:?}, then {:?}", self.counts()));
        }
        if self.reader.is_finished() {
            self.bpsh.fail("its output has ended");
        }
        began.elapsed()
    }

    /// Every line that was sent has come back from every node, once and in order.
    pub fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let sent = self.feeder.join().expect("the feeder");
        if let Err(harm) = self.reader.join().expect("the reader") {
            self.bpsh.fail(&harm);
        }
        let came: [u64; NODES] = std::array::from_fn(|node| self.came[node].load(Ordering::Relaxed));
        assert_eq!(came, [sent; NODES], "lines that came back");
        self.bpsh.wait().expect(Ended::Exited(0));
        sent
    }
}

/// `bpsh NODE probe record`: prints what signals it gets.
pub struct Recorder {
    pub bpsh: Running,
    /// In the master's numbers.
    ghost: u32,
    pub sent: u32,
}

impl Recorder {
    pub fn begin(cluster: &Cluster, node: &str) -> Recorder {
        let bpsh = cluster.command("bpsh").args([node, "probe", "record"]).limit(LIMIT).start();
        let first = bpsh.lines(1, LONG);
        let ghost = eventually("its ghost", LONG, || {
            let ghosts = process::children_of(bpsh.pid());
            ghosts.first().and_then(|pid| process::own_number_of(*pid))
        });
        assert!(!first[0].is_empty());
        Recorder { bpsh, ghost, sent: 0 }
    }

    /// Sends real-time signals, each with a number.
    pub fn send(&mut self, cluster: &Cluster, count: u32) {
        let (ghost, first) = (self.ghost.to_string(), self.sent.to_string());
        let words = ["queue", &ghost, "40", &first, &count.to_string()].map(str::to_owned);
        cluster.command("probe").args(words).run().success();
        self.sent += count;
    }

    /// So many have come.
    pub fn count(&self) -> usize {
        String::from_utf8_lossy(&self.bpsh.stdout()).lines().filter_map(value_of).count()
    }

    /// All of them have come, once and in order.
    pub fn judge(&self) {
        let wanted: Vec<String> = (0..self.sent).map(|number| number.to_string()).collect();
        let got = || -> Vec<String> {
            let text = String::from_utf8_lossy(&self.bpsh.stdout()).into_owned();
            text.lines().filter_map(value_of).collect()
        };
        if poll_until(LONG, || (got().len() >= wanted.len()).then_some(())).is_none() || got() != wanted {
            let got = got();
            let same = got.iter().zip(&wanted).take_while(|(got, wanted)| got == wanted).count();
            let rest: Vec<_> = got.iter().skip(same).take(20).collect();
            let text = format!("{} of {} signals came; after {same} of them {rest:?}", got.len(), wanted.len());
            self.bpsh.fail(&text);
        }
    }
}

/// Of a line `SIGNAL CODE PID UID VALUE`, for the signal that is used here.
fn value_of(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    (words.len() == 5 && words[0] == "40").then(|| words[4].to_owned())
}

/// `bpsh NODE` with a program that ends with 7 as soon as a file on its node is gone.
pub struct Waiter {
    pub bpsh: Running,
    file: PathBuf,
}

impl Waiter {
    pub fn begin(cluster: &Cluster, node: u32) -> Waiter {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("/tmp/waiter-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = cluster.node(node).path(&name);
        std::fs::write(&file, "").expect("a file on the node");
        let script = format!("echo begun; while [ -e {name} ]; do sleep 0.02; done; echo ended; exit 7");
        let words = [node.to_string(), "sh".to_owned(), "-c".to_owned(), script];
        let bpsh = cluster.command("bpsh").args(words).limit(LIMIT).start();
        bpsh.lines(1, LONG);
        Waiter { bpsh, file }
    }

    /// Lets it end.
    pub fn end(&self) {
        std::fs::remove_file(&self.file).expect("the file");
    }

    pub fn judge(self) {
        assert_eq!(self.bpsh.wait().expect(Ended::Exited(7)).text(), "begun\nended\n");
    }
}

pub fn agent_state(cluster: &Cluster, node: u32) -> String {
    cluster.node(node).control("status").state
}

pub fn link(cluster: &Cluster, node: u32, state: &str) {
    cluster.node(node).command("ip").args(["link", "set", "eth0", state]).run().success();
}

/// The processes that this cluster runs on a node, in the host's numbers.
pub fn on_node(cluster: &Cluster, node: u32) -> Vec<u32> {
    let name = format!("n{node}");
    let all = cluster.snapshot().processes;
    all.into_iter()
        .filter(|p| p.member == name && p.is_remote() && !p.is_holder() && !p.stands_in)
        .map(|p| p.pid)
        .collect()
}

pub fn is_up(cluster: &Cluster, node: u32) -> bool {
    let list = cluster.command("bpstat").arg("up").run();
    list.ended == Ended::Exited(0)
        && cluster.command("bpsh").args([&node.to_string(), "true"]).run().ended == Ended::Exited(0)
}

/// A program that sleeps on each of these nodes, and has begun to.
pub fn sleeper(cluster: &Cluster, nodes: &[u32], limit: Duration) -> Running {
    let list = nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let words = [&list, "sh", "-c", "echo begun; exec sleep 1000"];
    let bpsh = cluster.command("bpsh").args(words).limit(limit).start();
    bpsh.lines(nodes.len(), LONG);
    bpsh
}

/// Waits until bpsh has said that this node is lost. What it has said may be read a little after its end.
pub fn says_lost(bpsh: &Running, node: u32) {
    let told = || String::from_utf8_lossy(&bpsh.stderr()).contains(&format!("{node}: lost"));
    eventually("bpsh says that the node is lost", LONG, || told().then_some(()));
}

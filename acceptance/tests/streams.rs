//! Bulk data through bpsh: whole, in bounded memory, and in nobody's way.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acceptance::bytes::{Check, Source};
use acceptance::measure::median;
use acceptance::{Cluster, Ended, User, eventually, memory, process};

const GIB: u64 = 1 << 30;
const LONG: Duration = Duration::from_secs(30);
/// For the gigabytes.
const VERY_LONG: Duration = Duration::from_secs(400);
/// Memory that a stream may cost any one process.
const MOST_KIB: u64 = 32 * 1024;

/// The names of the product's processes.
const PRODUCT: [&str; 4] = ["ghostd", "nodeagent", "ghost-holder", "bpsh"];

/// Watches the memory of the product's processes while something runs.
struct Watch {
    over: Arc<AtomicBool>,
    found: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Peaks are counted from now on. A bpsh at rest is measured with a launch that does nothing.
    fn begin(cluster: &Cluster) -> Self {
        let idle_bpsh = {
            let bpsh = cluster.command("bpsh").args(["0", "probe", "wait"]).input_pipe().start();
            bpsh.lines(1, LONG);
            memory::peak_kib(bpsh.pid()).expect("bpsh runs")
        };
        let at_rest: Vec<(u32, String, u64)> = cluster
            .snapshot()
            .processes
            .iter()
            .filter(|process| PRODUCT[..3].contains(&process.name.as_str()))
            .map(|process| {
                memory::forget_peak(process.pid);
                (process.pid, format!("{} of {}", process.name, process.member), process.rss_kib)
            })
            .collect();
        assert!(at_rest.len() >= 9, "ghostd, 4 nodeagents and 4 holders: {at_rest:?}");
        let over = Arc::new(AtomicBool::new(false));
        let found = Arc::new(Mutex::new(Vec::new()));
        let (cluster, their_over, their_found) = (cluster.clone(), Arc::clone(&over), Arc::clone(&found));
        let thread = std::thread::spawn(move || {
            loop {
                let last = their_over.load(Ordering::Relaxed);
                let mut seen: Vec<(u32, String, u64)> = at_rest.clone();
                // bpsh comes and goes; its ghosts share its memory.
                let bpsh = cluster.snapshot().processes.into_iter().filter(|process| process.name == "bpsh");
                seen.extend(bpsh.map(|process| (process.pid, "bpsh".to_owned(), idle_bpsh)));
                let mut peaks = Vec::new();
                for (pid, name, idle) in seen {
                    if let Some(peak) = memory::peak_kib(pid) {
                        peaks.push((name, idle, peak));
                    }
                }
                let mut found = their_found.lock().expect("no panic here");
                for (name, idle, peak) in peaks {
                    if peak > idle + MOST_KIB {
                        found.push(format!("{name}: {peak} KiB, at rest {idle} KiB"));
                    }
                }
                drop(found);
                if last {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { over, found, thread }
    }

    #[track_caller]
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watching thread");
        let found = self.found.lock().expect("no panic there");
        assert!(found.is_empty(), "more than {MOST_KIB} KiB above rest: {found:#?}");
    }
}

/// Writes this stream into a pipe, by a thread of its own; a reader that leaves ends it.
fn feed(mut pipe: ChildStdin, seed: u64, length: u64) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut source = Source::new(seed, length);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match source.read(&mut buffer).expect("a source has no errors") {
                0 => return,
                n if pipe.write_all(&buffer[..n]).is_err() => return,
                _ => {}
            }
        }
    })
}

#[test]
fn five_gibibytes_come_back_unharmed() {
    let cluster = Cluster::attach();
    let length = 5 * GIB;
    let watch = Watch::begin(&cluster);
    let command = cluster.command("bpsh").args(["0", "cat"]).user(User::ordinary()).limit(VERY_LONG);
    let mut bpsh = command.input_pipe().stdout_pipe().start();
    let feeder = feed(bpsh.take_stdin(), 1, length);
    let mut check = Check::new(1, length);
    std::io::copy(&mut bpsh.take_stdout(), &mut check).expect("its output");
    if let Err(harm) = check.finish() {
        bpsh.fail(&harm.to_string());
    }
    feeder.join().expect("the feeder");
    bpsh.wait().expect(Ended::Exited(0));
    watch.end();
}

/// Text of the stream of a seed: lines of 64 hexadecimal bytes, each with its number.
fn line(seed: u64, number: u64) -> String {
    let mut random = acceptance::random::Random::new(seed ^ number);
    let words: String = (0..255).map(|_| format!("{:016x}", random.next())).collect();
    format!("{number:015} {words}")
}

#[test]
fn one_gibibyte_goes_to_four_nodes_and_comes_back_from_each() {
    let cluster = Cluster::attach();
    let length = if acceptance::long() { 4 * GIB } else { GIB };
    let watch = Watch::begin(&cluster);
    // Each node's lines are told apart by their prefix; a line is 4096 bytes with its end.
    let lines: Vec<String> = (0..64).map(|number| line(2, number)).collect();
    let block: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let blocks = length / block.len() as u64;
    let command = cluster.command("bpsh").args(["-p", "0-3", "cat"]).user(User::ordinary()).limit(VERY_LONG);
    let mut bpsh = command.input_pipe().stdout_pipe().start();
    let mut pipe = bpsh.take_stdin();
    let feeder = std::thread::spawn(move || {
        for _ in 0..blocks {
            if pipe.write_all(block.as_bytes()).is_err() {
                return;
            }
        }
    });
    let mut reader = BufReader::with_capacity(1 << 20, bpsh.take_stdout());
    let mut next = [0u64; 4];
    let mut shown = Vec::new();
    while {
        shown.clear();
        reader.read_until(b'\n', &mut shown).expect("its output") > 0
    } {
        let text = std::str::from_utf8(&shown).unwrap_or_else(|_| bpsh.fail("bytes that nobody sent"));
        let (node, rest) = text.trim_end_matches('\n').split_once(':').unwrap_or_else(|| bpsh.fail("no prefix"));
        let node: usize = node.trim().parse().unwrap_or_else(|_| bpsh.fail(&format!("prefix {node:?}")));
        let wanted = &lines[(next[node] % 64) as usize];
        if rest.trim_start_matches(' ') != wanted {
            bpsh.fail(&format!("line {} of node {node} is\n{rest}\ninstead of\n{wanted}", next[node]));
        }
        next[node] += 1;
    }
    assert_eq!(next, [blocks * 64; 4], "lines of each node");
    feeder.join().expect("the feeder");
    bpsh.wait().expect(Ended::Exited(0));
    watch.end();
}

#[test]
fn both_outputs_of_all_nodes_are_whole() {
    let cluster = Cluster::attach();
    let length = 64 << 20;
    let path = "/tmp/stderr-of-a-stream";
    let stderr = std::fs::File::create(cluster.master().path(path)).expect("a file on the master");
    let command = cluster.command("bpsh").args(["1", "sh", "-c", "tee /dev/stderr"]).limit(VERY_LONG);
    let mut bpsh = command.input_pipe().stdout_pipe().stderr_to(stderr).start();
    let feeder = feed(bpsh.take_stdin(), 3, length);
    let mut check = Check::new(3, length);
    std::io::copy(&mut bpsh.take_stdout(), &mut check).expect("its output");
    assert_eq!(check.finish(), Ok(()), "standard output");
    feeder.join().expect("the feeder");
    bpsh.wait().expect(Ended::Exited(0));
    let mut check = Check::new(3, length);
    let mut written = std::fs::File::open(cluster.master().path(path)).expect("the file");
    std::io::copy(&mut written, &mut check).expect("a copy");
    assert_eq!(check.finish(), Ok(()), "standard error");
    std::fs::remove_file(cluster.master().path(path)).expect("the file");
}

/// Bytes in a second of a launch that prints this much, by the clock of whoever reads it.
fn rate(cluster: &Cluster, node: &str, bytes: u64) -> f64 {
    let words = [node, "head", "-c", &bytes.to_string(), "/dev/zero"].map(str::to_owned);
    let mut bpsh = cluster.command("bpsh").args(words).limit(VERY_LONG).stdout_pipe().start();
    let began = Instant::now();
    let read = std::io::copy(&mut bpsh.take_stdout(), &mut std::io::sink()).expect("its output");
    let rate = read as f64 / began.elapsed().as_secs_f64();
    bpsh.wait().expect(Ended::Exited(0));
    assert_eq!(read, bytes);
    rate
}

#[test]
fn who_stops_reading_leaves_the_others_their_rate() {
    let cluster = Cluster::attach();
    // The reading launch is on the stopped one's node, and on another.
    for node in ["0", "1"] {
        // Both forms take turns, so that what else the machine does hits both, and each turn is compared with itself: of single
        // rates one lucky or unlucky one would decide. The middle of the turns is taken, of more turns when it looks bad.
        let (mut rates, mut ratios) = (vec![], vec![]);
        let ratio = loop {
            let alone = rate(&cluster, node, 256 << 20);
            let stopped: Vec<_> =
                (0..4).map(|_| cluster.command("bpsh").args(["0-3", "yes"]).stdout_pipe().start()).collect();
            eventually("16 programs print, and nobody reads", LONG, || {
                let waiting = cluster.snapshot().remote().filter(|it| it.name == "yes" && it.state == 'S').count();
                (waiting == 16).then_some(())
            });
            let beside = rate(&cluster, node, 256 << 20);
            drop(stopped);
            eventually("they are gone", LONG, || (cluster.snapshot().remote().count() == 0).then_some(()));
            rates.push(format!("{:.0} and {:.0}", alone / 1e6, beside / 1e6));
            ratios.push(beside / alone);
            let ratio = median(&mut ratios);
            if ratios.len() >= 5 && (ratio >= 0.8 || ratios.len() >= 15) {
                break ratio;
            }
        };
        println!("node {node}: ratio {ratio:.2}, MB/s alone and beside: {}", rates.join(", "));
        assert!(ratio >= 0.8, "node {node}: {ratio:.2}, MB/s alone and beside stopped readers: {}", rates.join(", "));
    }
}

#[test]
fn a_full_output_delays_neither_the_other_output_nor_signals() {
    let cluster = Cluster::attach();
    let script = "trap 'echo told >&2; exit 9' TERM; yes & while :; do echo goes on >&2; sleep .1; done";
    let mut bpsh = cluster.command("bpsh").args(["2", script]).stdout_pipe().start();
    eventually("standard output is full", LONG, || {
        cluster.snapshot().remote().any(|it| it.name == "yes" && it.state == 'S').then_some(())
    });
    let before = bpsh.stderr().len();
    eventually("standard error goes on", LONG, || (bpsh.stderr().len() > before + 30).then_some(()));
    let ghost = process::children_of(bpsh.pid())[0];
    ghost_sys::pidfd::kill(ghost.cast_signed(), 15).expect("the ghost is there");
    eventually("the signal arrives", LONG, || String::from_utf8_lossy(&bpsh.stderr()).contains("told").then_some(()));
    // Nobody will read what is still on its way.
    drop(bpsh.take_stdout());
    assert_eq!(bpsh.ended_within(LONG), Some(Ended::Exited(9)));
}

#[test]
fn who_leaves_early_ends_the_writer() {
    let cluster = Cluster::attach();
    let mut seconds = vec![];
    for _ in 0..10 {
        let began = Instant::now();
        let pipe = cluster.command("bash").args(["-c", "bpsh 0 yes | head -1"]).run();
        seconds.push(began.elapsed().as_secs_f64());
        assert_eq!(pipe.success(), "y\n");
        eventually("yes is dead", Duration::from_secs(1), || {
            (!cluster.snapshot().remote().any(|it| it.name == "yes")).then_some(())
        });
    }
    assert!(median(&mut seconds) < 1.0, "{seconds:?}");
    // And who ignores SIGPIPE gets EPIPE.
    let script = "trap '' PIPE; until ! echo x; do :; done 2> /dev/null; exit 7";
    let line = format!("bpsh 0 \"{script}\" | head -1; echo ${{PIPESTATUS[0]}}");
    assert_eq!(cluster.command("bash").args(["-c", &line]).run().success(), "x\n7\n");
}

#[test]
fn who_reads_no_more_lets_the_others_read_on() {
    let cluster = Cluster::attach();
    let length = 32 << 20;
    // Node 1 reads a little and ends, node 2 closes its input and stays, nodes 0 and 3 read all.
    let script = "case $(hostname) in n1) head -c 100000 > /dev/null;; n2) exec <&-; sleep 2;; *) wc -c;; esac";
    let command = cluster.command("bpsh").args(["-p", "0-3", script]).limit(VERY_LONG);
    let mut bpsh = command.input_pipe().start();
    let feeder = feed(bpsh.take_stdin(), 4, length);
    let shown = bpsh.wait().success();
    feeder.join().expect("the feeder");
    let mut counts: Vec<&str> = shown.lines().collect();
    counts.sort_unstable();
    assert_eq!(counts.len(), 2, "{shown}");
    assert!(counts.iter().all(|line| line.ends_with(&length.to_string())), "{shown}");
}

/// The checkers of this file must see what they are there for.
mod planted {
    use super::*;

    #[test]
    #[should_panic(expected = "above rest")]
    fn memory_of_a_daemon_is_seen() {
        let cluster = Cluster::attach();
        let watch = Watch::begin(&cluster);
        // A program of this name that holds 64 MiB stands for a bpsh that keeps what it should pass on.
        let script = "cp /bin/dd /tmp/bpsh && exec /tmp/bpsh if=/dev/zero of=/dev/null bs=64M count=100000";
        let fat = cluster.command("bash").args(["-c", script]).start();
        eventually("it is fat", LONG, || memory::peak_kib(fat.pid()).filter(|peak| *peak > 64 * 1024));
        watch.end();
    }
}

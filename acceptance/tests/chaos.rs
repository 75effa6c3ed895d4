//! Everything at once: launches, streams, signals, kills of ghosts and of bpsh, while daemons are killed, frozen, replaced, and links are
//! cut. Nothing is lost and nothing is doubled; what is refused says so.
//!
//! `GHOSTPROC_SEED=n` draws the same again (what happens when is the machine's). Faults within the lease may not change any result; the last node also
//! loses its link beyond the lease, and its holder: what ran there then is `lost`, and nothing else is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acceptance::leak::Census;
use acceptance::random::{Random, seed};
use acceptance::work::{LEASE, Recorder, Streams, is_up, link, on_node};
use acceptance::{Cluster, Ended, Finished, User, eventually, process};

const LONG: Duration = Duration::from_secs(120);
/// The most that one launch may take, faults included.
const LIMIT: Duration = Duration::from_secs(180);
/// The node whose processes may be lost; the others may not lose any.
const DOOMED: u32 = 4;
/// What ghostd, or a command that cannot reach it, says of what was not begun.
const REFUSALS: [&str; 5] = [
    "down (",
    "was started again before the process was begun",
    "not started: ",
    "lost the connection to ghostd",
    "ghostd closed the connection",
];

#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// When processes of the doomed node may have been lost: begun, and over if they are.
    losses: Mutex<Vec<(Instant, Option<Instant>)>>,
}

impl Tally {
    fn add(&self, what: &'static str, count: u64) {
        *self.counts.lock().expect("no panic inside").entry(what).or_default() += count;
    }

    fn of(&self, what: &str) -> u64 {
        self.counts.lock().expect("no panic inside").get(what).copied().unwrap_or(0)
    }

    fn loss<T>(&self, work: impl FnOnce() -> T) -> T {
        let which = {
            let mut losses = self.losses.lock().expect("no panic inside");
            losses.push((Instant::now(), None));
            losses.len() - 1
        };
        let done = work();
        self.losses.lock().expect("no panic inside")[which].1 = Some(Instant::now());
        done
    }

    fn may_lose(&self, node: u32, began: Instant) -> bool {
        let overlaps = |(_, end): &(Instant, Option<Instant>)| end.is_none_or(|end| end > began);
        node == DOOMED && self.losses.lock().expect("no panic inside").iter().any(overlaps)
    }

    /// `true`: it came out as it was to. `false`: it was refused, or lost with its node, and says so.
    fn judge(&self, node: u32, began: Instant, finished: Finished, wanted: Ended) -> bool {
        let said = finished.error_text();
        if finished.ended == wanted && said.is_empty() {
            return true;
        }
        let refused = finished.ended == Ended::Exited(125) && REFUSALS.iter().any(|text| said.contains(text));
        if refused && finished.stdout.is_empty() {
            self.add("launches refused", 1);
            return false;
        }
        if said.contains(&format!("{node}: lost")) && self.may_lose(node, began) {
            self.add("lost with their node", 1);
            return false;
        }
        finished.expect(wanted);
        panic!("node {node}: it says {said:?}");
    }
}

struct Chaos<'a> {
    cluster: &'a Cluster,
    tally: &'a Tally,
    over: &'a AtomicBool,
    seed: u64,
}

impl Chaos<'_> {
    /// One that fails ends them all.
    fn work(&self, work: impl FnOnce()) {
        if let Err(harm) = catch_unwind(AssertUnwindSafe(work)) {
            self.over.store(true, Ordering::Relaxed);
            resume_unwind(harm);
        }
    }

    fn runs(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn random(&self, which: u64) -> Random {
        Random::new(self.seed ^ which.rotate_left(32))
    }

    fn node(random: &mut Random) -> u32 {
        u32::try_from(random.below(5)).expect("a small number")
    }

    /// Exit statuses.
    fn statuses(&self, which: u64) {
        let mut random = self.random(which);
        while self.runs() {
            let (node, code) = (Self::node(&mut random), random.below(256));
            let began = Instant::now();
            let command =
                self.cluster.command("bpsh").args([node.to_string(), "probe".into(), "exit".into(), code.to_string()]);
            let finished = command.user(User::ordinary()).limit(LIMIT).run();
            self.tally.add("launches", 1);
            if self.tally.judge(node, began, finished, Ended::Exited(code as i32)) {
                self.tally.add("statuses", 1);
            }
        }
    }

    /// Bytes there and back.
    fn bytes(&self, which: u64) {
        let mut random = self.random(which);
        while self.runs() {
            let node = Self::node(&mut random);
            let length = 1 << random.below(24);
            let bytes = random.bytes(length);
            let began = Instant::now();
            let command = self.cluster.command("bpsh").args([&node.to_string(), "cat"]).input(bytes.clone());
            let finished = command.user(User::ordinary()).limit(LIMIT).run();
            self.tally.add("launches", 1);
            let came = finished.stdout.clone();
            if self.tally.judge(node, began, finished, Ended::Exited(0)) {
                assert!(came == bytes, "node {node}: {length} bytes went, {} others came back", came.len());
                self.tally.add("bytes", 2 * length as u64);
            }
        }
    }

    /// Ghosts and launchers that are killed, and ghosts that are stopped.
    fn kills(&self, which: u64) {
        let mut random = self.random(which);
        while self.runs() {
            let node = Self::node(&mut random);
            let began = Instant::now();
            let how = random.below(3);
            // With bpsh all of a tree goes; a ghost that is killed leaves its children to init, as a local process does.
            let script = if how == 0 { "sleep 1000 & echo begun; wait" } else { "echo begun; exec sleep 1000" };
            let command = self.cluster.command("bpsh").args([&node.to_string(), "sh", "-c", script]);
            let mut bpsh = command.user(User::ordinary()).limit(LIMIT).start();
            self.tally.add("launches", 1);
            let begun = acceptance::poll_until(LONG, || {
                if bpsh.stdout().ends_with(b"begun\n") {
                    return Some(true);
                }
                bpsh.ended().map(|_| false)
            });
            if begun != Some(true) {
                self.tally.judge(node, began, bpsh.wait(), Ended::Exited(0));
                continue;
            }
            let ghosts = process::children_of(bpsh.pid());
            let signals: &[i32] = match how {
                0 => {
                    bpsh.kill();
                    bpsh.wait().expect(Ended::Signaled(9));
                    self.tally.add("launchers killed", 1);
                    continue;
                }
                1 => &[9],
                _ => &[19, 18, 15],
            };
            for ghost in ghosts {
                for signal in signals {
                    // It may have been lost just now.
                    let _ = ghost_sys::pidfd::kill(ghost.cast_signed(), *signal);
                }
            }
            let wanted = Ended::Signaled(signals[signals.len() - 1]);
            if self.tally.judge(node, began, bpsh.wait(), wanted) {
                self.tally.add("ghosts killed", 1);
            }
        }
    }

    /// Real-time signals, counted by one program all the while.
    fn signals(&self, which: u64) {
        let mut random = self.random(which);
        let mut recorder = Recorder::begin(self.cluster, "1");
        while self.runs() {
            recorder.send(self.cluster, 1 + random.below(50) as u32);
            std::thread::sleep(Duration::from_millis(random.below(300)));
        }
        recorder.judge();
        self.tally.add("signals", recorder.sent.into());
    }

    /// Streams to four nodes that flow all the while.
    fn streams(&self) {
        let streams = Streams::begin(self.cluster);
        while self.runs() {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.tally.add("lines", streams.end());
    }

    /// Whoever looks is never made to wait for long.
    fn looks(&self) {
        while self.runs() {
            let began = Instant::now();
            self.cluster.command("ps").args(["xo", "pid,stat,args"]).limit(LIMIT).run().success();
            assert!(began.elapsed() < LEASE, "ps hangs: {:?}", began.elapsed());
            self.tally.add("looks", 1);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// One fault after the other.
    fn faults(&self, which: u64, long: bool) {
        let mut random = self.random(which);
        let mut last_loss = Instant::now();
        while self.runs() {
            std::thread::sleep(Duration::from_millis(random.below(2_000)));
            let master = self.cluster.master();
            let node = Self::node(&mut random);
            let pause = Duration::from_millis(100 + random.below(1_900));
            match random.below(8) {
                0 | 1 => {
                    master.control("kill SIGKILL");
                    self.tally.add("ghostd killed", 1);
                }
                2 => {
                    self.cluster.command("bpctl").arg("handover").limit(LIMIT).run();
                    self.tally.add("ghostd handed over", 1);
                }
                3 => {
                    master.control("restart");
                    self.tally.add("ghostd restarted", 1);
                }
                4 => {
                    self.cluster.node(node).control("kill SIGKILL");
                    self.tally.add("agents killed", 1);
                }
                5 => {
                    let which = if random.below(2) == 0 { master } else { self.cluster.node(node) };
                    // It may be dead still of what came before.
                    if let Some(pid) = which.running_daemon() {
                        freeze(pid, pause);
                        self.tally.add("daemons frozen", 1);
                    }
                }
                6 => {
                    let holder = self.holder(node);
                    holder.into_iter().for_each(|pid| freeze(pid, pause));
                    self.tally.add("holders frozen", 1);
                }
                _ => {
                    link(self.cluster, node, "down");
                    std::thread::sleep(pause);
                    link(self.cluster, node, "up");
                    self.tally.add("links cut", 1);
                }
            }
            eventually("ghostd runs", LONG, || (master.control("status").state == "running").then_some(()));
            if long && last_loss.elapsed() > Duration::from_secs(60) {
                self.lose(random.below(2) == 0);
                last_loss = Instant::now();
            }
        }
    }

    /// The doomed node's processes are lost.
    fn lose(&self, by_cut: bool) {
        self.tally.loss(|| {
            if by_cut {
                link(self.cluster, DOOMED, "down");
                // The lease, and the master's margin; then its verdict is given.
                std::thread::sleep(LEASE * 2);
                link(self.cluster, DOOMED, "up");
                self.tally.add("links cut beyond the lease", 1);
            } else if let Some(holder) = self.holder(DOOMED) {
                let _ = ghost_sys::pidfd::kill(holder.cast_signed(), 9);
                self.tally.add("holders killed", 1);
            }
            eventually("the doomed node is up again", LONG, || is_up(self.cluster, DOOMED).then_some(()));
        });
    }

    fn holder(&self, node: u32) -> Option<u32> {
        let name = format!("n{node}");
        self.cluster.snapshot().of(&name).find(|process| process.is_holder()).map(|process| process.pid)
    }
}

fn freeze(pid: u32, pause: Duration) {
    if ghost_sys::pidfd::kill(pid.cast_signed(), 19).is_ok() {
        std::thread::sleep(pause);
        let _ = ghost_sys::pidfd::kill(pid.cast_signed(), 18);
    }
}

const DAEMONS: [&str; 5] = ["ghostd", "pin-opener", "ghost-view", "nodeagent", "ghost-holder"];

/// How many of each there are.
fn daemons(cluster: &Cluster) -> [usize; DAEMONS.len()] {
    let all = cluster.snapshot().processes;
    DAEMONS.map(|name| all.iter().filter(|process| process.name == name).count())
}

#[test]
fn nothing_is_lost_or_doubled() {
    let cluster = Cluster::attach();
    let seed = seed();
    cluster.command("bpsh").args(["0-4", "true"]).user(User::ordinary()).run().success();
    let (before, running) = (Census::take(&cluster), daemons(&cluster));
    let objects = before.bpf_objects(&cluster);
    assert!(running.iter().all(|count| *count > 0), "{running:?}");
    let (tally, over) = (Tally::default(), AtomicBool::new(false));
    let chaos = Chaos { cluster: &cluster, tally: &tally, over: &over, seed };
    let long = acceptance::long();
    let length = Duration::from_secs(if long { 15 * 60 } else { 30 });
    let began = Instant::now();
    std::thread::scope(|scope| {
        let chaos = &chaos;
        scope.spawn(|| chaos.work(|| chaos.statuses(1)));
        scope.spawn(|| chaos.work(|| chaos.statuses(2)));
        scope.spawn(|| chaos.work(|| chaos.bytes(3)));
        scope.spawn(|| chaos.work(|| chaos.kills(4)));
        scope.spawn(|| chaos.work(|| chaos.signals(5)));
        scope.spawn(|| chaos.work(|| chaos.streams()));
        scope.spawn(|| chaos.work(|| chaos.looks()));
        scope.spawn(|| chaos.work(|| chaos.faults(6, long)));
        while began.elapsed() < length && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut told = String::new();
    for (what, count) in tally.counts.lock().expect("no panic inside").iter() {
        write!(told, "{what} {count}, ").expect("memory");
    }
    println!("soak: chaos of {} s: {told}lost or doubled 0", began.elapsed().as_secs());
    for what in ["statuses", "bytes", "ghosts killed", "signals", "lines", "looks"] {
        assert!(tally.of(what) > 0, "nothing was tried of: {what}");
    }
    eventually("nothing is left on any node", LONG, || {
        (0..5).all(|node| on_node(&cluster, node).is_empty()).then_some(())
    });
    let (mut more, mut objects_now) = (Vec::new(), BTreeMap::new());
    let clean = acceptance::poll_until(LONG, || {
        let now = Census::take(&cluster);
        more = now.more_than(&before, &cluster);
        // Daemons that were killed are other processes now, with other kernel programs, as many as before.
        let named = |line: &str| DAEMONS.iter().any(|name| line.contains(name)) || line.starts_with("BPF object");
        more.retain(|line| !named(line));
        objects_now = now.bpf_objects(&cluster);
        (more.is_empty() && daemons(&cluster) == running && objects_now == objects).then_some(())
    });
    let counts = (daemons(&cluster), objects_now);
    assert!(clean.is_some(), "{more:#?}; {counts:?} instead of {:?}", (running, objects));
}

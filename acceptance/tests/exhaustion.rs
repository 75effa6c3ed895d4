//! What happens when something runs out: connections, processes, descriptors, room on a disk. A clear error or a clean end, nothing
//! stuck, nobody else concerned; and it works again afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use acceptance::health::{Health, hostile, works};
use acceptance::work::{Recorder, is_up};
use acceptance::{Cluster, Cmd, Ended, Finished, Running, User, eventually, leak, memory};

const LONG: Duration = Duration::from_secs(60);
/// Lines that one place of a daemon may log at once, and after which time it may log another one (ghost-log).
const BURST: usize = 500;
const PERIOD: Duration = Duration::from_secs(5);

fn bpsh(cluster: &Cluster, words: &[&str]) -> Cmd {
    cluster.command("bpsh").args(words).user(User::ordinary())
}

/// One whom nothing else here has to do with.
fn somebody(uid: u32) -> User {
    User { uid, gid: uid, groups: vec![uid] }
}

/// How many connections one of these has left, once it has made all.
fn held(idle: &Running) -> Option<usize> {
    let text = String::from_utf8_lossy(&idle.stdout()).into_owned();
    text.lines().rev().find_map(|line| line.strip_suffix(" held")?.parse().ok())
}

/// Five users with 2,000 connections each, or as many as they get; all that are refused have been told so.
fn crowd(cluster: &Cluster) -> Vec<Running> {
    let crowd: Vec<Running> =
        (2001..=2005).map(|uid| hostile(cluster, &["idle", "2000"]).user(somebody(uid)).start()).collect();
    let mut last = Vec::new();
    let mut since = Instant::now();
    eventually("all have connected", LONG, || {
        let now: Vec<Option<usize>> = crowd.iter().map(held).collect();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (last.iter().all(Option::is_some) && since.elapsed() > Duration::from_millis(500)).then_some(())
    });
    crowd
}

#[test]
fn ten_thousand_idle_commands_harm_nobody() {
    let cluster = Cluster::attach();
    let ghostd = cluster.master().daemon();
    // Agents need connections too, or their leases run out.
    let there = crowd(&cluster);
    cluster.node(3).control("restart");
    eventually("the node is up again", LONG, || is_up(&cluster, 3).then_some(()));
    drop(there);

    let health = Health::of(&cluster);
    memory::forget_peak(ghostd);
    let there = crowd(&cluster);
    let counts: Vec<usize> = there.iter().filter_map(held).collect();
    let limits = fs::read_to_string(format!("/proc/{ghostd}/limits")).expect("ghostd runs");
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let limit: usize = row.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(usize::MAX);
    let used: usize = leak::descriptors(ghostd).values().sum();
    let peak = memory::peak_kib(ghostd).expect("ghostd runs");
    println!(
        "connections {counts:?}; ghostd: {used} descriptors of {limit}, {} KiB, then {peak} KiB",
        health.memory_kib[0]
    );
    assert!(counts.iter().all(|count| (1..=2000).contains(count)), "each user has some, and none too many");
    assert!(used <= limit - limit / 4, "some are left");
    assert!(peak <= health.memory_kib[0] + 32 * 1024 + 8 * counts.iter().sum::<usize>() as u64, "memory: {peak} KiB");
    for _ in 0..5 {
        works(&cluster);
    }
    // One more user finds room.
    hostile(&cluster, &["socket", "1", "20"]).user(somebody(2006)).run().success();
    drop(there);
    health.must_be_as_before(&cluster);
}

#[test]
fn thousands_of_idle_connections_on_the_port_harm_nobody() {
    let cluster = Cluster::attach();
    let ghostd = cluster.master().daemon();
    let address = format!("{}:2223", cluster.master().address);
    let lines = || {
        let text = String::from_utf8_lossy(&fs::read(&cluster.master().log).unwrap_or_default()).into_owned();
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines() {
            for kind in ["too many connections", "within 10 s", "TLS handshake"] {
                *kinds.entry(kind).or_default() += usize::from(line.contains(kind));
            }
        }
        kinds.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect::<BTreeMap<String, usize>>()
    };
    let health = Health::of(&cluster);
    memory::forget_peak(ghostd);
    let (began, before) = (Instant::now(), lines());
    // Twice: what the first has used of the heap is not new to the second.
    // A full queue of connections makes the kernel try again after seconds: all ten thousand are for the long form.
    for count in ["600", if acceptance::long() { "10000" } else { "2000" }] {
        let mut idle = hostile(&cluster, &["idle", count, &address]).start();
        eventually("all have connected", 4 * LONG, || held(&idle).filter(|count| *count <= 512));
        for _ in 0..3 {
            works(&cluster);
        }
        let peak = memory::peak_kib(ghostd).expect("ghostd runs");
        println!("ghostd: {} KiB, then {peak} KiB", health.memory_kib[0]);
        assert!(peak <= health.memory_kib[0] + 48 * 1024, "memory: {peak} KiB");
        idle.kill();
    }
    health.must_be_as_before(&cluster);
    let allowed = BURST + 1 + (began.elapsed().as_secs() / PERIOD.as_secs()) as usize;
    for (kind, after) in lines() {
        let logged = after - before[&kind];
        println!("{kind}: {logged} lines");
        assert!(logged <= allowed, "{kind}: {logged} lines in the log, {allowed} at most");
        assert!(kind != "too many connections" || logged > 0, "nothing tells of it");
    }
}

/// As a command that fails, not as one that breaks (a panic is 101 or SIGABRT).
#[track_caller]
fn failed_properly(finished: &Finished) {
    let properly = matches!(finished.ended, Ended::Exited(1..=100 | 102..) | Ended::Signaled(nix::libc::SIGPIPE));
    assert!(properly, "{:?}: {}", finished.ended, finished.error_text());
}

#[track_caller]
fn said_why(finished: &Finished) {
    failed_properly(finished);
    assert!(!finished.error_text().trim().is_empty(), "{:?} without a word", finished.ended);
}

#[test]
fn a_user_at_his_limit_of_processes_is_told_so() {
    let cluster = Cluster::attach();
    let health = Health::of(&cluster);
    // The shell becomes bpsh, which is one; the ghosts and the remote processes are eight more, all of the same user.
    let script = |limit: u32| format!("ulimit -u {limit}; exec bpsh 0-3 sleep 0.1");
    let run = |limit| cluster.command("bash").args(["-c", &script(limit)]).user(somebody(2010)).limit(LONG).run();
    for limit in [1, 2, 4, 6] {
        said_why(&run(limit));
    }
    assert_eq!(run(100).ended, Ended::Exited(0));
    health.must_be_as_before(&cluster);
}

#[test]
fn a_command_with_few_descriptors_works_or_says_why() {
    let cluster = Cluster::attach();
    let health = Health::of(&cluster);
    for limit in 3..24 {
        let script = format!("ulimit -n {limit}; exec bpsh -s 0-3 hostname");
        let finished = cluster.command("bash").args(["-c", &script]).user(User::other()).limit(LONG).run();
        match finished.ended {
            Ended::Exited(0) => assert_eq!(finished.text(), "n0\nn1\nn2\nn3\n", "{limit} descriptors"),
            _ => said_why(&finished),
        }
    }
    health.must_be_as_before(&cluster);
}

/// What a node may be short of.
#[derive(Clone, Copy)]
enum Resource {
    /// No more tasks than there are now.
    Tasks,
    /// So many MiB for all that begins from now on.
    Memory(u64),
}

impl Resource {
    /// The controller's name, its limit in the older version of the hierarchy and in the newer.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Resource::Tasks => ("pids", "pids.max", "pids.max"),
            Resource::Memory(_) => ("memory", "memory.limit_in_bytes", "memory.max"),
        }
    }
}

/// A node that is short of something.
struct Scarcity {
    group: PathBuf,
    limit: &'static str,
    /// Where its processes came from, if it was made for this.
    from: Option<PathBuf>,
}

impl Scarcity {
    /// By the version of the hierarchy that has the controller here.
    fn on(cluster: &Cluster, node: u32, resource: Resource) -> Scarcity {
        let member = cluster.node(node);
        let (controller, older, newer) = resource.names();
        let old = PathBuf::from("/sys/fs/cgroup").join(controller);
        let (group, limit, from) = if old.is_dir() {
            let group = old.join(format!("ghostproc-{}-{}", cluster.id, member.name));
            fs::create_dir_all(&group).expect("a cgroup for the node");
            for process in cluster.snapshot().of(&member.name) {
                // One that has ended meanwhile.
                let _ = fs::write(group.join("cgroup.procs"), process.pid.to_string());
            }
            (group, older, Some(old))
        } else {
            let mut above: Vec<_> =
                member.cgroup.ancestors().skip(1).filter(|p| p.join("cgroup.procs").exists()).collect();
            above.reverse();
            for group in above {
                fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).expect("the controller");
            }
            (member.cgroup.clone(), newer, None)
        };
        let most = match resource {
            Resource::Tasks => fs::read_to_string(group.join("pids.current")).expect("the number of tasks"),
            Resource::Memory(mebibytes) => {
                let now = fs::read_to_string(group.join("memory.current")).unwrap_or_default();
                (now.trim().parse().unwrap_or(0) + (mebibytes << 20)).to_string()
            }
        };
        fs::write(group.join(limit), most.trim()).expect("the limit");
        Scarcity { group, limit, from }
    }
}

impl Drop for Scarcity {
    fn drop(&mut self) {
        for none in ["max", "-1"] {
            let _ = fs::write(self.group.join(self.limit), none);
        }
        if let Some(from) = &self.from {
            for _ in 0..100 {
                for pid in fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default().lines() {
                    let _ = fs::write(from.join("cgroup.procs"), pid);
                }
                if fs::remove_dir(&self.group).is_ok() {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_node_without_pids_refuses_and_keeps_what_it_has() {
    let cluster = Cluster::attach();
    works(&cluster);
    let mut recorder = Recorder::begin(&cluster, "1");
    let limit = Scarcity::on(&cluster, 1, Resource::Tasks);
    for _ in 0..3 {
        said_why(&bpsh(&cluster, &["1", "true"]).limit(LONG).run());
        assert_eq!(bpsh(&cluster, &["0", "true"]).run().ended, Ended::Exited(0), "another node");
    }
    recorder.send(&cluster, 50);
    // A connection that has to be made anew must not need what there is not.
    let agent = cluster.node(1).daemon();
    cluster.master().control("restart");
    recorder.send(&cluster, 50);
    eventually("ghostd runs", LONG, || (bpsh(&cluster, &["0", "true"]).run().ended == Ended::Exited(0)).then_some(()));
    said_why(&bpsh(&cluster, &["1", "true"]).limit(LONG).run());
    cluster.command("ps").args(["aux"]).run().success();
    assert_eq!(cluster.node(1).daemon(), agent, "the agent was started again");
    drop(limit);
    recorder.send(&cluster, 50);
    recorder.judge();
    works(&cluster);
}

#[test]
fn on_a_node_without_memory_who_takes_it_all_is_killed_and_nobody_else() {
    let cluster = Cluster::attach();
    works(&cluster);
    let mut recorder = Recorder::begin(&cluster, "1");
    let agent = cluster.node(1).daemon();
    let limit = Scarcity::on(&cluster, 1, Resource::Memory(96));
    for _ in 0..2 {
        // It keeps what it reads until a line ends.
        let glutton = bpsh(&cluster, &["1", "tail", "-n1", "/dev/zero"]).limit(LONG).run();
        glutton.expect(Ended::Signaled(9));
        recorder.send(&cluster, 50);
    }
    // Output that nobody takes is kept for a while: not without bound.
    let script = "bpsh 1 head -c 200M /dev/zero | { sleep 1; wc -c; }";
    let flood = cluster.command("sh").args(["-c", script]).limit(LONG).start();
    recorder.send(&cluster, 50);
    assert_eq!(flood.wait().success().trim(), (200 << 20).to_string());
    assert_eq!(bpsh(&cluster, &["1", "true"]).run().ended, Ended::Exited(0), "launches go on there");
    assert_eq!(cluster.node(1).daemon(), agent, "the agent was started again");
    drop(limit);
    recorder.judge();
    works(&cluster);
}

/// A small disk in place of the directory where ghostd keeps its members; it is full.
struct FullDisk<'a>(&'a Cluster);

impl FullDisk<'_> {
    fn begin(cluster: &Cluster) -> FullDisk<'_> {
        let script = "cp -a /var/lib/ghostproc /tmp/kept && mount -t tmpfs -o size=256k,mode=700 small /var/lib/ghostproc \
                      && cp -a /tmp/kept/. /var/lib/ghostproc/ && { head -c 1M /dev/zero > /var/lib/ghostproc/filler; true; }";
        cluster.command("sh").args(["-c", script]).run().success();
        FullDisk(cluster)
    }

    fn make_room(&self) {
        self.0.command("rm").arg("/var/lib/ghostproc/filler").run().success();
    }
}

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        let script = "umount /var/lib/ghostproc; rm -rf /tmp/kept";
        self.0.command("sh").args(["-c", script]).run();
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_done() {
    let cluster = Cluster::attach();
    let health = Health::of(&cluster);
    let disk = FullDisk::begin(&cluster);
    let listed = || cluster.command("bpctl").args(["nodes", "list"]).run().success();
    let before = listed();
    for words in [&["token"][..], &["nodes", "add", "70-99"], &["nodes", "revoke", "4"]] {
        let refused = cluster.command("bpctl").args(words).run();
        said_why(&refused);
        assert!(refused.error_text().contains("No space left"), "{words:?}: {}", refused.error_text());
    }
    assert_eq!(listed(), before, "what could not be kept has not happened");
    let left = cluster.command("ls").args(["-A", "/var/lib/ghostproc"]).run().success();
    assert!(!left.contains(".new"), "something half written was left: {left}");
    works(&cluster);
    disk.make_room();
    assert!(cluster.command("bpctl").arg("token").run().success().starts_with("ghostproc-join-"));
    drop(disk);
    health.must_be_as_before(&cluster);
}

#[test]
fn output_to_a_full_disk_ends_with_an_error() {
    let cluster = Cluster::attach();
    let health = Health::of(&cluster);
    for program in ["bpsh 0 seq 1 200000", "bpsh 0-3 echo x", "bpstat", "bpctl nodes list", "bpctl token"] {
        let script = format!("exec {program} > /dev/full");
        let finished = cluster.command("sh").args(["-c", &script]).limit(LONG).run();
        said_why(&finished);
        // Nor when nobody can be told.
        let script = format!("exec {program} > /dev/full 2> /dev/full");
        failed_properly(&cluster.command("sh").args(["-c", &script]).limit(LONG).run());
    }
    health.must_be_as_before(&cluster);
}

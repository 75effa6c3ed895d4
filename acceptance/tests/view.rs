//! `/proc/GHOST` shows the node's process: to ps, top and the others, and only to those who may see it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use acceptance::leak::Census;
use acceptance::process::{children_of, own_number_of};
use acceptance::shown::{Shown, is_shown, ps, sh, views};
use acceptance::{Cluster, Ended, Process, User, eventually};
use ghost_sys::pidfd::kill;

const LONG: Duration = Duration::from_secs(20);
/// What somebody who looks may have to wait in the worst case: the server is given up after 2 s.
const WORST: Duration = Duration::from_secs(3);
/// What nobody ever waits for when nothing is wrong with the view itself, however the nodes are.
const SHORT: Duration = Duration::from_millis(1500);
const KILL: i32 = 9;
const STOP: i32 = 19;
const CONT: i32 = 18;

/// Processes of the view on the master, in the host's numbers: the guard and the server.
fn view_processes(cluster: &Cluster) -> (u32, u32) {
    eventually("guard and server run", LONG, || {
        let snapshot = cluster.snapshot();
        let mut found = HashMap::new();
        for process in snapshot.of("master").filter(|process| process.name == "ghost-view" && process.state != 'Z') {
            let words = fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
            let part = words.split(|&b| b == 0).nth(1)?.to_vec();
            found.insert(part, process.pid);
        }
        Some((*found.get(&b"guard"[..])?, *found.get(&b"serve"[..])?))
    })
}

fn send(pid: u32, signal: i32) {
    kill(pid.cast_signed(), signal).expect("kill");
}

/// A process that is stopped for as long as this is there.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Stopped {
        send(pid, STOP);
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0.cast_signed(), CONT);
    }
}

#[test]
fn ps_shows_the_nodes_process_with_this_hosts_identity() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 1, &["sh", "-c", "read line; : a-long-word"]);
    let process = shown.process(&cluster);
    let own = |pid: u32| Process::read(pid).and_then(|process| process.numbers.last().copied()).expect("alive");
    let columns = "pid,ppid,pgid,uid,gid,stat,nlwp,rss,comm";
    let expected = [
        shown.ghost.to_string(),
        own(shown.running.pid()).to_string(),
        own(shown.running.pid()).to_string(),
        "1000".into(),
        "1000".into(),
        "S".into(),
        "1".into(),
        process.rss_kib.to_string(),
        "sh".into(),
    ];
    assert_eq!(shown.ps(&cluster, columns), expected);
    assert_eq!(shown.ps(&cluster, "args").join(" "), "sh -c read line; : a-long-word");
    assert!(shown.ps(&cluster, "wchan")[0].len() > 1);
    let vsz: u64 = shown.ps(&cluster, "vsz")[0].parse().expect("KiB");
    assert!(vsz > process.rss_kib, "{vsz}");
    // When it began is when its ghost did: a few seconds ago, whatever the node's uptime.
    let elapsed: u64 = shown.ps(&cluster, "etimes")[0].parse().expect("seconds");
    assert!(elapsed < 60, "{elapsed}");
    let parent = own(shown.running.pid()).to_string();
    let began = |pid: &str| ps(&cluster, &["-o", "lstart=", "-p", pid]).success();
    let (of_ghost, of_parent) = (began(&shown.ghost.to_string()), began(&parent));
    assert_eq!(of_ghost[..16], of_parent[..16], "{of_ghost} and {of_parent}");

    // Those that look through the whole of /proc.
    let number = shown.ghost.to_string();
    let all = ps(&cluster, &["aux"]).success();
    let line = all.lines().find(|line| line.split_whitespace().nth(1) == Some(&number)).expect("in ps aux").to_owned();
    assert!(line.contains("sh -c read line; : a-long-word"), "{line}");
    let found = cluster.command("pgrep").args(["-f", "^sh -c read line; : a-long-word"]).run().success();
    assert_eq!(found.trim(), number);
    let pids = cluster.command("pidof").arg("sh").run().success();
    assert!(pids.split_whitespace().any(|pid| pid == number), "{pids}");
    let tree = cluster.command("pstree").args(["-p", &parent]).run().success();
    assert!(tree.contains(&format!("sh({number})")), "{tree}");
    let top = cluster.command("top").args(["-b", "-n1", "-p", &number]).run().success();
    let line = top.lines().last().unwrap_or_default().to_owned();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words.first().copied(), words.last().copied()), (Some(number.as_str()), Some("sh")), "{top}");

    // Identity is this host's.
    let cat = |path: &str| cluster.command("cat").arg(path).run().success();
    let own_cgroup = cat(&format!("/proc/{parent}/cgroup"));
    assert_eq!(cat(&shown.path("cgroup")), own_cgroup);
    let status = cat(&shown.path("status"));
    let line = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("Uid:"), ["1000"; 4]);
    assert_eq!((line("Pid:"), line("Tgid:"), line("PPid:")), (vec![number.clone()], vec![number], vec![parent]));
    assert_eq!(line("Groups:"), ["1000", "2000", "3000"]);
    assert_eq!(line("Name:"), ["sh"]);
    shown.end();
}

#[test]
fn the_state_and_the_time_follow_the_process() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "hog"]);
    let state = || shown.ps(&cluster, "stat,cputimes,pcpu");
    let within = |what: &str, wanted: char| {
        let began = Instant::now();
        eventually(what, LONG, || state()[0].starts_with(wanted).then_some(()));
        began.elapsed()
    };
    within("it runs", 'R');
    let used = |words: &[String]| words[1].parse::<u64>().expect("seconds");
    let first = used(&state());
    eventually("its time grows", LONG, || (used(&state()) >= first + 2).then_some(()));
    // By the node, not through the ghost.
    let process = shown.process(&cluster).pid;
    send(process, STOP);
    within("it is stopped", 'T');
    let stopped = used(&state());
    std::thread::sleep(Duration::from_millis(2100));
    assert!(used(&state()) <= stopped + 1, "a stopped process uses no time");
    send(process, CONT);
    within("it runs again", 'R');
}

#[test]
fn one_that_waits_in_the_kernel_and_one_that_nobody_waits_for() {
    let cluster = Cluster::attach();
    let states = |parent: u32, state: char| {
        let number = parent.to_string();
        let text = ps(&cluster, &["-o", "stat=", "-p", &number, "--ppid", &number]).text();
        text.lines().map(|line| line.chars().next().unwrap_or(' ')).filter(|seen| *seen == state).count()
    };
    let shown = Shown::start(&cluster, User::ordinary(), 1, &["probe", "suspended"]);
    let process = shown.process(&cluster);
    eventually("it waits there", LONG, || (acceptance::process::state_of(process.pid)? == 'D').then_some(()));
    eventually("its ghost does", LONG, || (states(shown.ghost, 'D') == 1).then_some(()));
    let child = eventually("its child is a child here", LONG, || {
        let text = cluster.command("cat").arg(shown.path(&format!("task/{}/children", shown.ghost))).run().text();
        text.trim().parse::<u32>().ok()
    });
    eventually("which is shown", LONG, || is_shown(&cluster, child).then_some(()));
    eventually("and sleeps", LONG, || (states(shown.ghost, 'S') == 1).then_some(()));
    shown.end();

    let mut shown = Shown::start(&cluster, User::ordinary(), 1, &["probe", "unwaited"]);
    eventually("both sleep", LONG, || (states(shown.ghost, 'S') == 2).then_some(()));
    drop(shown.running.take_stdin());
    eventually("the child waits to be waited for", LONG, || (states(shown.ghost, 'Z') == 1).then_some(()));
    assert_eq!(states(shown.ghost, 'S'), 1);
    shown.running.kill();
}

/// `renice` of a ghost by somebody who has, in a namespace of users of his own, the capabilities that its ghost has:
/// `cap_safe_nice()` asks for nothing else.
fn renice_in_namespace(cluster: &Cluster, value: &str, ghost: u32) -> Ended {
    let words = ["-Ur", "renice", "-n", value, "-p", &ghost.to_string()];
    cluster.command("unshare").args(words).user(User::ordinary()).run().ended
}

/// `renice` of a ghost on the master.
fn renice(cluster: &Cluster, user: User, value: &str, ghost: u32) -> Ended {
    cluster.command("renice").args(["-n", value, "-p", &ghost.to_string()]).user(user).run().ended
}

fn nice(pid: u32) -> i32 {
    ghost_sys::priority::nice_of(pid).expect("it lives")
}

#[test]
fn a_ghost_that_is_reniced_renices_its_process() {
    let cluster = Cluster::attach();
    // The kernel lets a user without it renice no process that has a capability, as ghosts of the installed bpsh have
    // (security/commoncap.c, cap_safe_nice()): a copy has none.
    let copy = "p=$(command -v bpsh) && rm -f /tmp/plain-bpsh && cp \"$p\" /tmp/plain-bpsh";
    sh(&cluster, User::root(), copy).run().success();
    let plain = cluster.command("/tmp/plain-bpsh").args(["3", "probe", "wait"]).user(User::ordinary());
    let shown = Shown::of(&cluster, plain.input_pipe().start());
    let process = shown.process(&cluster);
    let nicer = (nice(process.pid) + 7).min(19).to_string();
    assert_eq!(renice(&cluster, User::ordinary(), &nicer, shown.ghost), Ended::Exited(0));
    eventually("the process is nicer", LONG, || (nice(process.pid).to_string() == nicer).then_some(()));
    eventually("ps says so", LONG, || (shown.ps(&cluster, "ni") == [nicer.clone()]).then_some(()));
    // Who may not do it to the ghost does not do it to the process.
    assert_ne!(renice(&cluster, User::other(), "19", shown.ghost), Ended::Exited(0));
    assert_ne!(renice(&cluster, User::ordinary(), "-20", shown.ghost), Ended::Exited(0));
    assert_eq!(nice(process.pid).to_string(), nicer);
    assert_eq!(renice(&cluster, User::root(), "-3", shown.ghost), Ended::Exited(0));
    eventually("the process is less nice", LONG, || (nice(process.pid) == -3).then_some(()));
    shown.end();
}

/// The way round what the kernel refuses to a user at a ghost with a capability; his rights stay what they are.
#[test]
fn a_user_renices_his_ghosts_in_a_namespace_of_users() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 1, &["probe", "wait"]);
    let of_root = Shown::start(&cluster, User::root(), 1, &["probe", "wait"]);
    let process = shown.process(&cluster);
    let before = nice(process.pid);
    let nicer = (before + 7).min(19).to_string();
    assert_eq!(renice_in_namespace(&cluster, &nicer, shown.ghost), Ended::Exited(0));
    eventually("the process is nicer", LONG, || (nice(process.pid).to_string() == nicer).then_some(()));
    assert_ne!(renice_in_namespace(&cluster, &before.to_string(), shown.ghost), Ended::Exited(0), "RLIMIT_NICE");
    assert_ne!(renice_in_namespace(&cluster, "19", of_root.ghost), Ended::Exited(0), "somebody else's");
    assert_eq!(nice(process.pid).to_string(), nicer);
    shown.end();
    of_root.end();
}

#[test]
fn nice_values_of_parent_and_child_are_their_own() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::root(), 3, &["probe", "family", "1"]);
    let process = shown.process(&cluster);
    let child = eventually("its child", LONG, || children_of(process.pid).first().copied());
    let ghost_of_child = own_number_of(child).expect("it lives");
    eventually("the child is shown", LONG, || is_shown(&cluster, ghost_of_child).then_some(()));
    let own = nice(std::process::id());
    assert_eq!((nice(process.pid), nice(child)), (own, own));
    assert_eq!(renice(&cluster, User::root(), "5", shown.ghost), Ended::Exited(0));
    eventually("the parent is nicer", LONG, || (nice(process.pid) == 5).then_some(()));
    assert_eq!(nice(child), own);
    // What the process makes of itself stays until somebody changes the ghost.
    ghost_sys::priority::set_nice_of(child, 4).expect("root may");
    assert_eq!(renice(&cluster, User::root(), "6", shown.ghost), Ended::Exited(0));
    eventually("there was a look at the ghosts", LONG, || (nice(process.pid) == 6).then_some(()));
    assert_eq!(nice(child), 4);
    assert_eq!(renice(&cluster, User::root(), "1", ghost_of_child), Ended::Exited(0));
    eventually("the ghost's word is the last", LONG, || (nice(child) == 1).then_some(()));
    shown.end();
}

#[test]
fn a_ghost_begins_as_nice_as_its_process() {
    let cluster = Cluster::attach();
    let script = "exec nice -n 5 bpsh 2 probe family 1";
    let wanted = (nice(std::process::id()) + 5).min(19);
    let shown = Shown::of(&cluster, sh(&cluster, User::ordinary(), script).input_pipe().start());
    let process = shown.process(&cluster);
    let child = eventually("its child", LONG, || children_of(process.pid).first().copied());
    let ghost_of_child = own_number_of(child).expect("it lives");
    eventually("the child is shown", LONG, || is_shown(&cluster, ghost_of_child).then_some(()));
    for (process, ghost) in [(process.pid, shown.ghost), (child, ghost_of_child)] {
        assert_eq!(nice(process), wanted);
        // The ghost's own, which is not what is shown.
        let snapshot = cluster.snapshot();
        let own = snapshot.of("master").find(|here| here.own_number() == ghost).expect("its ghost").pid;
        assert_eq!(nice(own), wanted);
    }
    shown.end();
}

#[test]
fn figures_are_a_second_old_at_most() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    let process = shown.process(&cluster).pid;
    for _ in 0..5 {
        for (signal, state) in [(STOP, 'T'), (CONT, 'S')] {
            send(process, signal);
            eventually("the kernel says so", LONG, || (acceptance::process::state_of(process)? == state).then_some(()));
            // Whoever looks a second later sees it, with the first look.
            std::thread::sleep(Duration::from_millis(1100));
            assert!(shown.ps(&cluster, "stat")[0].starts_with(state));
        }
    }
    shown.end();
}

#[test]
fn threads_are_shown() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 2, &["probe", "threads", "5"]);
    shown.running.lines(1, LONG);
    let number = shown.ghost.to_string();
    assert_eq!(shown.ps(&cluster, "nlwp"), ["5"]);
    let all = ps(&cluster, &["-eLo", "pid,lwp,nlwp,comm"]).success();
    let lines: Vec<Vec<&str>> = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words[0] == number && words[2] == "5")
        .collect();
    assert_eq!(lines.len(), 5, "{all}");
    assert!(lines.iter().any(|words| words[1] == number && words[3] == "probe"), "{lines:?}");
    for worker in 1..5 {
        assert!(lines.iter().any(|words| words[3] == format!("worker-{worker}")), "{lines:?}");
    }
    let top = cluster.command("top").args(["-H", "-b", "-n1", "-p", &number]).run().success();
    assert!(top.contains("worker-4"), "{top}");
    shown.end();
}

#[test]
fn files_of_the_process_are_the_nodes() {
    let cluster = Cluster::attach();
    let environment = cluster.command("bpsh").args(["3", "probe", "wait"]).env("MARK", "here").user(User::ordinary());
    let shown = Shown::of(&cluster, environment.directory("/tmp").input_pipe().start());
    let process = shown.process(&cluster).pid;
    let of_user = |script: &str| sh(&cluster, User::ordinary(), script).run().success();
    let read = |file: &str| of_user(&format!("cat {}", shown.path(file)));
    assert!(read("environ").split('\0').any(|word| word == "MARK=here"));
    for (file, wanted) in [("exe", "node3:/usr/local/bin/probe"), ("cwd", "node3:/tmp"), ("root", "node3:/")] {
        assert_eq!(of_user(&format!("readlink {}", shown.path(file))).trim(), wanted);
        sh(&cluster, User::ordinary(), &format!("cat {}/x", shown.path(file))).run().expect(Ended::Exited(1));
    }
    let there = fs::read_to_string(format!("/proc/{process}/maps")).expect("maps");
    assert_eq!(read("maps").lines().count(), there.lines().count());
    assert_eq!(read("limits"), fs::read_to_string(format!("/proc/{process}/limits")).expect("limits"));
    assert!(read("smaps_rollup").contains("Pss:"));
    assert!(read("sched").starts_with("probe ("));
    for file in ["io", "schedstat", "oom_score", "oom_score_adj", "auxv", "mountinfo", "personality", "timerslack_ns"] {
        assert!(!read(file).is_empty(), "{file}");
    }
    let descriptors = of_user(&format!("ls -l {}", shown.path("fd")));
    for fd in ["0", "1", "2"] {
        let target = fs::read_link(format!("/proc/{process}/fd/{fd}")).expect("open there");
        assert!(descriptors.contains(&format!("{fd} -> node3:{}", target.display())), "{descriptors}");
    }
    for fd in ["0", "1", "2"] {
        let link = fs::symlink_metadata(format!("/proc/{process}/fd/{fd}")).expect("open there");
        let here = of_user(&format!("stat -c '%a %s' {}", shown.path(&format!("fd/{fd}"))));
        assert_eq!(here.trim(), format!("{:o} 64", link.permissions().mode() & 0o777), "{fd}");
    }
    // Nothing is from 1970, also where no content has a time of its own.
    let times = of_user(&format!(
        "cd /proc/{0} && stat -c %Y . fd fd/0 task task/{0} exe ns stat maps net net/dev",
        shown.ghost
    ));
    assert!(times.lines().all(|time| time.parse::<u64>().is_ok_and(|time| time > 1_700_000_000)), "{times}");
    for fd in ["0", "1", "2"] {
        let there = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).expect("open there");
        assert_eq!(read(&format!("fdinfo/{fd}")), there);
    }
    assert_eq!(of_user(&format!("ls {}", shown.path("fdinfo"))).split_whitespace().count(), 3);
    // Of the node's network.
    let names =
        |text: String| text.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect::<Vec<_>>();
    let devices = names(fs::read_to_string(format!("/proc/{process}/net/dev")).expect("dev"));
    assert!(!devices.is_empty());
    assert_eq!(names(read("net/dev")), devices);
    // Nobody can believe to have changed something, root least of all.
    for change in ["echo 5 > oom_score_adj", "echo x | tee -a comm", "chmod 777 stat"] {
        let tried = sh(&cluster, User::root(), &format!("cd {} && {change}", shown.path(""))).run();
        assert!(tried.ended != Ended::Exited(0) && tried.error_text().contains("Read-only"), "{change}: {tried:?}");
    }
    // Large files are whole.
    let smaps = read("smaps");
    assert_eq!(smaps.matches("VmFlags:").count(), there.lines().count());
    shown.end();
}

#[test]
fn another_user_sees_what_he_would_see_of_a_local_process() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    shown.running.lines(1, LONG);
    let local = cluster.command("probe").arg("wait").user(User::ordinary()).input_pipe().start();
    let local_number = local.lines(1, LONG).remove(0);
    let attempt = |user: User, script: String| sh(&cluster, user, &script).run().ended;
    for file in ["stat", "status", "statm", "cmdline", "comm", "limits", "cgroup", "oom_score", "schedstat", "sched"] {
        for number in [shown.ghost.to_string(), local_number.clone()] {
            let ended = attempt(User::other(), format!("cat /proc/{number}/{file} > /dev/null"));
            assert_eq!(ended, Ended::Exited(0), "{file} of {number}");
        }
    }
    let private = [
        "cat environ",
        "cat maps",
        "cat smaps",
        "cat smaps_rollup",
        "cat io",
        "cat auxv",
        "cat stack",
        "cat personality",
        "cat syscall",
        "cat task/*/environ",
        "cat task/*/maps",
        "ls fd",
        "cat fdinfo/0",
        "ls ns",
        "readlink exe",
        "readlink cwd",
        "readlink root",
        "readlink fd/0",
        "readlink task/*/exe",
    ];
    for what in private {
        let script = |number: &str| format!("cd /proc/{number} && {what} > /dev/null");
        let refused = Ended::Exited(1);
        let of_ghost = attempt(User::other(), script(&shown.ghost.to_string()));
        assert!(of_ghost == refused || of_ghost == Ended::Exited(2), "another user: {what}: {of_ghost:?}");
        if !matches!(what, "cat stack" | "cat syscall" | "ls ns") {
            assert_ne!(attempt(User::other(), script(&local_number)), Ended::Exited(0), "of a local process: {what}");
            for who in [User::ordinary(), User::root()] {
                assert_eq!(attempt(who, script(&shown.ghost.to_string())), Ended::Exited(0), "{what}");
            }
        }
    }
    shown.end();
    local.wait();
}

#[test]
fn what_belongs_to_another_user_there_is_roots_alone_here() {
    let cluster = Cluster::attach();
    // A set-user-ID root program on the node.
    let path = "/usr/local/bin/probe-as-root";
    let script = format!("cp /usr/local/bin/probe {path} && chmod 4755 {path}");
    cluster.node(0).command("sh").args(["-c", &script]).run().success();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &[path, "record-as-root"]);
    shown.running.lines(1, LONG);
    assert_eq!(shown.process(&cluster).uids[1], 0, "it is root's there");
    for (file, by_owner) in [("environ", false), ("maps", false), ("stat", true)] {
        let ended = |user| sh(&cluster, user, &format!("cat {} > /dev/null", shown.path(file))).run().ended;
        assert_eq!(ended(User::ordinary()) == Ended::Exited(0), by_owner, "{file}");
        assert_eq!(ended(User::root()), Ended::Exited(0), "{file}");
    }
    // Its ghost is the user's all the same.
    assert_eq!(shown.ps(&cluster, "uid,ruid"), ["1000", "1000"]);
    let mut running = shown.running;
    running.kill();
}

/// Bytes that the agent's thread for the view has read.
fn sampled(cluster: &Cluster, node: u32) -> u64 {
    let agent = cluster.node(node).daemon();
    let mut read = None;
    for task in fs::read_dir(format!("/proc/{agent}/task")).expect("tasks").flatten() {
        if fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "sampler\n") {
            let io = fs::read_to_string(task.path().join("io")).expect("io");
            read = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
        }
    }
    read.expect("a thread called sampler")
}

#[test]
fn a_node_is_asked_once_a_second_while_somebody_looks_and_never_otherwise() {
    let cluster = Cluster::attach();
    let shown: Vec<Shown> = (0..5).map(|_| Shown::start(&cluster, User::ordinary(), 4, &["probe", "wait"])).collect();
    let look = || ps(&cluster, &["aux"]).success();
    look();
    // What was looked at just before has been answered.
    std::thread::sleep(Duration::from_millis(300));
    let before = sampled(&cluster, 4);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(sampled(&cluster, 4), before, "nobody looks");
    look();
    let once = sampled(&cluster, 4) - before;
    assert!(once > 0, "somebody looks");
    // For three seconds, many times a second.
    let (begin, mut looks) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(3) {
        look();
        looks += 1;
    }
    let times = (sampled(&cluster, 4) - before).div_ceil(once);
    let seconds = begin.elapsed().as_secs();
    println!("{looks} looks in {seconds} s: the node was asked {times} times");
    assert!(looks > 3 && times >= 3 && times <= seconds + 3, "{times} times in {seconds} s");
    for shown in shown {
        shown.end();
    }
}

/// How long a `ps` of everything takes, which has to work.
fn ps_takes(cluster: &Cluster, most: Duration) -> String {
    let finished = ps(cluster, &["aux"]);
    assert!(finished.took < most, "ps took {} ms", finished.took.as_millis());
    finished.success()
}

#[test]
fn a_server_that_does_not_answer_is_replaced() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    let (_, server) = view_processes(&cluster);
    std::thread::sleep(Duration::from_millis(1100));
    send(server, STOP);
    ps_takes(&cluster, WORST);
    // Meanwhile, and after: processes end, and are waited for.
    let (_, server) = view_processes(&cluster);
    let ending = Shown::start(&cluster, User::ordinary(), 1, &["sh", "-c", "read line; exit 7"]);
    send(server, STOP);
    let began = Instant::now();
    ending.running.wait().expect(Ended::Exited(7));
    assert!(began.elapsed() < WORST);
    assert_eq!(cluster.command("bpsh").args(["1", "true"]).run().ended, Ended::Exited(0));
    eventually("it is shown again", LONG, || {
        // In the moment of the change ps may miss it.
        let args = ps(&cluster, &["-o", "args=", "-p", &shown.ghost.to_string()]).text();
        (is_shown(&cluster, shown.ghost) && args.trim() == "probe wait").then_some(())
    });
    let zombies: Vec<Process> =
        cluster.snapshot().of("master").filter(|process| process.state == 'Z').cloned().collect();
    assert!(zombies.is_empty(), "{zombies:?}");
    shown.end();
}

#[test]
fn a_server_or_a_guard_that_is_killed_is_replaced() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    for which in ["server", "guard", "both"] {
        let (guard, server) = view_processes(&cluster);
        if which != "server" {
            send(guard, KILL);
        }
        if which != "guard" {
            // It dies with its guard.
            let _ = kill(server.cast_signed(), KILL);
        }
        ps_takes(&cluster, SHORT);
        eventually("it is shown again", LONG, || {
            let args = ps(&cluster, &["-o", "args=", "-p", &shown.ghost.to_string()]).text();
            (is_shown(&cluster, shown.ghost) && args.trim() == "probe wait").then_some(())
        });
        assert_ne!(view_processes(&cluster).1, server);
    }
    assert_eq!(views(&cluster).len(), 1, "{:?}", views(&cluster));
    shown.end();
}

#[test]
fn a_hung_ghostd_or_node_costs_ps_nothing() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    assert_eq!(shown.ps(&cluster, "args"), ["probe", "wait"]);
    let agent = cluster.node(0).daemon();
    for hung in [cluster.master().daemon(), agent] {
        let _stopped = Stopped::new(hung);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1100));
            let all = ps_takes(&cluster, SHORT);
            assert!(all.contains("probe wait"), "the last figures are shown: {all}");
        }
    }
    eventually("all is well again", LONG, || (shown.ps(&cluster, "stat") == ["S"]).then_some(()));
    shown.end();
}

#[test]
fn the_view_is_off_before_a_ghost_ends_and_leaves_nothing() {
    let cluster = Cluster::attach();
    // A launcher that does not wait for its ghost at once: its zombie shows the kernel's own /proc.
    Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]).end();
    let before = Census::take(&cluster);
    let script = "for i in $(seq 40); do
          bpsh 0-4 sleep 0.5 & bpsh 1 sleep 1000 & k=$!; sleep .45; ps aux > /dev/null; kill -9 $k
        done; wait";
    sh(&cluster, User::ordinary(), script).limit(Duration::from_secs(200)).run().success();
    eventually("no view is left", LONG, || views(&cluster).is_empty().then_some(()));
    before.must_come_back(&cluster, LONG);
}

#[test]
fn an_unprivileged_proc_mount_works_beside_views() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    let unshare =
        |user| cluster.command("unshare").args(["-Urpf", "--mount-proc", "ps", "-o", "pid="]).user(user).run();
    assert_eq!(unshare(User::ordinary()).success().trim(), "1");
    shown.end();
}

#[test]
fn root_switches_it_live() {
    let cluster = Cluster::attach();
    let shown = Shown::start(&cluster, User::ordinary(), 0, &["probe", "wait"]);
    let bpctl = |user: User, state: &str| cluster.command("bpctl").args(["view", state]).user(user).run();
    bpctl(User::ordinary(), "off").expect(Ended::Exited(1));
    bpctl(User::root(), "off").success();
    eventually("it is off", LONG, || views(&cluster).is_empty().then_some(()));
    ps_takes(&cluster, SHORT);
    bpctl(User::root(), "on").success();
    eventually("it is on", LONG, || is_shown(&cluster, shown.ghost).then_some(()));
    assert_eq!(shown.ps(&cluster, "args"), ["probe", "wait"]);
    shown.end();
}

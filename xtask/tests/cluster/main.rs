//! The test cluster itself: that it comes up, behaves as a place to run commands in, and leaves nothing behind,
//! whatever happens to it. In most tests the daemons are stand-ins that only say that they are ready; what the product does
//! in a cluster is for the acceptance tests.

mod traces;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ghost_sys::bpf_objects::{self, Kind};
use ghost_sys::namespace::{Place, spawn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use traces::Traces;

/// Speaks as much of sd_notify(3) as the init has to understand, in what every Debian system has. A file
/// /run/silent makes it stop its signs of life.
const STAND_IN: &str = r#"exec perl -e '
use Socket;
socket(S, AF_UNIX, SOCK_DGRAM, 0) or die;
sub say_so { send(S, $_[0], 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die }
$SIG{TERM} = sub { exit 0 };
say_so("READY=1\nSTATUS=stand-in");
while (1) { select(undef, undef, undef, 0.1); say_so("WATCHDOG=1") unless -e "/run/silent" }'"#;

/// Everything here must be done long before, also on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

fn root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        println!("Skipped(needs root): namespaces cannot be made");
    }
    root
}

fn xtask(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments);
    command
}

fn cluster(options: &[&str], command: &[&str]) -> Command {
    let mut all = vec!["cluster", "--daemon", STAND_IN];
    all.extend(options);
    all.push("--");
    all.extend(command);
    xtask(&all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(options: &[&str], command: &[&str]) -> Output {
    let output = cluster(options, command).stdin(Stdio::null()).output().expect("xtask");
    println!("{}", text(&output.stderr));
    output
}

/// A cluster that stays until it is told to end.
struct Standing {
    runner: Child,
    stdin: Option<ChildStdin>,
    description: PathBuf,
    traces: Traces,
}

impl Standing {
    fn start(options: &[&str]) -> Self {
        let mut all = vec!["cluster", "--daemon", STAND_IN];
        all.extend(options);
        Self::start_as(&all)
    }

    fn start_as(options: &[&str]) -> Self {
        let mut command = xtask(options);
        command.args(["--outside", "--", "sh", "-c", "echo $GHOSTPROC_CLUSTER; read line"]);
        let mut runner = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("xtask");
        let stdin = runner.stdin.take();
        let mut line = String::new();
        let stdout = runner.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the description's path");
        let description = PathBuf::from(line.trim());
        assert!(description.is_file(), "{line:?}");
        let cgroup = PathBuf::from(field(&description, &["cgroup"]));
        let state = description.parent().expect("state directory").to_owned();
        let traces = Traces::of(&cgroup, &state, runner.id());
        Self { runner, stdin, description, traces }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.runner.id() as i32), signal).expect("kill");
    }

    fn end(mut self) -> (std::process::ExitStatus, Traces) {
        drop(self.stdin.take());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.runner.try_wait().expect("wait") {
                return (status, self.traces);
            }
            assert!(Instant::now() < until, "the runner does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A field of a member, by the kernel's view that the description gives.
    fn member(&self, index: usize, name: &str) -> String {
        field(&self.description, &["members", &index.to_string(), name])
    }

    fn ask(&self, member: &str, request: &[&str]) -> serde_json::Value {
        let mut command = xtask(&["cluster-ctl", member]);
        let output = command.args(request).env("GHOSTPROC_CLUSTER", &self.description).output().expect("xtask");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    }

    /// Asks until the answer is as wanted.
    fn until(&self, member: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.ask(member, &["status"]);
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn field(description: &Path, path: &[&str]) -> String {
    let text = std::fs::read(description).expect("description");
    let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    match json.pointer(&format!("/{}", path.join("/"))).expect("field") {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn assert_nothing_remains(traces: &Traces) {
    let found = traces.remains_after(PATIENCE);
    assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
}

#[test]
fn a_command_runs_on_the_master_as_if_at_home() {
    if !root() {
        return;
    }
    let directory = std::env::current_dir().expect("cwd");
    let script = "hostname; pwd; cat; command -v ip >/dev/null && ip -o -4 addr show eth0 | grep -o 10.79.0.1/16";
    let mut child = cluster(&["-n", "1"], &["sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("xtask");
    child.stdin.take().expect("piped").write_all(b"through stdin\n").expect("write");
    let output = child.wait_with_output().expect("output");
    assert_eq!(text(&output.stdout), format!("master\n{}\nthrough stdin\n10.79.0.1/16\n", directory.display()));
    assert!(output.status.success());
}

#[test]
fn it_ends_as_its_command_does() {
    if !root() {
        return;
    }
    assert_eq!(run(&["-n", "0"], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["-n", "0"], &["sh", "-c", "kill -9 $$"]).status.signal(), Some(9));
    assert_eq!(run(&["-n", "0"], &["/no/such/program"]).status.code(), Some(127));
    assert_eq!(run(&["-n", "0"], &["/etc/passwd"]).status.code(), Some(126));
}

#[test]
fn a_user_has_its_own_identity_and_none_of_roots() {
    if !root() {
        return;
    }
    let output = run(&["-n", "0", "--user", "4711"], &["sh", "-c", "id -u; id -G; echo $HOME; cat /etc/shadow"]);
    assert_eq!(text(&output.stdout), "4711\n4711\n/\n");
    assert!(!output.status.success(), "/etc/shadow was readable");
}

#[test]
fn a_member_has_its_own_files_processes_and_mounts() {
    if !root() {
        return;
    }
    // None of these may be seen by the host, and each member has its own.
    let script = "echo mine > /etc/ghostproc-test; echo mine > /tmp/ghostproc-test; mount -t tmpfs none /mnt; ls /proc \
                  | grep -c '^[0-9]*$'; cat /proc/self/cgroup | grep ^0";
    let output = run(&["-n", "1"], &["sh", "-c", script]);
    let out = text(&output.stdout);
    let mut lines = out.lines();
    let processes: u32 = lines.next().and_then(|line| line.parse().ok()).expect("a count");
    assert!((3..10).contains(&processes), "{processes} processes");
    assert_eq!(lines.next(), Some("0::/user.slice"));
    assert!(!Path::new("/etc/ghostproc-test").exists());
    assert!(!Path::new("/tmp/ghostproc-test").exists());
}

#[test]
fn nothing_is_left_after_the_end_a_signal_or_a_dead_member() {
    if !root() {
        return;
    }
    let standing = Standing::start(&["-n", "3"]);
    assert_eq!(standing.traces.processes.len(), 8, "an init and a daemon each: {:?}", standing.traces.processes);
    // Six kinds for each of four members, and the bridge's network.
    assert_eq!(standing.traces.namespaces.len(), 4 * 6 + 1);
    let (status, traces) = standing.end();
    assert_eq!(status.code(), Some(1), "read at end of file");
    assert_nothing_remains(&traces);

    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut standing = Standing::start(&["-n", "2"]);
        standing.signal(signal);
        let stdin = standing.stdin.take();
        let (status, traces) = standing.end();
        drop(stdin);
        assert_eq!(status.signal(), Some(signal as i32));
        assert_nothing_remains(&traces);
    }

    let standing = Standing::start(&["-n", "2"]);
    let init: i32 = standing.member(1, "init_pid").parse().expect("pid");
    kill(Pid::from_raw(init), Signal::SIGKILL).expect("kill");
    let (_, traces) = standing.end();
    assert_nothing_remains(&traces);
}

#[test]
fn the_products_kernel_programs_mounts_and_ghosts_go_with_the_cluster() {
    if !root() {
        return;
    }
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
        let mut standing = Standing::start_as(&["cluster", "-n", "2"]);
        let kinds: Vec<Kind> = standing.traces.bpf.iter().map(|(kind, _)| *kind).collect();
        assert!(
            kinds.contains(&Kind::Program) && kinds.contains(&Kind::Map),
            "ghostd has no kernel programs: {kinds:?}"
        );
        // Two ghosts that wait, and what they stand for.
        let init = standing.member(0, "init_pid");
        let place = Place::inside(init.parse().expect("pid")).expect("place");
        let place = place.cgroup(&Path::new(&standing.member(0, "cgroup")).join("user.slice")).expect("cgroup");
        let mut bpsh = Command::new("/opt/ghostproc/bin/bpsh");
        bpsh.args(["0-1", "sh", "-c", "echo here; sleep 1000"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut bpsh = spawn(bpsh, place).expect("bpsh");
        let mut lines = BufReader::new(bpsh.stdout.take().expect("piped")).lines();
        for _ in 0..2 {
            assert_eq!(lines.next().expect("a line").expect("read"), "here");
        }
        let state = standing.description.parent().expect("state directory");
        standing.traces =
            Traces::of(Path::new(&field(&standing.description, &["cgroup"])), state, standing.runner.id());
        if let Some(signal) = signal {
            standing.signal(signal);
        }
        // A member's init waits for every process of its namespace, so also for ours to be reaped.
        let reaper = std::thread::spawn(move || bpsh.wait().expect("wait"));
        let (_, traces) = standing.end();
        reaper.join().expect("reaper");
        if signal == Some(Signal::SIGKILL) {
            assert!(run(&["-n", "0"], &["true"]).status.success());
        }
        assert_nothing_remains(&traces);
    }
}

#[test]
fn a_killed_runner_takes_everything_with_it_but_what_the_next_start_sweeps_up() {
    if !root() {
        return;
    }
    let standing = Standing::start(&["-n", "2"]);
    standing.signal(Signal::SIGKILL);
    let (status, traces) = standing.end();
    assert_eq!(status.signal(), Some(9));
    // Processes, namespaces and mounts without help; directories by the next start.
    let until = Instant::now() + PATIENCE;
    while traces.remains().iter().any(|line| !line.starts_with("path ")) {
        assert!(Instant::now() < until, "left behind: {:?}", traces.remains());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(run(&["-n", "0"], &["true"]).status.success());
    assert_nothing_remains(&traces);
}

#[test]
fn what_is_left_on_purpose_is_found() {
    if !root() {
        return;
    }
    let standing = Standing::start(&["-n", "1"]);
    let init: u32 = standing.member(1, "init_pid").parse().expect("pid");
    // Holds a network without being a process of the cluster, or being in its cgroup.
    let network = std::fs::File::open(format!("/proc/{init}/ns/net")).expect("namespace");
    let mut stray = Command::new("nsenter");
    let mut stray = stray.args([&format!("--uts=/proc/{init}/ns/uts"), "sleep", "1000"]).spawn().expect("nsenter");
    while std::fs::read_to_string(format!("/proc/{}/comm", stray.id())).expect("comm") != "sleep\n" {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, mut traces) = standing.end();
    let planted = std::env::temp_dir().join(format!("ghostproc-planted-{}", std::process::id()));
    traces.paths.insert(planted.clone());
    let map = bpf_objects::plant_map().expect("map");
    traces.bpf.extend(bpf_objects::ids(Kind::Map).expect("ids").last().map(|id| (Kind::Map, *id)));
    std::fs::create_dir(&planted).expect("directory");
    nix::mount::mount(None::<&str>, &planted, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .expect("mount");

    let found = traces.remains_after(Duration::from_secs(1));
    nix::mount::umount(&planted).expect("umount");
    std::fs::remove_dir(&planted).expect("remove");
    stray.kill().expect("kill");
    stray.wait().expect("wait");
    for wanted in ["path /", "BPF Map", "process ", "descriptor of ", "mount "] {
        assert!(found.iter().any(|line| line.starts_with(wanted)), "{wanted} is not found in {found:?}");
    }
    drop((network, map));
    assert_nothing_remains(&traces);
}

#[test]
fn a_daemon_is_kept_alive_and_can_be_controlled() {
    if !root() {
        return;
    }
    let standing = Standing::start(&["-n", "1", "--watchdog", "1000"]);
    let first = standing.ask("n0", &["status"]);
    assert_eq!((first["state"].as_str(), first["restarts"].as_u64()), (Some("running"), Some(0)), "{first}");
    assert_eq!(first["status"], "stand-in");

    standing.ask("n0", &["kill", "SIGKILL"]);
    let second = standing.until("n0", |status| status["state"] == "running" && status["restarts"] == 1);
    assert_ne!(second["pid"], first["pid"]);

    let third = standing.ask("n0", &["restart"]);
    assert_eq!((third["state"].as_str(), third["restarts"].as_u64()), (Some("running"), Some(1)), "{third}");

    let root = standing.member(1, "rootfs");
    std::fs::write(Path::new(&root).join("run/silent"), "").expect("silence");
    standing.until("n0", |status| status["restarts"].as_u64() > Some(1));
    let log = std::fs::read_to_string(standing.member(1, "log")).expect("log");
    assert!(log.contains("SIGABRT to nodeagent"), "{log}");

    assert_eq!(standing.ask("n0", &["stop"])["state"], "dead");
    assert_eq!(standing.ask("n0", &["start"])["state"], "running");
    assert_eq!(standing.ask("n0", &["sing"])["ok"], false);
    assert_eq!(standing.ask("master", &["status"])["restarts"], 0, "another member is not concerned");
    let (_, traces) = standing.end();
    assert_nothing_remains(&traces);
}

#[test]
fn a_daemon_that_does_not_start_is_an_error_with_its_log() {
    if !root() {
        return;
    }
    let mut command = xtask(&["cluster", "-n", "1", "--daemon", "echo the reason >&2; exit 3", "--", "true"]);
    let output = command.output().expect("xtask");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("the reason") && message.contains("exited with status 3"), "{message}");
}

#[test]
fn what_a_command_outside_leaves_in_a_member_does_not_hold_it_up() {
    if !root() {
        return;
    }
    let script = r#"init=$(grep -o '"init_pid": *[0-9]*' $GHOSTPROC_CLUSTER | grep -o '[0-9]*$' | tail -n 1)
        nsenter --all --target $init sleep 1000 >/dev/null 2>&1 & sleep 0.2; echo $init"#;
    let began = Instant::now();
    let output = run(&["-n", "1", "--outside"], &["sh", "-c", script]);
    assert!(output.status.success());
    assert!(began.elapsed() < PATIENCE);
    let init = text(&output.stdout);
    assert!(!Path::new("/proc").join(init.trim()).exists(), "{init} still lives");
}

#[test]
fn several_run_side_by_side() {
    if !root() {
        return;
    }
    let clusters: Vec<Standing> = (0..3).map(|_| Standing::start(&["-n", "2"])).collect();
    let mut networks: Vec<_> = clusters.iter().flat_map(|one| one.traces.namespaces.clone()).collect();
    let count = networks.len();
    networks.sort_unstable();
    networks.dedup();
    assert_eq!(networks.len(), count, "two clusters share a namespace");
    for standing in clusters {
        let (_, traces) = standing.end();
        assert_nothing_remains(&traces);
    }
}

#[test]
fn background_processes_of_the_command_end_with_it() {
    if !root() {
        return;
    }
    let mut command = cluster(&["-n", "0"], &["sh", "-c", "setsid sleep 1000 & echo started"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("xtask");
    // To the end of file: which comes only when nobody holds the pipe any more.
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("read");
    assert_eq!(out, "started\n");
    assert!(child.wait().expect("wait").success());
}

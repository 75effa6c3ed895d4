//! `bpsh --tty`: a terminal on the node behind the one here, as its user sees both.

use std::time::Duration;

use acceptance::process::Process;
use acceptance::work::is_up;
use acceptance::{Cluster, Ended, Terminal, User, eventually};

const LONG: Duration = Duration::from_secs(60);
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";

/// Remote programs with this among their arguments: each test has a number of its own.
fn remote(cluster: &Cluster, mark: &str) -> Vec<Process> {
    let command_line = |process: &Process| std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let marked = |process: &Process| command_line(process).split(|byte| *byte == 0).any(|word| word == mark.as_bytes());
    cluster.snapshot().remote().filter(|process| marked(process)).cloned().collect()
}

#[track_caller]
fn runs(cluster: &Cluster, mark: &str) -> Process {
    eventually(&format!("`{mark}` runs"), LONG, || remote(cluster, mark).pop())
}

#[track_caller]
fn gone(cluster: &Cluster, mark: &str) {
    eventually(&format!("`{mark}` is gone"), LONG, || remote(cluster, mark).is_empty().then_some(()));
}

fn bash(cluster: &Cluster) -> Terminal {
    Terminal::bash(cluster, User::ordinary())
}

/// bpsh has taken the terminal here for the one on the node: keys are bytes from now on.
#[track_caller]
fn taken(terminal: &Terminal) {
    let cooked = nix::libc::ISIG | nix::libc::ICANON;
    eventually("the terminal is raw", LONG, || (terminal.modes().local & cooked == 0).then_some(()));
}

#[test]
fn the_terminal_there_is_like_the_one_here() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let found = terminal.modes();
    let (status, shown) = terminal.run("bpsh --tty 0 sh -c 'tty; stty size; stty -a; ls -ln $(tty); hostname'");
    assert_eq!(status, 0, "{shown}");
    for expected in ["/dev/pts/", "24 200\n", "-echo ", " icanon ", "n0\n"] {
        assert!(shown.contains(expected), "{expected:?} in {shown}");
    }
    let owner = format!("crw--w---- 1 {} ", User::ordinary().uid);
    assert!(shown.contains(&owner), "{owner:?} in {shown}");
    assert_eq!(terminal.modes(), found, "as before");
    assert_eq!(terminal.run("bpsh --tty 0 sh -c 'exit 7'").0, 7);
    assert_eq!(terminal.run("bpsh --tty 0 nosuch").0, 127);
    assert_eq!(terminal.run("bpsh --tty 0-1 true").0, 125);
    assert_eq!(terminal.modes(), found, "as before");
}

#[test]
fn another_size_is_told() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    // Perl runs a handler once for each signal that comes; bash forgets those that come while it does.
    let script = r#"$| = 1; $SIG{WINCH} = sub { print `stty size` }; print "ready\n"; sleep 1 while 1"#;
    terminal.line(&format!("bpsh --tty 1 perl -e '{script}'"));
    taken(&terminal);
    terminal.expect("ready\r\n", LONG);
    for (rows, columns) in [(31, 99), (50, 120), (10, 20)] {
        terminal.resize(rows, columns);
        assert_eq!(terminal.expect(&format!("{rows} {columns}\r\n"), LONG), "", "told once");
    }
    terminal.keys(CTRL_C);
    assert_eq!(terminal.prompt().0, 130);
}

#[test]
fn keys_are_signals_there() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let found = terminal.modes();
    terminal.line("bpsh --tty 0 sleep 1100.1; echo not reached");
    taken(&terminal);
    runs(&cluster, "1100.1");
    terminal.keys(CTRL_C);
    let (status, shown) = terminal.prompt();
    assert_eq!((status, shown.contains("not reached")), (130, false), "{shown}");
    gone(&cluster, "1100.1");

    terminal.line("bpsh --tty 0 sleep 1100.2");
    taken(&terminal);
    let sleep = runs(&cluster, "1100.2");
    terminal.keys(CTRL_Z);
    let (status, shown) = terminal.prompt();
    assert_eq!((status, shown.contains("Stopped")), (148, true), "{shown}");
    assert_eq!(acceptance::process::state_of(sleep.pid), Some('T'));
    assert_eq!(terminal.modes(), found, "as before");
    terminal.foreground();
    taken(&terminal);
    terminal.keys(CTRL_C);
    assert_eq!(terminal.prompt().0, 130);
    assert_eq!(terminal.modes(), found, "as before");
}

#[test]
fn bytes_pass_as_they_are() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    // What a full-screen program does: no line discipline, escapes, a lone line feed, and every key by itself.
    let script = r"stty raw -echo; printf 'begin\033[?1049h\033[2;3HA\nB\r\nC\t\033[m\377end'; head -c 6 | od -An -tx1";
    terminal.line(&format!("bpsh --tty 2 bash -c \"{script}\""));
    taken(&terminal);
    terminal.expect("begin", LONG);
    let shown = terminal.expect("end", LONG);
    assert_eq!(shown, "\x1b[?1049h\x1b[2;3HA\nB\r\nC\t\x1b[m\u{fffd}");
    terminal.keys("\x03\x1a\x1c\x04\r\x1b");
    terminal.expect(" 03 1a 1c 04 0d 1b", LONG);
    assert_eq!(terminal.prompt().0, 0);
}

#[test]
fn a_shell_there_has_jobs_of_its_own() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let found = terminal.modes();
    terminal.line("bpsh --tty 1 bash --norc --noprofile --noediting -i");
    taken(&terminal);
    terminal.prompt();
    assert!(terminal.run("hostname").1.contains("n1"), "the prompt is that of the shell there");
    terminal.line("sleep 1100.3");
    runs(&cluster, "1100.3");
    terminal.keys(CTRL_Z);
    let (status, shown) = terminal.prompt();
    assert_eq!((status, shown.contains("Stopped")), (148, true), "{shown}");
    assert!(terminal.run("hostname").1.contains("n1"), "bpsh has not stopped");
    assert!(terminal.run("bg; jobs").1.contains("Running"));
    terminal.line("fg; echo status $?");
    terminal.expect("sleep 1100.3", LONG);
    let sleep = runs(&cluster, "1100.3");
    eventually("the job is in the foreground", LONG, || {
        // The terminal's foreground group is a field of its processes, see proc_pid_stat(5).
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleep.pid)).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (fields.get(2) == fields.get(5)).then_some(())
    });
    terminal.keys(CTRL_C);
    terminal.prompt();
    terminal.line("exit 9");
    assert_eq!(terminal.prompt().0, 9, "the shell here");
    assert_eq!(terminal.modes(), found, "as before");
    gone(&cluster, "1100.3");
}

#[test]
fn no_command_is_a_shell() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.line("SHELL=/bin/sh bpsh --env 'PS1=there> ' -l somebody 3");
    terminal.expect("there> ", LONG);
    terminal.line("echo $0 on $(hostname)");
    terminal.expect("/bin/sh on n3", LONG);
    terminal.keys(CTRL_D);
    assert_eq!(terminal.prompt().0, 0);
    // Not at a terminal it reads its commands from its input, on all nodes.
    let shells = cluster.command("bpsh").env("SHELL", "/bin/sh").arg("0-1").input("hostname\nexit 3\n").run();
    assert_eq!(shells.expect(Ended::Exited(3)).text().lines().count(), 2);
}

#[test]
fn without_a_terminal_here_there_is_one_there() {
    let cluster = Cluster::attach();
    let run = |command: &str| cluster.command("sh").args(["-c", command]).run();
    assert_eq!(run("bpsh --tty 0 stty size </dev/null").success(), "24 80\r\n");
    // The end of the input is typed. The terminal shows what is typed, and the program the same once more.
    let mut shown = run(r"printf 'a\nb' | bpsh --tty 0 cat").success().replace(['\r', '\n'], "").into_bytes();
    shown.sort_unstable();
    assert_eq!(shown, b"aabb");
    // All that was written comes, though somebody who stays holds the terminal.
    let written = run("bpsh --tty 1 bash -c 'sleep 1100.4 & seq 100000' </dev/null").success();
    assert_eq!(written.lines().count(), 100_000);
    assert!(written.ends_with("100000\r\n"));
    gone(&cluster, "1100.4");
}

/// A program in the terminal that says on the node that it was hung up, and goes.
fn hung_up(file: &str) -> String {
    // What is sent to bpsh is sent on; only the end of the terminal is to end this.
    let script =
        format!("trap '' TERM; trap 'echo hung up > {file}; exit' HUP; echo ready; while :; do sleep .05; done");
    format!("bpsh --tty 0 bash -c \"{script}\"")
}

#[track_caller]
fn says_so(cluster: &Cluster, file: &str) {
    let path = cluster.node(0).path(file);
    eventually("it was hung up", LONG, || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("hung up")).then_some(())
    });
    eventually("nothing is left", LONG, || (cluster.snapshot().of("n0").all(|p| p.name != "bash")).then_some(()));
}

#[test]
fn who_is_killed_hangs_up_and_leaves_the_terminal_as_it_was() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let found = terminal.modes();
    for (signal, status) in [("TERM", 143), ("HUP", 129)] {
        terminal.line(&hung_up(&format!("/tmp/{signal}")));
        taken(&terminal);
        terminal.expect("ready", LONG);
        let bpsh = cluster.snapshot().children(terminal.leader()).find(|p| p.name == "bpsh").expect("bpsh").pid;
        let number = nix::sys::signal::Signal::try_from(status - 128).expect("a signal") as i32;
        ghost_sys::pidfd::kill(bpsh.cast_signed(), number).expect("it is there");
        assert_eq!(terminal.prompt().0, status);
        assert_eq!(terminal.modes(), found, "after SIG{signal}");
        says_so(&cluster, &format!("/tmp/{signal}"));
    }
    terminal.line(&hung_up("/tmp/closed"));
    terminal.expect("ready", LONG);
    terminal.hang_up();
    says_so(&cluster, "/tmp/closed");
}

#[test]
fn who_is_waited_for_is_told_below_the_output() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let script = "echo $BPROC_RANK; test $BPROC_RANK = 1 && sleep 1100.9 && exit 9; echo end";
    terminal.line(&format!("TERM=xterm bpsh 0-2 sh -c '{script}'"));
    let sleep = runs(&cluster, "1100.9");
    let before = terminal.expect("\r\x1b[Kbpsh: 2 of 3 ended, not yet 1", LONG);
    assert_eq!(before.matches("end\r\n").count(), 2, "{before}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(sleep.pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .expect("its end");
    let between = terminal.expect("end\r\n", LONG);
    assert!(
        between.ends_with("\r\x1b[K") || between.ends_with("Killed\r\n"),
        "taken away before anything else: {between:?}"
    );
    let (status, shown) = terminal.prompt();
    assert_eq!((status, shown.contains("not yet")), (0, false), "{shown:?}");
}

#[test]
fn a_lost_node_and_a_killed_ghostd() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let found = terminal.modes();
    terminal.line("bpsh --tty 3 bash --norc --noprofile --noediting -i");
    taken(&terminal);
    terminal.prompt();
    // Whoever carries it may go, and come back.
    cluster.master().control("kill SIGKILL");
    cluster.node(3).control("kill SIGKILL");
    assert!(terminal.run("hostname").1.contains("n3"));
    terminal.resize(40, 90);
    terminal.line("until [ \"$(stty size)\" = '40 90' ]; do sleep .1; done");
    terminal.prompt();
    let holder = cluster.snapshot().of("n3").find(|process| process.is_holder()).expect("the holder of node 3").pid;
    ghost_sys::pidfd::kill(holder.cast_signed(), 9).expect("it can be killed");
    let (status, shown) = terminal.prompt();
    assert_eq!((status, shown.contains("3: lost")), (137, true), "{shown}");
    assert_eq!(terminal.modes(), found, "as before");
    eventually("the node is up again", LONG, || is_up(&cluster, 3).then_some(()));
}

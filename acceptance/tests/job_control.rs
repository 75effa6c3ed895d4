//! bpsh under an interactive bash in a real terminal: what the keys and the shell's job control do to a local program they do
//! to the remote one.

use std::time::Duration;

use acceptance::process::{Process, children_of};
use acceptance::{Cluster, Cmd, Ended, Terminal, User, eventually};

/// For what has to come about, on a machine that is busy.
const LONG: Duration = Duration::from_secs(30);
/// The promise: nothing is left on any node a second after its launcher has gone.
const PROMISED: Duration = Duration::from_secs(1);

/// Remote programs whose command line contains this: each test has a number of its own.
fn remote(cluster: &Cluster, mark: &str) -> Vec<Process> {
    let all = cluster.snapshot();
    all.remote().filter(|process| command_line(process.pid).contains(mark)).cloned().collect()
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

#[track_caller]
fn running(cluster: &Cluster, mark: &str, count: usize) -> Vec<Process> {
    eventually(&format!("{count} remote programs `{mark}`"), LONG, || {
        let there = remote(cluster, mark);
        (there.len() == count).then_some(there)
    })
}

#[track_caller]
fn all_in_state(cluster: &Cluster, mark: &str, wanted: &str) {
    eventually(&format!("`{mark}` in state {wanted}"), LONG, || {
        let there = remote(cluster, mark);
        (!there.is_empty() && there.iter().all(|process| wanted.contains(process.state))).then_some(())
    });
}

#[track_caller]
fn gone(cluster: &Cluster, mark: &str, within: Duration) {
    eventually(&format!("nothing is left of `{mark}`"), within, || remote(cluster, mark).is_empty().then_some(()));
}

fn bash(cluster: &Cluster) -> Terminal {
    quiet(cluster);
    Terminal::bash(cluster, User::ordinary())
}

/// Ends what a failed test has left on the nodes: it is not to fail the next one as well.
fn quiet(cluster: &Cluster) {
    for process in cluster.snapshot().remote() {
        // ESRCH: by itself.
        let _ = ghost_sys::pidfd::kill(process.pid.cast_signed(), 9);
    }
    eventually("the nodes are quiet", LONG, || (cluster.snapshot().remote().count() == 0).then_some(()));
}

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

#[test]
fn ctrl_c_ends_the_remote_program() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.line("bpsh 0 sleep 1000.01; echo not reached");
    running(&cluster, "1000.01", 1);
    terminal.keys(CTRL_C);
    let (status, shown) = terminal.prompt();
    // A shell gives up the rest of the line when its program dies by SIGINT, and only then.
    assert_eq!((status, shown.contains("not reached")), (130, false), "{shown}");
    gone(&cluster, "1000.01", PROMISED);
}

#[test]
fn ctrl_c_takes_away_what_was_typed_and_nothing_waits_for_it() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    for _ in 0..15 {
        terminal.line("bpsh 0 sleep 1000.71");
        running(&cluster, "1000.71", 1);
        terminal.keys("a line\n\x03");
        assert_eq!(terminal.prompt().0, 130);
        gone(&cluster, "1000.71", LONG);
    }
}

#[test]
fn ctrl_c_ends_the_program_on_all_nodes() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.line("bpsh 0-3 sleep 1000.02; echo not reached");
    running(&cluster, "1000.02", 4);
    terminal.keys(CTRL_C);
    let (status, shown) = terminal.prompt();
    assert_eq!((status, shown.contains("not reached")), (130, false), "{shown}");
    gone(&cluster, "1000.02", PROMISED);
}

#[test]
fn ctrl_c_is_the_remote_programs_to_handle() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep .1; done";
    for launcher in ["", "bpsh 1 "] {
        terminal.line(&format!("{launcher}sh -c \"{script}\"; echo \"status $?\""));
        terminal.expect("ready", LONG);
        terminal.keys(CTRL_C);
        let (_, shown) = terminal.prompt();
        assert!(shown.contains("caught\n") && shown.contains("status 3"), "`{launcher}`: {shown}");
    }
}

#[test]
fn ctrl_backslash_quits_the_remote_program() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.line("bpsh 2 sleep 1000.03");
    running(&cluster, "1000.03", 1);
    terminal.keys(CTRL_BACKSLASH);
    let (status, shown) = terminal.prompt();
    assert_eq!(status, 131);
    assert!(shown.contains("Quit"), "{shown}");
    gone(&cluster, "1000.03", PROMISED);
}

#[test]
fn ctrl_z_jobs_bg_fg() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    for (nodes, mark, count) in [("0", "1000.04", 1), ("0-3", "1000.05", 4)] {
        terminal.line(&format!("bpsh {nodes} sleep {mark}"));
        running(&cluster, mark, count);
        for _ in 0..3 {
            terminal.keys(CTRL_Z);
            let (status, shown) = terminal.prompt();
            assert_eq!(status, 148, "{shown}");
            assert!(shown.contains("Stopped"), "{shown}");
            all_in_state(&cluster, mark, "T");
            assert!(terminal.run("jobs").1.contains("Stopped"));

            terminal.run("bg");
            all_in_state(&cluster, mark, "SR");
            let (_, shown) = terminal.run("jobs");
            assert!(shown.contains("Running"), "{shown}");

            terminal.foreground();
        }
        terminal.keys(CTRL_C);
        assert_eq!(terminal.prompt().0, 130);
        gone(&cluster, mark, PROMISED);
    }
}

/// Types a line and, so much after bpsh is in the foreground, a key.
fn at_once(terminal: &mut Terminal, line: &str, delay: Duration, key: &str) {
    terminal.line(line);
    let leader = terminal.leader();
    // bash has given it the terminal before it becomes bpsh.
    eventually("bpsh runs", LONG, || {
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        children_of(leader).into_iter().any(|pid| name(pid) == "bpsh\n").then_some(())
    });
    std::thread::sleep(delay);
    terminal.keys(key);
}

#[test]
fn ctrl_c_at_any_moment_of_the_start() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    for moment in 0..40 {
        at_once(&mut terminal, "bpsh 0-3 sleep 1000.30", Duration::from_micros(moment * 100), CTRL_C);
        assert_eq!(terminal.prompt().0, 130, "moment {moment}");
        gone(&cluster, "1000.30", PROMISED);
    }
}

#[test]
fn ctrl_z_at_any_moment_of_the_start() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    for moment in 0..40 {
        at_once(&mut terminal, "bpsh 0-3 sleep 1000.31", Duration::from_micros(moment * 100), CTRL_Z);
        assert_eq!(terminal.prompt().0, 148, "moment {moment}");
        terminal.foreground();
        running(&cluster, "1000.31", 4);
        all_in_state(&cluster, "1000.31", "SR");
        terminal.keys(CTRL_C);
        assert_eq!(terminal.prompt().0, 130, "moment {moment}");
        gone(&cluster, "1000.31", PROMISED);
    }
}

#[test]
fn a_remote_program_that_stops_itself_stops_the_job() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    for launcher in ["", "bpsh 0 "] {
        for signal in ["STOP", "TSTP", "TTIN", "TTOU"] {
            terminal.line(&format!("{launcher}sh -c 'kill -{signal} $$; echo goes on; exit 5'"));
            let (status, shown) = terminal.prompt();
            assert!(shown.contains("Stopped"), "`{launcher}` {signal}: {shown}");
            let wanted = 128
                + match signal {
                    "STOP" => 19,
                    "TSTP" => 20,
                    "TTIN" => 21,
                    _ => 22,
                };
            assert_eq!(status, wanted, "`{launcher}` {signal}");
            let (status, shown) = terminal.run("fg");
            assert_eq!(status, 5, "`{launcher}` {signal}: {shown}");
            assert!(shown.contains("goes on"), "`{launcher}` {signal}: {shown}");
        }
    }
}

#[test]
fn kill_of_a_job_reaches_the_remote_program() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    for (signal, mark, status) in [("TERM", "1000.06", 143), ("KILL", "1000.07", 137), ("HUP", "1000.08", 129)] {
        terminal.run(&format!("bpsh 0-1 sleep {mark} &"));
        running(&cluster, mark, 2);
        // To the job's process group: bpsh and its ghosts.
        assert_eq!(terminal.run(&format!("kill -{signal} %1; wait %1")).0, status);
        gone(&cluster, mark, PROMISED);
    }
}

#[test]
fn a_stopped_job_can_be_killed() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.line("bpsh 0-3 sleep 1000.09");
    running(&cluster, "1000.09", 4);
    terminal.keys(CTRL_Z);
    assert_eq!(terminal.prompt().0, 148);
    all_in_state(&cluster, "1000.09", "T");
    // Until its end is known, wait tells that it is stopped.
    let line =
        "kill -9 %1; status=148; while [ $status = 148 ]; do wait %1 2> /dev/null; status=$?; done; (exit $status)";
    assert_eq!(terminal.run(line).0, 137);
    gone(&cluster, "1000.09", PROMISED);
}

#[test]
fn the_keyboard_belongs_to_the_foreground() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    // In the background it does not read, and is not stopped for it.
    terminal.run("bpsh 0 cat &");
    running(&cluster, "cat", 1);
    assert_eq!(terminal.run("echo for the shell").1, "for the shell\n");
    let (_, shown) = terminal.run("jobs");
    assert!(shown.contains("Running"), "{shown}");
    terminal.foreground();
    terminal.line("for the program");
    terminal.expect("for the program", LONG);
    terminal.keys(CTRL_D);
    assert_eq!(terminal.prompt().0, 0);
}

#[test]
fn a_background_program_that_reads_nothing_goes_on_running() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.run("bpsh 0 sh -c 'sleep 1; echo done' > /tmp/background.out &");
    let (status, shown) = terminal.run("wait %1; cat /tmp/background.out");
    assert_eq!(status, 0);
    assert!(shown.contains("done"), "{shown}");
}

#[test]
fn timeout_ends_it() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    let (status, _) = terminal.run("timeout 1 bpsh 2 sleep 1000.10");
    assert_eq!(status, 124);
    gone(&cluster, "1000.10", PROMISED);
    // A program that will not: timeout(1) kills bpsh itself then.
    let (status, _) =
        terminal.run("timeout -k 1 1 bpsh 2 sh -c 'trap \"\" TERM; while sleep .1; do :; done # 1000.11'");
    assert_eq!(status, 137);
    gone(&cluster, "1000.11", PROMISED);
}

#[test]
fn a_closed_terminal_ends_it() {
    let cluster = Cluster::attach();
    for (line, mark, count) in [
        ("bpsh 0-3 sleep 1000.12", "1000.12", 4),
        ("bpsh 0-3 sleep 1000.13 &", "1000.13", 4),
        ("bpsh 0 cat /dev/zero > /dev/null # 1000.14", "/dev/zero", 1),
    ] {
        let mut terminal = bash(&cluster);
        terminal.line(line);
        running(&cluster, mark, count);
        terminal.hang_up();
        gone(&cluster, mark, LONG);
        assert!(terminal.ended_within(LONG).is_some());
    }
}

#[test]
fn nohup_outlives_the_terminal() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    terminal.run("cd /tmp && rm -f nohup.out && nohup bpsh 0 sh -c 'echo begins; sleep 1000.15' &");
    // The shell and its sleep.
    let there = running(&cluster, "sleep 1000.15", 2);
    assert_ne!(there[0].ignored & 1, 0, "SIGHUP is ignored there as it is here");
    let output = cluster.master().path("/tmp/nohup.out");
    eventually("its output is in nohup.out", LONG, || {
        std::fs::read_to_string(&output).is_ok_and(|text| text.contains("begins")).then_some(())
    });
    terminal.hang_up();
    assert!(terminal.ended_within(LONG).is_some(), "bash");
    // The shell is gone and its hang-up has been sent: what is there now, stays.
    let snapshot = cluster.snapshot();
    let bpsh = snapshot.of("master").find(|process| process.name == "bpsh").expect("bpsh goes on");
    assert_eq!(remote(&cluster, "sleep 1000.15").len(), 2);
    ghost_sys::pidfd::kill(bpsh.pid.cast_signed(), 9).expect("it goes on");
    gone(&cluster, "sleep 1000.15", PROMISED);
}

#[test]
fn nice_is_inherited() {
    let cluster = Cluster::attach();
    let mut terminal = bash(&cluster);
    assert_eq!(terminal.run("nice -n 7 bpsh 0 nice").1, "7\n");
    assert_eq!(terminal.run("bpsh 0 nice").1, "0\n");
}

/// What is launched here is killed together with bpsh alone; nobody has told the programs anything.
fn killed(cluster: &Cluster, command: Cmd, mark: &str, count: usize) {
    let mut bpsh = command.stdout_pipe().start();
    running(cluster, mark, count);
    bpsh.kill();
    gone(cluster, mark, PROMISED);
    assert_eq!(bpsh.ended_within(LONG), Some(Ended::Signaled(9)));
}

#[test]
fn nothing_is_left_a_second_after_kill_9_of_bpsh() {
    let cluster = Cluster::attach();
    quiet(&cluster);
    let bpsh = |words: &[&str]| cluster.command("bpsh").args(words).user(User::ordinary());
    killed(&cluster, bpsh(&["0-3", "sleep", "1000.20"]), "1000.20", 4);
    // Ignores all that can be ignored.
    let deaf = "trap '' HUP INT QUIT TERM PIPE; sleep 1000.21";
    killed(&cluster, bpsh(&["0-3", deaf]), "sleep 1000.21", 8);
    // Children and grandchildren.
    let family = "(sleep 1000.22; :) & (sleep 1000.22; :) & wait; : 1000.22";
    killed(&cluster, bpsh(&["1", family]), "sleep 1000.22", 5);
    // Nobody takes what it prints: bpsh does not wait for it to end.
    killed(&cluster, bpsh(&["0-3", "yes", "1000.23"]), "yes 1000.23", 4);
    // Stopped.
    let mut stopped = bpsh(&["2", "kill -STOP $$; : 1000.24"]).start();
    all_in_state(&cluster, "1000.24", "T");
    stopped.kill();
    gone(&cluster, "1000.24", PROMISED);
}

#[test]
fn nothing_is_left_when_bpsh_is_killed_while_it_starts() {
    let cluster = Cluster::attach();
    quiet(&cluster);
    for delay in 0..40 {
        let mut bpsh = cluster.command("bpsh").args(["0-3", "sleep", "1000.25"]).user(User::ordinary()).start();
        std::thread::sleep(Duration::from_micros(delay * 250));
        bpsh.kill();
        assert!(bpsh.ended_within(LONG).is_some());
    }
    eventually("nothing is left", LONG, || {
        let snapshot = cluster.snapshot();
        let ghosts = snapshot.of("master").filter(|process| process.name == "bpsh" || process.name == "sleep").count();
        (ghosts == 0 && snapshot.remote().count() == 0).then_some(())
    });
}

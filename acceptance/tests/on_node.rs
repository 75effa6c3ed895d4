//! Commands on a node work as on the master.

use std::time::Duration;

use acceptance::process::{Process, children_of};
use acceptance::{Cluster, Cmd, Ended, Terminal, User, eventually};

/// For what has to come about, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

fn bpsh(cluster: &Cluster, words: &[&str]) -> Cmd {
    cluster.command("bpsh").args(words).user(User::ordinary())
}

/// Programs on the nodes whose command line is this.
fn remote(cluster: &Cluster, command: &str) -> Vec<Process> {
    let line = |pid: u32| {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
    };
    cluster.snapshot().remote().filter(|process| line(process.pid) == command).cloned().collect()
}

#[track_caller]
fn comes(cluster: &Cluster, command: &str) -> Process {
    eventually(&format!("`{command}`"), LONG, || remote(cluster, command).pop())
}

#[track_caller]
fn goes(cluster: &Cluster, command: &str) {
    eventually(&format!("the end of `{command}`"), LONG, || remote(cluster, command).is_empty().then_some(()));
}

#[track_caller]
fn is_in_state(cluster: &Cluster, command: &str, wanted: &str) {
    eventually(&format!("`{command}` in state {wanted}"), LONG, || {
        let there = remote(cluster, command);
        (!there.is_empty() && there.iter().all(|process| wanted.contains(process.state))).then_some(())
    });
}

#[test]
fn bpsh_starts_programs_from_node_to_node() {
    let cluster = Cluster::attach();
    assert_eq!(bpsh(&cluster, &["1", "bpsh 2 hostname"]).run().success(), "n2\n");
    assert_eq!(bpsh(&cluster, &["0", "bpsh 1 bpsh 0 bpsh 3 hostname"]).run().success(), "n3\n", "as deep as one likes");
    assert_eq!(bpsh(&cluster, &["1", "bpsh 1 hostname"]).run().success(), "n1\n", "also to itself");
    let three = bpsh(&cluster, &["1", "bpsh -s -p 0-2 'hostname; id -u; pwd'"]).directory("/usr").run().success();
    let of = |node: u32| format!("{node:>3}: n{node}\n{node:>3}: 1000\n{node:>3}: /usr\n");
    assert_eq!(three, (0..3).map(of).collect::<String>());
    let outcome = |command: &str| bpsh(&cluster, &["1", command]).run();
    assert_eq!(outcome("bpsh 0,2 'exit 7'").ended, Ended::Exited(7));
    assert_eq!(outcome("bpsh 2 'kill -9 $$'; echo $?").text(), "137\n");
    let finished = outcome("bpsh 2 nosuch");
    assert_eq!(
        (finished.ended, finished.error_text()),
        (Ended::Exited(127), "2: nosuch: No such file or directory\n".into())
    );
    assert_eq!(outcome("bpsh --timeout 1 2 sleep 1001.9; echo $?").text(), "124\n");
    assert_eq!(outcome("bpsh --fanout 1 --halt 0,2,3 'case $(hostname) in n2) exit 3;; esac'").ended, Ended::Exited(3));
    assert_eq!(outcome("bpsh --dry-run 0,2 true").text(), "0,2: would run true\n");
}

#[test]
fn streams_pass_through_both_nodes() {
    let cluster = Cluster::attach();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 3 % 251) as u8).collect();
    let finished = bpsh(&cluster, &["1", "bpsh 2 cat"]).input(bytes.clone()).run();
    assert_eq!(finished.ended, Ended::Exited(0), "{}", finished.error_text());
    assert!(finished.stdout == bytes, "what comes back is what went in");
    let lines = bpsh(&cluster, &["1", "seq 100000 | bpsh 0,2 'sort -n | tail -1; echo end >&2'"]).run();
    assert_eq!((lines.text(), lines.error_text()), ("100000\n100000\n".into(), "end\nend\n".into()));
    // Who reads no more is told so, on both ways.
    assert_eq!(bpsh(&cluster, &["1", "bpsh 2 yes | head -1"]).run().success(), "y\n");
}

#[test]
fn a_file_is_copied_from_whichever_node_has_it() {
    let cluster = Cluster::attach();
    let shell = |line: &str| cluster.command("sh").args(["-ec", line]).user(User::ordinary()).run().success();
    let at = "/tmp/on-node";
    shell(&format!("rm -rf {at}; mkdir {at}"));
    bpsh(&cluster, &["-a", &format!("rm -rf {at}; mkdir {at}; rm -f /tmp/myoutput")]).run().success();
    bpsh(&cluster, &["3", "echo theirs > /tmp/myoutput"]).run().success();
    // The working directory is there on the nodes, too: nothing is said but what the seed text has.
    let finished = bpsh(&cluster, &["-a", "-p", "bpcp /tmp/myoutput"]).directory(at).run();
    let mut lines: Vec<String> = finished.error_text().lines().map(str::to_owned).collect();
    lines.sort();
    let of = |node: u32| format!("{node:>3}: bpcp: /tmp/myoutput: No such file or directory");
    assert_eq!((finished.ended, lines), (Ended::Exited(1), [0, 1, 2, 4].map(of).to_vec()));
    assert_eq!(shell(&format!("cat {at}/myoutput; stat -c %u {at}/myoutput")), "theirs\n1000\n");
}

#[test]
fn bpcp_on_a_node_copies_from_the_master_to_it_and_between_others() {
    let cluster = Cluster::attach();
    let at = "/tmp/on-node-2";
    let shell = |line: &str| cluster.command("sh").args(["-ec", line]).user(User::ordinary()).run().success();
    shell(&format!(
        "rm -rf {at}; mkdir -p {at}/tree/d; head -c 3000001 /dev/urandom > {at}/tree/d/data; echo > {at}/tree/f"
    ));
    bpsh(&cluster, &["-a", &format!("rm -rf {at}; mkdir {at}")]).run().success();
    let wanted = shell(&format!("cksum < {at}/tree/d/data"));
    let there = |command: &str| bpsh(&cluster, &["2", command]).directory(at).run();
    let sum = |command: &str| there(command).success();
    assert_eq!(
        sum(&format!("bpcp -r master:tree . && cksum < {at}/tree/d/data")),
        wanted,
        "seen from bpsh's directory"
    );
    sum("bpcp -rp tree master:back && bpcp tree/d/data 0,3:. && bpcp 3:data master:third");
    assert_eq!(shell(&format!("cksum < {at}/back/d/data; cksum < {at}/third")), wanted.repeat(2));
    for (command, text) in [
        ("bpcp master:nosuch .", "bpcp: nosuch: No such file or directory\n"),
        ("bpcp tree/f master:/proc/none/x", "bpcp: master: /proc/none: No such file or directory\n"),
        ("bpcp tree/f master:/etc", "bpcp: master: /etc/f: Permission denied\n"),
    ] {
        let finished = there(command);
        assert_eq!((finished.error_text().as_str(), finished.ended), (text, Ended::Exited(1)), "{command}");
    }
    let reach = bpsh(&cluster, &["2", "bpcp tree/f master:."]).env("GHOSTPROC_REACH", "no").directory(at).run();
    assert!(reach.error_text().contains("GHOSTPROC_REACH=no"), "{}", reach.error_text());
}

#[test]
fn the_tree_on_the_master_is_true() {
    let cluster = Cluster::attach();
    let mut outer = bpsh(&cluster, &["1", "bpsh 0,2 sleep 1001.1"]).start();
    comes(&cluster, "sleep 1001.1");
    eventually("the ghosts of both below that of their bpsh", LONG, || {
        let only = |pids: Vec<u32>| if let [pid] = pids[..] { Some(pid) } else { None };
        let mut at = only(children_of(outer.pid()))?;
        // `sh -c`, unless it became bpsh.
        while let Some(next) = only(children_of(at)) {
            at = next;
        }
        (children_of(at).len() == 2).then_some(())
    });
    outer.kill();
    goes(&cluster, "sleep 1001.1");
}

#[test]
fn a_bpsh_that_is_killed_on_its_node_takes_what_it_launched() {
    let cluster = Cluster::attach();
    let outer = bpsh(&cluster, &["1", "bpsh 2 sleep 1001.2; echo $?"]).start();
    comes(&cluster, "sleep 1001.2");
    let inner = comes(&cluster, "bpsh 2 sleep 1001.2");
    ghost_sys::pidfd::kill(inner.pid.cast_signed(), 9).expect("it can be killed");
    // The promise is a second; who waits for it here is a machine that may be busy.
    goes(&cluster, "sleep 1001.2");
    assert_eq!(outer.wait().text(), "137\n");
}

#[test]
fn signals_to_a_bpsh_on_a_node_are_for_what_it_launched() {
    let cluster = Cluster::attach();
    let program = r#"bpsh 2 'trap "echo got; exit 5" USR1; echo up; while :; do sleep 0.1; done'"#;
    // From its node.
    let script = format!("{program} & read -r up; kill -USR1 $!; wait $!; echo $?");
    let mut outer = bpsh(&cluster, &["1", &script]).input_pipe().start();
    outer.lines(1, LONG);
    drop(outer.take_stdin());
    assert_eq!(outer.wait().text(), "up\ngot\n5\n");
    // From the master, by its ghost.
    let outer = bpsh(&cluster, &["1", &format!("exec {program}")]).start();
    outer.lines(1, LONG);
    let [ghost] = children_of(outer.pid())[..] else { outer.fail("one ghost") };
    ghost_sys::pidfd::kill(ghost.cast_signed(), 10).expect("it can be signalled");
    let finished = outer.wait();
    assert_eq!((finished.text(), finished.ended), ("up\ngot\n".into(), Ended::Exited(5)));
}

#[test]
fn keys_reach_both_ends() {
    let cluster = Cluster::attach();
    let mut terminal = Terminal::bash(&cluster, User::ordinary());
    for sleeper in ["sleep 1001.3", "sleep 1001.4"] {
        terminal.line(&format!("bpsh 1 bpsh 2 {sleeper}"));
        comes(&cluster, sleeper);
        terminal.keys("\x1a");
        let (status, shown) = terminal.prompt();
        assert_eq!(status, 148, "{shown}");
        is_in_state(&cluster, sleeper, "T");
        is_in_state(&cluster, &format!("bpsh 2 {sleeper}"), "T");
        terminal.foreground();
        is_in_state(&cluster, sleeper, "S");
        is_in_state(&cluster, &format!("bpsh 2 {sleeper}"), "S");
        terminal.keys("\x03");
        let (status, shown) = terminal.prompt();
        assert_eq!(status, 130, "{shown}");
        goes(&cluster, sleeper);
    }
}

#[test]
fn agents_that_are_killed_are_not_missed() {
    let cluster = Cluster::attach();
    let mut outer = bpsh(&cluster, &["1", "bpsh 2 cat"]).input_pipe().start();
    let mut stdin = outer.take_stdin();
    for round in 1..=6 {
        std::io::Write::write_all(&mut stdin, format!("line {round}\n").as_bytes()).expect("it reads");
        // The first: both programs run.
        if round == 1 || round % 2 == 0 {
            outer.lines(round, LONG);
        }
        cluster.node(1 + round as u32 % 2).control("kill SIGKILL");
    }
    drop(stdin);
    let wanted: String = (1..=6).map(|round| format!("line {round}\n")).collect();
    let finished = outer.wait();
    assert_eq!((finished.text(), finished.ended), (wanted, Ended::Exited(0)));
    for node in [1, 2] {
        eventually("the agent runs again", LONG, || {
            (acceptance::work::agent_state(&cluster, node) == "running").then_some(())
        });
    }
}

#[test]
fn a_ghostd_that_is_killed_ends_what_nodes_have_launched_and_says_so() {
    let cluster = Cluster::attach();
    let outer = bpsh(&cluster, &["1", "bpsh 2 sleep 1001.5; echo $?; bpsh 2 hostname"]).start();
    comes(&cluster, "sleep 1001.5");
    cluster.master().control("kill SIGKILL");
    let finished = outer.wait();
    assert!(finished.error_text().contains("2: lost"), "{}", finished.error_text());
    assert_eq!(finished.text(), "137\nn2\n", "and goes on with the next ghostd");
    goes(&cluster, "sleep 1001.5");
}

#[test]
fn bpstat_shows_on_a_node_what_it_shows_on_the_master() {
    let cluster = Cluster::attach();
    let bpstat = |words: &[&str]| cluster.command("bpsh").args(words).user(User::ordinary()).run().success();
    let here = cluster.command("sh").args(["-c", "bpstat; bpstat -a"]).user(User::ordinary()).run().success();
    assert_eq!(bpstat(&["1", "bpstat; bpstat -a"]), here);
    // By a program's program, and by many at once.
    assert_eq!(bpstat(&["2", "sh -c 'bpstat; bpstat -a; true'; true"]), here);
    let counts = bpstat(&["-a", "for i in 1 2 3 4 5 6 7 8; do bpstat -t up & done; wait"]);
    assert_eq!(counts.lines().collect::<Vec<_>>(), vec!["5"; 40]);
}

#[test]
fn who_is_none_of_the_clusters_is_refused() {
    let cluster = Cluster::attach();
    let finished = cluster.node(1).command("bpstat").user(User::ordinary()).run();
    assert_eq!(finished.ended, Ended::Exited(1), "{}", finished.error_text());
    assert!(finished.error_text().contains("only programs that the cluster runs here"), "{}", finished.error_text());
}

#[test]
fn who_has_become_another_user_there_asks_for_nobody() {
    let cluster = Cluster::attach();
    let ask = |user: &str, command: &str| {
        let script = format!("exec setpriv --reuid {user} --regid {user} --clear-groups {command}");
        cluster.command("bpsh").args(["1", &script]).user(User::root()).run()
    };
    let finished = ask("1001", "bpstat");
    assert_ne!(finished.ended, Ended::Exited(0));
    assert!(finished.error_text().contains("runs as uid 1001"), "{}", finished.error_text());
    assert_eq!(ask("0", "bpstat").ended, Ended::Exited(0), "root's own may");
    let finished = ask("0", "bpctl token");
    assert_eq!(finished.text(), "");
    assert!(finished.error_text().contains("administered on the master"), "{}", finished.error_text());
}

//! What an administrator and an owner make of nodes: states, owner, group, mode, root directory; preparing them, sending them away; and
//! watching them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use acceptance::{Cluster, Ended, Finished, User, eventually};

/// Generous: what is waited for comes at once on an idle machine.
const LONG: Duration = Duration::from_secs(60);

fn bpctl(cluster: &Cluster, user: User, words: &[&str]) -> Finished {
    cluster.command("bpctl").args(words).user(user).run()
}

fn root(cluster: &Cluster, words: &[&str]) {
    bpctl(cluster, User::root(), words).success();
}

fn bpsh(cluster: &Cluster, user: User, node: &str) -> Finished {
    cluster.command("bpsh").args([node, "hostname"]).user(user).run()
}

/// The rest of a node's line in bpstat's compact table.
fn shown(cluster: &Cluster, node: &str) -> String {
    let table = cluster.command("bpstat").arg(node).run().success();
    let line = table.lines().nth(1).expect("a line").to_owned();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// User, group, mode.
fn owned(cluster: &Cluster, node: &str) -> (u64, u64, String) {
    let text = cluster.command("bpstat").args(["--json", node]).run().success();
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let node = &json["nodes"][0];
    let number = |name: &str| node[name].as_u64().unwrap_or(u64::MAX);
    (number("uid"), number("gid"), node["mode"].as_str().unwrap_or_default().to_owned())
}

fn becomes(cluster: &Cluster, node: &str, wanted: &str) {
    eventually(&format!("node {node} is {wanted}"), LONG, || shown(cluster, node).starts_with(wanted).then_some(()));
}

#[test]
fn what_root_sets_aside_takes_no_users_programs() {
    let cluster = Cluster::attach();
    let mut before =
        cluster.command("bpsh").args(["3", "sh", "-c", "echo on; exec sleep 1000"]).user(User::ordinary()).start();
    before.lines(1, LONG);
    root(&cluster, &["-S", "3", "-s", "unavailable"]);
    assert_eq!(shown(&cluster, "3"), "unavailable ---x--x--x root root set by root");
    let refused = bpsh(&cluster, User::ordinary(), "3").expect(Ended::Exited(125));
    let said =
        "3: forbidden: Operation not permitted (unavailable: set by root); only root may use it until it is up\n";
    assert_eq!(refused.error_text(), said);
    assert_eq!(bpsh(&cluster, User::root(), "3").success(), "n3\n");
    let up = cluster.command("bpstat").args(["-n", "up"]).run().success();
    assert!(!up.lines().any(|line| line == "3"), "{up}");
    // What runs goes on, and another ghostd knows.
    cluster.master().control("restart");
    becomes(&cluster, "3", "unavailable");
    assert!(before.ended().is_none());
    before.kill();
    root(&cluster, &["-S", "unavailable", "-s", "up"]);
    assert_eq!(shown(&cluster, "3"), "up ---x--x--x root root");
    assert_eq!(bpsh(&cluster, User::ordinary(), "3").success(), "n3\n");
}

#[test]
fn a_node_that_is_set_down_runs_nothing() {
    let cluster = Cluster::attach();
    let mut there = cluster.command("bpsh").args(["3", "sleep", "1000"]).user(User::ordinary()).start();
    let running = || cluster.command("bpstat").arg("-p").run().success().lines().count() > 1;
    eventually("it runs", LONG, || running().then_some(()));
    root(&cluster, &["-S", "3", "-s", "down"]);
    assert_eq!(there.ended_within(LONG), Some(Ended::Signaled(9)));
    let refused = bpsh(&cluster, User::root(), "3").expect(Ended::Exited(125));
    assert!(
        refused.error_text().contains("3: unreachable: down (set by root); `bpctl -s up`"),
        "{}",
        refused.error_text()
    );
    root(&cluster, &["-S", "3", "-s", "up"]);
    assert_eq!(bpsh(&cluster, User::root(), "3").success(), "n3\n");
}

#[test]
fn an_owner_decides_who_may_use_his_nodes() {
    let cluster = Cluster::attach();
    root(&cluster, &["-S", "1-2", "-u", "1000", "-g", "2000", "-m", "0100"]);
    assert_eq!(owned(&cluster, "1"), (1000, 2000, "0100".to_owned()));
    assert_eq!(bpsh(&cluster, User::ordinary(), "1").success(), "n1\n");
    let refused = bpsh(&cluster, User::other(), "1").expect(Ended::Exited(125));
    assert_eq!(
        refused.error_text(),
        "1: forbidden: Operation not permitted; `bpstat` shows whose it is and its mode\n"
    );
    // He lets others in, gives it to another group of his; and may do nothing else. Every step is taken.
    let words = ["-S", "0-2", "-m", "0111", "-g", "3000", "-g", "1001", "-u", "1001", "-s", "unavailable"];
    let failed = bpctl(&cluster, User::ordinary(), &words).expect(Ended::Exited(1));
    let not = "Operation not permitted; ";
    let wanted = [
        format!("0: mode 0111: {not}its owner and root may change the mode (`bpstat 0` shows whose it is)"),
        format!("0: group 3000: {not}its owner and root may change the group (`bpstat 0` shows whose it is)"),
        format!("0: group 1001: {not}its owner and root may change the group (`bpstat 0` shows whose it is)"),
        format!(
            "1: group 1001: {not}its owner may give it to groups that he is in, only root to others (`bpstat 1` shows whose it is)"
        ),
        format!(
            "2: group 1001: {not}its owner may give it to groups that he is in, only root to others (`bpstat 2` shows whose it is)"
        ),
        format!("0: owner 1001: {not}only root may give it to another owner (`bpstat 0` shows whose it is)"),
        format!("1: owner 1001: {not}only root may give it to another owner (`bpstat 1` shows whose it is)"),
        format!("2: owner 1001: {not}only root may give it to another owner (`bpstat 2` shows whose it is)"),
        format!("0: state unavailable: {not}only root may set states (`bpstat 0` shows whose it is)"),
        format!("1: state unavailable: {not}only root may set states (`bpstat 1` shows whose it is)"),
        format!("2: state unavailable: {not}only root may set states (`bpstat 2` shows whose it is)"),
    ];
    let said = failed.error_text();
    let lines: Vec<&str> = said.lines().map(|line| line.strip_prefix("bpctl: ").expect("its name")).collect();
    assert_eq!(lines, wanted);
    assert_eq!(owned(&cluster, "1"), (1000, 3000, "0111".to_owned()));
    assert_eq!(bpsh(&cluster, User::other(), "1").success(), "n1\n");
    // Who did it stands in the log.
    let log = cluster.master().log_tail(200);
    let line = log.lines().find(|line| line.contains("mode 0100 -> 0111")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("uid=1000") && line.contains("pid=") && line.contains("1-2"), "{line}");
    assert!(log.lines().any(|line| line.contains("owner -> 1001 refused") && line.contains("uid=1000")), "{log}");
    root(&cluster, &["-S", "1-2", "-u", "default", "-g", "default", "-m", "default"]);
    assert_eq!(shown(&cluster, "1"), "up ---x--x--x root root");
}

#[test]
fn mistakes_are_shown_where_they_stand() {
    let cluster = Cluster::attach();
    for (words, code, said) in [
        (&["-S", "0,4-1", "-s", "up"][..], 2, "bpctl: the range ends before it begins; write 1-4\n  0,4-1\n    ^\n"),
        (&["-S", "0,n0-1", "-s", "up"], 1, "bpctl: no node is called `n0-1`; did you mean n[0-1]?\n  0,n0-1\n    ^\n"),
        (&["-S", "99", "-s", "up"], 1, "bpctl: 99: state up: no such node; `bpstat` shows those that there are\n"),
        (&["-M", "-m", "0"], 1, "bpctl: -1: mode 0000: the master runs no nodeagent"),
        (&["-S", "0"], 2, "bpctl: -S 0: nothing is to be done"),
    ] {
        let finished = bpctl(&cluster, User::root(), words).expect(Ended::Exited(code));
        assert!(finished.error_text().starts_with(said), "{words:?}: {}", finished.error_text());
    }
}

/// ghostd reads its configuration again, and says this of it.
fn reload(cluster: &Cluster, said: &str) {
    let master = cluster.master();
    ghost_sys::pidfd::kill(master.daemon().cast_signed(), 1).expect("SIGHUP");
    eventually(said, LONG, || master.log_tail(50).contains(said).then_some(()));
}

/// Waits for /tmp/go, and fails if there is /tmp/fail.
const NODE_UP: &str = r#"#!/bin/sh
echo "node $1: $NODE $NODE_NAME $NODE_ADDRESS"
bpsh "$1" hostname || exit 9
until test -e /tmp/go; do sleep 0.05; done
! test -e /tmp/fail
"#;

#[test]
fn a_node_that_comes_is_prepared_first() {
    let cluster = Cluster::attach();
    let master = cluster.master();
    let script = master.path("/etc/ghostproc/node_up");
    fs::write(&script, NODE_UP).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let file = master.path("/etc/ghostproc/ghostd.toml");
    let configuration = fs::read_to_string(&file).expect("a configuration");
    fs::write(&file, format!("node_up = \"/etc/ghostproc/node_up\"\n{configuration}")).expect("a configuration");
    reload(&cluster, "node_up: none -> /etc/ghostproc/node_up");
    // Its holder ends, and with that all that the node was.
    let all = cluster.snapshot().processes;
    let holder = all.iter().find(|process| process.member == "n4" && process.is_holder()).expect("a holder");
    ghost_sys::pidfd::kill(holder.pid.cast_signed(), 9).expect("kill");
    becomes(&cluster, "4", "boot ---x--x--x root root node_up runs");
    let refused = bpsh(&cluster, User::ordinary(), "4").expect(Ended::Exited(125));
    assert!(refused.error_text().contains("Operation not permitted (boot: node_up runs)"), "{}", refused.error_text());
    let log = master.path("/var/log/ghostproc/node_up/4.log");
    let address = cluster.node(4).address;
    let words = format!("node 4: 4 n4 {address}\nn4\n");
    let complete = || fs::read_to_string(&log).is_ok_and(|text| text == words).then_some(());
    eventually("the script reaches the node", LONG, complete);
    // Another ghostd runs it anew.
    master.control("restart");
    eventually("the run before is kept", LONG, || log.with_extension("log.1").exists().then_some(()));
    eventually("the script reaches the node again", LONG, complete);
    assert!(shown(&cluster, "4").starts_with("boot"));
    fs::write(master.path("/tmp/fail"), "").expect("a file");
    fs::write(master.path("/tmp/go"), "").expect("a file");
    let failed = "error ---x--x--x root root node_up ended with status 1, see /var/log/ghostproc/node_up/4.log";
    becomes(&cluster, "4", failed);
    let listed = bpctl(&cluster, User::root(), &["nodes", "list", "error"]).success();
    assert!(listed.contains("node_up ended with status 1, see"), "{listed}");
    fs::remove_file(master.path("/tmp/fail")).expect("removed");
    root(&cluster, &["-S", "4", "-s", "boot"]);
    becomes(&cluster, "4", "up");
    assert_eq!(bpsh(&cluster, User::ordinary(), "4").success(), "n4\n");
    fs::write(&file, configuration).expect("a configuration");
    reload(&cluster, "node_up: /etc/ghostproc/node_up -> none");
}

#[test]
fn a_node_is_sent_away_by_its_own_command() {
    let cluster = Cluster::attach();
    let node = cluster.node(4);
    fs::create_dir_all(node.path("/etc/ghostproc")).expect("a directory");
    let commands = "reboot_command = \"hostname > /rebooted\"\nhalt_command = \"echo no power; exit 3\"\n";
    fs::write(node.path("/etc/ghostproc/nodeagent.toml"), commands).expect("a configuration");
    bpctl(&cluster, User::ordinary(), &["-S", "4", "-R"]).expect(Ended::Exited(1));
    assert!(!node.path("/rebooted").exists());
    root(&cluster, &["-S", "4", "-R"]);
    assert_eq!(fs::read_to_string(node.path("/rebooted")).expect("a mark"), "n4\n");
    assert_eq!(shown(&cluster, "4"), "reboot ---x--x--x root root by root's order");
    let refused = bpsh(&cluster, User::root(), "4").expect(Ended::Exited(125));
    assert!(refused.error_text().contains("4: unreachable: reboot (by root's order)"), "{}", refused.error_text());
    root(&cluster, &["-S", "4", "-s", "up"]);
    let failed = bpctl(&cluster, User::root(), &["-S", "4", "-H"]).expect(Ended::Exited(1));
    let said = "bpctl: 4: state halt: `echo no power; exit 3`: it ended with exit status: 3: no power\n";
    assert_eq!(failed.error_text(), said);
    assert_eq!(bpsh(&cluster, User::ordinary(), "4").success(), "n4\n");
}

#[test]
fn programs_get_the_nodes_other_root_directory() {
    let cluster = Cluster::attach();
    let node = cluster.node(4);
    root(&cluster, &["-S", "4", "-r", "/srv/image"]);
    let run = |words: &[&str]| cluster.command("bpsh").arg("4").args(words).user(User::ordinary()).run();
    // With --host it is the node's own: a way in, where the other one is broken.
    let repaired = cluster.command("bpsh").args(["--host", "4", "/bin/ls", "-d", "/srv"]).user(User::root()).run();
    assert_eq!(repaired.success(), "/srv\n");
    let missing = run(&["/bpstat", "--version"]).expect(Ended::Exited(125));
    let said = "4: not started: root directory /srv/image: No such file or directory; `bpctl -r` sets another\n";
    assert_eq!(missing.error_text(), said);
    fs::create_dir_all(node.path("/srv/image")).expect("a directory");
    fs::copy(cluster.bin_dir.join("bpstat"), node.path("/srv/image/bpstat")).expect("a program");
    assert!(run(&["/bpstat", "--version"]).success().starts_with("bpstat "));
    run(&["/bin/true"]).expect(Ended::Exited(127));
    root(&cluster, &["-S", "4", "-r", "/"]);
    run(&["/bin/true"]).success();
}

#[test]
fn who_watches_sees_each_change() {
    let cluster = Cluster::attach();
    let watch = cluster.command("bpstat").args(["-U", "-s", "2"]).user(User::other()).start();
    assert_eq!(watch.lines(1, LONG), ["up"]);
    root(&cluster, &["-S", "2", "-s", "unavailable"]);
    let settled = |wanted: &str| {
        eventually(&format!("it says {wanted}"), LONG, || {
            let text = String::from_utf8(watch.stdout()).expect("text");
            (text.lines().last() == Some(wanted)).then_some(())
        });
    };
    settled("unavailable");
    // Over a restart, and it keeps nobody waiting.
    root(&cluster, &["handover"]);
    root(&cluster, &["-S", "2", "-s", "up"]);
    settled("up");
    let mut watch = watch;
    watch.kill();
}

#[test]
fn load_and_memory_are_shown() {
    let cluster = Cluster::attach();
    let figures = || {
        let text = cluster.command("bpstat").args(["--json", "0"]).run().success();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let node = &json["nodes"][0];
        let (all, free) = (node["memory_kib"].as_u64()?, node["memory_available_kib"].as_u64()?);
        Some((node["load"].as_f64()?, all, free))
    };
    let (load, all, free) = eventually("the node has told of its load", LONG, figures);
    let memory = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let total: u64 = memory.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a figure");
    assert!(load >= 0.0 && all == total && free < all, "{load} {all} {free}, of {total}");
    let mut there = cluster.command("bpsh").args(["0", "sleep", "1000"]).start();
    let long = || {
        let table = cluster.command("bpstat").args(["-l", "0"]).run().success();
        let line = table.lines().nth(1).expect("a line");
        (line.split_whitespace().last() == Some("1")).then(|| table.clone())
    };
    let table = eventually("one process runs there", LONG, long);
    let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head[7..], ["Load", "Memory", "Processes"], "{table}");
    there.kill();
}

#[test]
fn roots_programs_run_in_the_nodes_own_namespaces_if_they_are_to() {
    let cluster = Cluster::attach();
    let kinds = ["mnt", "net", "uts", "ipc", "pid"];
    let shown = |host: bool, process: &str| {
        let options = if host { vec!["--host"] } else { vec![] };
        let paths = kinds.map(|kind| format!("/proc/{process}/ns/{kind}"));
        let command = cluster.command("bpsh").args(options).args(["0", "readlink"]).args(paths).user(User::root());
        command.run().success().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (here, there) = (shown(false, "self"), shown(true, "self"));
    // Its `/proc` is that of the node, where 1 is the node's init, elsewhere the holder.
    let (holder, init) = (shown(false, "1"), shown(true, "1"));
    assert_eq!(here, holder);
    assert_eq!(there[..4], init[..4], "all of the node's own");
    assert_ne!(there[0], here[0], "another mount namespace");
    assert_eq!(there[4], here[4], "the cluster's PIDs");
    assert_ne!(there[4], init[4]);

    // It has a ghost like any other: a signal to that ends it.
    let script = "coproc bpsh --host 0 sh -c 'echo on; exec sleep 1000'; pid=$COPROC_PID; read -u ${COPROC[0]} on; \
                  pkill -TERM -P $pid; wait $pid; echo $on $?";
    assert_eq!(cluster.command("bash").args(["-c", script]).user(User::root()).run().success(), "on 143\n");

    let refused = cluster.command("bpsh").args(["--host", "0-1", "true"]).user(User::ordinary()).run();
    let refused = refused.expect(Ended::Exited(125));
    assert_eq!(refused.error_text(), "0-1: forbidden: --host is root's alone; leave it out\n");
}

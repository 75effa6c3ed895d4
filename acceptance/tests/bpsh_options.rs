//! The long options of bpsh, each as a user would try it.

use std::time::Duration;

use acceptance::{Cluster, Ended, Finished, User, poll_until};
use serde_json::Value;

fn run(cluster: &Cluster, words: &[&str]) -> Finished {
    cluster.command("bpsh").args(words).user(User::ordinary()).run()
}

fn shown(cluster: &Cluster, words: &[&str]) -> String {
    run(cluster, words).success()
}

/// How many processes with this in their command line there are on a node.
fn count(cluster: &Cluster, node: u32, what: &str) -> usize {
    let pattern = format!("[{}]{}", &what[..1], &what[1..]);
    let found = cluster.node(node).command("pgrep").args(["-fc", &pattern]).run();
    found.text().trim().parse().expect("a number")
}

fn none_left(cluster: &Cluster, node: u32, what: &str) {
    let gone = poll_until(Duration::from_secs(20), || (count(cluster, node, what) == 0).then_some(()));
    assert!(gone.is_some(), "{what} is left on node {node}");
}

#[test]
fn equal_output_is_shown_once() {
    let cluster = Cluster::attach();
    let script = "echo same; case $(hostname) in n1) echo more;; n2) exit 3;; esac";
    let finished = run(&cluster, &["-s", "--gather", "0-3", script]).expect(Ended::Exited(3));
    let dashes = "---------------";
    let group = |title: &str, text: &str| format!("{dashes}\n{title}\n{dashes}\n{text}");
    let wanted = group("0,3 (2)", "same\n") + &group("1", "same\nmore\n") + &group("2: failed, exit 3", "same\n");
    assert_eq!(finished.text(), wanted);
    assert_eq!(shown(&cluster, &["-s", "--label", "1,0", "echo a; echo b"]), "0: a\n0: b\n1: a\n1: b\n");
}

#[test]
fn what_is_out_of_time_is_ended_with_all_that_it_made() {
    let cluster = Cluster::attach();
    let script = "echo begun; setsid sleep 7001 & (trap '' TERM; sleep 7002; sleep 7003) & sleep 7004";
    // A slow machine may need longer to begin.
    let kept = ["1", "8", "32"].into_iter().any(|limit| {
        let finished = run(&cluster, &["--timeout", limit, "0-1", script]).expect(Ended::Exited(124));
        assert_eq!(finished.error_text(), format!("0-1: timed out after {limit} s\n"));
        for node in [0, 1] {
            none_left(&cluster, node, "sleep 700");
        }
        finished.text() == "begun\nbegun\n"
    });
    assert!(kept, "what was written before is kept");
    assert_eq!(run(&cluster, &["--timeout", "60", "0-1", "true"]).ended, Ended::Exited(0));
}

#[test]
fn one_failure_ends_the_others_if_that_is_asked_for() {
    let cluster = Cluster::attach();
    let script = "case $(hostname) in n1) exit 4;; esac; sleep 7011";
    assert_eq!(run(&cluster, &["--halt", "0-3", script]).ended, Ended::Exited(4));
    let script = "case $(hostname) in n1) exit 0;; esac; sleep 7011";
    assert_eq!(run(&cluster, &["--halt=now,success=1", "0-3", script]).ended, Ended::Exited(0));
    for node in 0..4 {
        none_left(&cluster, node, "sleep 7011");
    }
}

#[test]
fn whose_exit_status_counts_can_be_chosen() {
    let cluster = Cluster::attach();
    let script = "case $(hostname) in n0) exit 3;; n1) exit 40;; n2) kill -9 $$;; esac";
    for (rule, nodes, code) in [("max", "0-3", 137), ("count", "0-3", 3), ("rank0", "0-3", 3), ("first", "1,3", 40)] {
        assert_eq!(run(&cluster, &["--exit", rule, nodes, script]).ended, Ended::Exited(code), "{rule}");
    }
}

#[test]
fn few_at_once_are_all_in_the_end() {
    let cluster = Cluster::attach();
    let events = shown(&cluster, &["--json", "-N", "--fanout", "2", "0-3,0-3", "true"]);
    let mut running = 0;
    let mut begun = 0;
    for event in events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        match event["event"].as_str() {
            Some("started") => (running, begun) = (running + 1, begun + 1),
            Some("exit") => running -= 1,
            _ => {}
        }
        assert!(running <= 2, "{events}");
    }
    assert_eq!((begun, running), (8, 0), "{events}");
    let input = cluster.command("bpsh").args(["-s", "--fanout", "1", "0-2", "cat"]).input("text\n").run().success();
    assert_eq!(input, "text\ntext\ntext\n");
    let soon = run(&cluster, &["--fanout", "1", "--halt=soon", "0-3", "hostname; exit 3"]).expect(Ended::Exited(3));
    assert_eq!(soon.text(), "n0\n");
}

#[test]
fn directory_environment_and_files_are_the_nodes() {
    let cluster = Cluster::attach();
    assert_eq!(shown(&cluster, &["--chdir", "/etc", "--env", "A=b c", "0", "pwd; echo $A"]), "/etc\nb c\n");
    let finished = run(&cluster, &["--chdir", "/nowhere", "0", "pwd"]).expect(Ended::Exited(125));
    assert_eq!(finished.error_text(), "0: not started: /nowhere: No such file or directory\n");

    let (out, err) = ("/tmp/option-out", "/tmp/option-err");
    assert_eq!(shown(&cluster, &["0-1", "-O", out, "-E", err, "hostname; echo error >&2"]), "");
    assert_eq!(shown(&cluster, &["-s", "0-1", "cat", out, err]), "n0\nerror\nn1\nerror\n");
    assert_eq!(shown(&cluster, &["1", "-I", out, "cat"]), "n1\n");
    let finished = run(&cluster, &["0", "-I", "/none", "cat"]).expect(Ended::Exited(125));
    assert_eq!(finished.error_text(), "0: not started: /none: No such file or directory\n");
    run(&cluster, &["0-1", "rm", out, err]).success();
}

#[test]
fn events_are_a_line_each() {
    let cluster = Cluster::attach();
    let script = "echo out; echo error >&2; case $(hostname) in n1) kill -9 $$;; esac; exit 3";
    let finished = run(&cluster, &["--json", "0-1,77", script]).expect(Ended::Exited(137));
    assert_eq!(finished.error_text(), "");
    let text = finished.text();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&events[0]["event"], &events[0]["version"]), (&"begin".into(), &1.into()));
    assert_eq!(events.last().expect("an end")["code"], 137, "{text}");
    let of = |rank: u64, kind: &str| {
        let found: Vec<&Value> =
            events.iter().filter(|event| event["rank"] == rank && event["event"] == kind).collect();
        assert_eq!(found.len(), if kind == "output" { 2 } else { 1 }, "{rank} {kind}: {text}");
        found[0].clone()
    };
    assert_eq!(of(0, "exit")["code"], 3);
    assert!(of(0, "exit")["max_rss_kib"].as_u64().expect("memory") > 0);
    assert_eq!((&of(1, "exit")["signal_name"], &of(1, "exit")["core"]), (&"SIGKILL".into(), &false.into()));
    assert_eq!(of(0, "started")["name"], "n0");
    assert_eq!(of(2, "not_started")["code"], 125);
    of(0, "output");
}

#[test]
fn a_dry_run_runs_nothing() {
    let cluster = Cluster::attach();
    let plan = run(&cluster, &["--dry-run", "0-2,77", "touch", "/tmp/dry run"]).expect(Ended::Exited(125));
    assert!(plan.text().starts_with("0-2: would run touch '/tmp/dry run'\n77: no such node"), "{}", plan.text());
    assert!(!cluster.node(0).path("/tmp/dry run").exists());
    let both = run(&cluster, &["--dry-run", "--json", "0", "id"]).expect(Ended::Exited(125));
    assert!(both.error_text().contains("'--json'"), "{}", both.error_text());
}

#[test]
fn output_that_cannot_be_written_is_no_failure_of_the_program() {
    let cluster = Cluster::attach();
    let line = "bpsh 0-1 --gather echo much > /dev/full";
    let lost = cluster.command("bash").args(["-c", line]).run().expect(Ended::Exited(125));
    assert_eq!(lost.error_text(), "bpsh: cannot write output: No space left on device\n");
}

#[test]
fn what_is_detached_stays_and_is_signalled_as_a_ghost() {
    let cluster = Cluster::attach();
    let pids = shown(&cluster, &["--detach", "0-1", "sleep", "7021"]);
    let pids: Vec<&str> = pids.lines().collect();
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert_eq!((count(&cluster, 0, "sleep 7021"), count(&cluster, 1, "sleep 7021")), (1, 1));
    let kill = cluster.command("bash").args(["-c", &format!("kill -9 {}", pids.join(" "))]);
    kill.user(User::ordinary()).run().success();
    for node in [0, 1] {
        none_left(&cluster, node, "sleep 7021");
    }
    let wait = format!("timeout 30 tail --pid={} -f /dev/null", pids[0]);
    cluster.command("bash").args(["-c", &wait]).run().success();
    let finished = run(&cluster, &["--detach", "0", "no-such-program"]).expect(Ended::Exited(127));
    assert_eq!(finished.error_text(), "0: no-such-program: No such file or directory\n");
}

//! What whoever waits for bpsh learns of how the program ended: code, signal, or why there was none.

use std::time::Duration;

use acceptance::{Cluster, Cmd, Ended, Finished};

const LONG: Duration = Duration::from_secs(240);

fn bpsh(cluster: &Cluster, words: &[&str]) -> Finished {
    cluster.command("bpsh").args(words).run()
}

/// Signals that end a process that does nothing about them (signal(7)), 32 and 33 included, which libc keeps to itself.
fn fatal() -> impl Iterator<Item = i32> {
    use nix::libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    const HARMLESS: [i32; 8] = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
    (1..=64).filter(|signal| !HARMLESS.contains(signal))
}

#[test]
fn every_exit_code_is_the_programs() {
    let cluster = Cluster::attach();
    let every = "for code in $(seq 0 255); do bpsh 0 probe exit $code; echo $code $?; done";
    let shown = cluster.command("bash").args(["-c", every]).limit(LONG).run().success();
    let wanted: String = (0..=255).map(|code| format!("{code} {code}\n")).collect();
    assert_eq!(shown, wanted);
}

#[test]
fn every_fatal_signal_is_the_one_in_the_wait_status() {
    let cluster = Cluster::attach();
    assert_eq!(fatal().count(), 56);
    for signal in fatal() {
        let number = signal.to_string();
        let locally = cluster.command("probe").args(["die", &number]).run().ended;
        assert_eq!(locally, Ended::Signaled(signal), "the probe itself");
        assert_eq!(bpsh(&cluster, &["1", "probe", "die", &number]).ended, locally, "signal {signal}");
    }
}

#[test]
fn who_dies_by_a_signal_leaves_no_core_here() {
    let cluster = Cluster::attach();
    let directory = "/tmp/core-files";
    // Where cores go to a program or to another place, none must come there either: bpsh is not dumpable then.
    let script = format!(
        "mkdir -p {directory} && cd {directory} && ulimit -c unlimited && bpsh 0 probe die 11; s=$?; ls -A; exit $s"
    );
    let ended = cluster.command("bash").args(["-c", &script]).run();
    assert_eq!((ended.ended, ended.text().as_str()), (Ended::Exited(139), ""), "{}", ended.error_text());
}

#[test]
fn a_signal_that_was_sent_to_the_ghost_is_in_its_status_too() {
    let cluster = Cluster::attach();
    let mut shell = acceptance::Shell::start(&cluster, acceptance::User::ordinary());
    // Without job control a shell's background programs ignore SIGINT and SIGQUIT.
    shell.run("set -m");
    // glibc's posix_spawn leaves 32 and 33 ignored in whatever it starts (sysdeps/unix/sysv/linux/spawni.c), and what is
    // ignored here is ignored there.
    for signal in fatal().filter(|signal| ![32, 33].contains(signal)) {
        // The ghost is bpsh's only child, and the program ends by the signal itself.
        let line = format!(
            "bpsh 2 sleep 1000 < /dev/null & job=$!; until ghost=$(pgrep -P $job) && bpstat -p | grep -qw $ghost; do sleep .01; done; \
             probe kill $ghost {signal} >&2; wait $job; echo $?"
        );
        let answer = shell.run_within(&line, Duration::from_secs(60));
        assert_eq!(answer.output.trim(), (128 + signal).to_string(), "signal {signal}: {}", shell.stderr());
    }
}

#[test]
fn of_several_ranks_the_largest_counts() {
    let cluster = Cluster::attach();
    // Which node: by its host name n0, n1, …
    let script = "case $(hostname) in n0) exit 3;; n1) exit 200;; n2) kill -9 $$;; *) exit 0;; esac";
    assert_eq!(bpsh(&cluster, &["0,3", script]).ended, Ended::Exited(3));
    assert_eq!(bpsh(&cluster, &["0,2-3", script]).ended, Ended::Exited(137));
    assert_eq!(bpsh(&cluster, &["0-3", script]).ended, Ended::Exited(200));
    assert_eq!(bpsh(&cluster, &["3,3", script]).ended, Ended::Exited(0));
}

/// Ends with this code, and says so on stderr in lines of `N: reason`.
#[track_caller]
fn refused(command: Cmd, code: i32, reasons: &[&str], output: &str) {
    let finished = command.run().expect(Ended::Exited(code));
    let mut said: Vec<String> = finished.error_text().lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, reasons);
    assert_eq!(finished.text(), output);
}

#[test]
fn what_cannot_be_executed_says_why_and_the_others_run() {
    let cluster = Cluster::attach();
    let node = cluster.node(1);
    let plain = node.path("/tmp/plain-file");
    std::fs::write(&plain, "#!/bin/sh\necho it runs\n").expect("a file on node 1");
    let only_on_one = node.path("/tmp/only-on-one");
    std::fs::write(&only_on_one, "#!/bin/sh\necho it runs\n").expect("a file on node 1");
    let runnable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&only_on_one, runnable).expect("its mode");
    let bpsh = |words: &[&str]| cluster.command("bpsh").args(words);

    refused(bpsh(&["0", "/no/such"]), 127, &["0: /no/such: No such file or directory"], "");
    refused(bpsh(&["0", "no-such-program"]), 127, &["0: no-such-program: No such file or directory"], "");
    refused(bpsh(&["1", "/tmp/plain-file"]), 126, &["1: /tmp/plain-file: Permission denied"], "");
    refused(bpsh(&["1", "/tmp"]), 126, &["1: /tmp: Permission denied"], "");
    let reasons = ["0: /tmp/only-on-one: No such file or directory", "2: /tmp/only-on-one: No such file or directory"];
    refused(bpsh(&["0-2", "/tmp/only-on-one"]), 127, &reasons, "it runs\n");
}

#[test]
fn an_unknown_node_says_so_and_the_others_run() {
    let cluster = Cluster::attach();
    let finished = cluster.command("bpsh").args(["0,77", "hostname"]).run();
    assert_ne!(finished.ended, Ended::Exited(0));
    assert!(finished.error_text().starts_with("77: "), "{}", finished.error_text());
    assert_eq!(finished.error_text().lines().count(), 1);
    assert_eq!(finished.text(), "n0\n");
}

#[test]
fn a_node_that_is_down_says_so_and_the_others_run() {
    let cluster = Cluster::attach();
    let node = cluster.node(3);
    node.control("stop");
    let finished = acceptance::poll_until(Duration::from_secs(30), || {
        let finished = cluster.command("bpsh").args(["2-3", "hostname"]).run();
        (finished.text() == "n2\n").then_some(finished)
    });
    node.control("start");
    let back = acceptance::poll_until(Duration::from_secs(30), || {
        (cluster.command("bpsh").args(["3", "hostname"]).run().ended == Ended::Exited(0)).then_some(())
    });
    let finished = finished.expect("node 3 is seen to be down");
    assert_ne!(finished.ended, Ended::Exited(0));
    assert!(finished.error_text().starts_with("3: "), "{}", finished.error_text());
    assert!(back.is_some(), "node 3 did not come back");
}

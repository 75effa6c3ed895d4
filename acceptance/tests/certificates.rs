//! Nodes' certificates: another one in the place of the present one, while programs run; and whether a node could go on with what it has.

use std::fs;
use std::path::Path;
use std::time::Duration;

use acceptance::{Cluster, Ended, Member, User, eventually};

const LONG: Duration = Duration::from_secs(60);
const IDENTITY: &str = "/var/lib/ghostproc/node";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// The node's agent looks at its certificate anew.
fn reload(node: &Member) {
    ghost_sys::pidfd::kill(node.daemon().cast_signed(), 1).expect("SIGHUP");
}

fn master_says(cluster: &Cluster, words: &str) {
    eventually(words, LONG, || cluster.master().log_tail(200).contains(words).then_some(()));
}

fn is_up(cluster: &Cluster) {
    let status = || cluster.command("bpstat").args(["-s", "4"]).run().success();
    eventually("node 4 is up", LONG, || (status() == "up\n").then_some(()));
}

#[test]
fn a_certificate_is_renewed_while_a_program_runs() {
    let cluster = Cluster::attach();
    let node = cluster.node(4);
    is_up(&cluster);
    let (present, before, after) = (node.path(IDENTITY), node.path("/tmp/before"), node.path("/tmp/after"));
    copy(&present, &before);
    let _ = fs::remove_file(node.path("/tmp/renewed"));
    let program = "i=0; until test -e /tmp/renewed; do i=$((i+1)); echo $i; sleep 0.02; done; echo end";
    let running = cluster.command("bpsh").args(["4", program]).user(User::ordinary()).start();
    running.lines(1, LONG);
    let said = node.command("nodeagent").arg("renew").run().success();
    assert!(said.starts_with("node 4 has a new certificate"), "{said}");
    copy(&present, &after);
    let read = |directory: &Path, name: &str| fs::read(directory.join(name)).expect("a file");
    for name in ["key.pem", "cert.pem"] {
        assert_ne!(read(&before, name), read(&after, name), "{name} is what it was");
    }
    assert_eq!(read(&before, "ca.pem"), read(&after, "ca.pem"));
    reload(node);
    master_says(&cluster, "it has its new certificate: the one before is refused from now on node=4");
    is_up(&cluster);
    fs::write(node.path("/tmp/renewed"), "").expect("a file");
    let finished = running.wait();
    let text = finished.success();
    let lines: Vec<&str> = text.lines().collect();
    let (last, counted) = lines.split_last().expect("lines");
    assert_eq!(*last, "end");
    assert!(counted.iter().enumerate().all(|(i, line)| *line == (i + 1).to_string()), "a line is lost or doubled");
    // Who has kept the old one comes in no more; the new one is still good.
    copy(&before, &present);
    reload(node);
    master_says(&cluster, "has been replaced");
    copy(&after, &present);
    is_up(&cluster);
}

/// As an upgrade asks before it puts another nodeagent in the place of one that works.
#[test]
fn whether_nodeagent_could_run_is_told_beforehand() {
    let cluster = Cluster::attach();
    let node = cluster.node(3);
    let check = || node.command("nodeagent").arg("check").run();
    assert!(check().success().starts_with("nodeagent "));
    let configuration = node.path("/etc/ghostproc/nodeagent.toml");
    let before = fs::read(&configuration).ok();
    fs::create_dir_all(configuration.parent().expect("a directory")).expect("a directory");
    fs::write(&configuration, "nonsense = 1\n").expect("a configuration");
    let refused = check();
    match before {
        Some(before) => fs::write(&configuration, before).expect("a configuration"),
        None => fs::remove_file(&configuration).expect("no configuration"),
    }
    assert!(refused.error_text().contains("nodeagent.toml:1"), "{refused:?}");
    refused.expect(Ended::Exited(1));
    let identity = node.path(&format!("{IDENTITY}/identity.toml"));
    let kept = fs::read(&identity).expect("an identity");
    fs::remove_file(&identity).expect("an identity");
    let refused = check();
    fs::write(&identity, kept).expect("an identity");
    refused.expect(Ended::Exited(1));
    assert!(check().success().starts_with("nodeagent "));
}

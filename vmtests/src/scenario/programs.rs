//! Statuses, signals, streams and the tree, in short: the acceptance tests have them at length.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::root::Release;

pub fn run(cluster: &Cluster, _: Release) -> Result<()> {
    let master = &cluster.master;
    ensure!(cluster.as_user("bpsh 1 sh -c 'exit 7'; echo $?")?.trim() == "7", "an exit status");
    ensure!(cluster.as_user("bpsh 0 nosuch; echo $?")?.trim() == "127", "a program that is not there");
    ensure!(cluster.as_user("bpsh 0-1 hostname | sort")? == "n0\nn1\n", "host names");
    ensure!(cluster.as_user("bpsh 1 id -un")?.trim() == "alice", "the user");

    // SIGKILL: the ghost leaves the table after its process.
    cluster.as_user("bpsh 1 sleep 4711 & echo $! > bpsh.pid; exec > /dev/null 2>&1; sleep 0")?;
    let ghost = master.until("pgrep -P $(cat /home/alice/bpsh.pid)")?;
    let there = &cluster.nodes[1];
    there.until("pgrep -fx 'sleep 4711'")?;
    master.run(&format!("su - alice -c 'kill -9 {}'", ghost.trim()))?;
    master.until(&format!("! test -d /proc/{}", ghost.trim()))?;
    ensure!(there.try_run("pgrep -fx 'sleep 4711'")?.status == 1, "the process outlived its ghost");

    // What a program forks has a ghost, too: a child of its parent's, which ends it.
    cluster.as_user(
        "{ bpsh 0 sh -c 'sleep 4716 & wait; exit 3' > fork.out 2>&1; echo $? > fork.status; } & exec > /dev/null 2>&1; sleep 0",
    )?;
    let fork = master.until("pgrep -fx 'sleep 4716'").context("what a program forks has no ghost")?;
    let parent = master.run(&format!("ps -o args= -p $(ps -o ppid= -p {})", fork.trim()))?;
    ensure!(parent.starts_with("sh -c sleep 4716"), "the ghost of a fork has another parent: {parent}");
    master.run(&format!("su - alice -c 'kill {}'", fork.trim()))?;
    master.until("test \"$(cat /home/alice/fork.status)\" = 3")?;

    // A handler on the node, a signal on the master.
    let status = cluster.as_user(
        "bpsh 0 bash -c 'trap \"echo caught; exit 9\" TERM; echo ready; while :; do read -t 1 <> <(:); done' > out & \
         until grep -q ready out; do sleep 0.2; done; kill %1; wait %1; echo $?; cat out",
    )?;
    ensure!(status.ends_with("9\nready\ncaught\n"), "a signal and its handler: {status}");

    // Some megabytes each way, to both nodes and back.
    let sums = cluster.as_user(
        "head -c 6000000 /dev/urandom > data; sha256sum < data; bpsh 0 cat < data | sha256sum; \
         bpsh 1 'cat; cat /dev/null' < data | bpsh 0 cat | sha256sum; bpsh 0-1 sha256sum < data",
    )?;
    let mut lines = sums.lines();
    let first = lines.next().context("no sum")?;
    ensure!(lines.clone().count() == 4 && lines.all(|line| line == first), "streams are harmed:\n{sums}");

    // The tree, with the nodes beside it.
    let tree = cluster.as_user(
        "bpsh 0-1 sleep 4712 & until [ $(pgrep -cfx 'sleep 4712') = 2 ]; do sleep 0.2; done; ps xf | bpstat -P; kill %1; wait",
    )?;
    for node in ["0", "1"] {
        let shown =
            tree.lines().any(|line| line.split_whitespace().next() == Some(node) && line.contains("\\_ sleep 4712"));
        ensure!(shown, "node {node} is not in the tree:\n{tree}");
    }

    // A command on a node asks the master if it is a process of the cluster, else it is told why not.
    let nodes = cluster.as_user("bpsh 1 bpstat -l")?;
    ensure!(nodes.lines().filter(|line| line.contains(" up ")).count() == 2, "the nodes as seen from one:\n{nodes}");
    let refused = there.try_run("bpstat")?;
    ensure!(refused.status != 0 && refused.err.contains("this is a node"), "a command of the node's own: {refused:?}");
    Ok(())
}

/// On these kernels trampolines (LSM, fentry and their kind) exist; on others not: the daemons hold no program that is one.
pub fn hooks(cluster: &Cluster, _: Release) -> Result<()> {
    for (machine, unit) in cluster.machines().zip(["ghostd", "nodeagent", "nodeagent"]) {
        // Types in include/uapi/linux/bpf.h: BPF_PROG_TYPE_LSM 29; of links BPF_TRACE_FENTRY 24 to BPF_LSM_MAC 27.
        let said = machine.run(&format!(
            "group=/sys/fs/cgroup$(systemctl show -p ControlGroup --value {unit}); \
             for pid in $(find $group -name cgroup.procs -exec cat {{}} +); do cat /proc/$pid/fdinfo/* 2>/dev/null; done; true"
        ))?;
        let values = |name: &str| {
            said.lines()
                .filter_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let programs = values("prog_type:");
        let attached = values("attach_type:");
        ensure!(
            !programs.is_empty() || !values("link_type:").is_empty(),
            "{}: {unit} holds no kernel program: the check looks in the wrong place",
            machine.name()
        );
        ensure!(
            !programs.iter().any(|kind| kind == "29")
                && !attached.iter().any(|kind| matches!(kind.as_str(), "24" | "25" | "26" | "27")),
            "{}: {unit} holds a trampoline program: {programs:?} {attached:?}",
            machine.name()
        );
    }
    Ok(())
}

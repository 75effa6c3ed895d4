//! A user who has logged in at a terminal.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::root::Release;

pub fn run(cluster: &Cluster, _: Release) -> Result<()> {
    let mut shell = cluster.master.terminal("exec su - alice")?;
    shell.expect("alice@master")?;
    // Unlike what is typed, which the terminal echoes, what is printed has a number where the shell was told to count.
    shell.input("PS1=; stty -echo; echo ready$((1+1))\n")?;
    shell.expect("ready2")?;
    shell.input("tty; loginctl session-status | head -1; echo told$((1+1))\n")?;
    let said = shell.expect("told2")?;
    ensure!(said.contains("/dev/pts/"), "no terminal: {said}");

    shell.input("bpsh 0-1 sleep 4713 &\nuntil [ $(pgrep -cfx 'sleep 4713') = 2 ]; do sleep 0.3; done; ps xf | bpstat -P; echo tree$((1+1))\n")?;
    let tree = shell.expect("tree2")?;
    for node in ["0", "1"] {
        let shown = tree.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(node)
                && words.nth(1).is_some_and(|tty| tty.starts_with("pts/"))
                && line.contains("sleep 4713")
        });
        ensure!(shown, "node {node} is not in the tree, with the terminal:\n{tree}");
    }
    // top's own loop, in full screen, ended by a key.
    shell.input("top -d 1 -p $(pgrep -d, -fx 'sleep 4713'); echo topped$((1+1))\n")?;
    shell.expect("sleep")?;
    shell.input("q")?;
    // At its end it throws away what has been typed.
    shell.expect("topped2")?;
    shell.input("kill %1; wait; echo gone$((1+1))\n")?;
    shell.expect("gone2")?;

    // Ctrl-C reaches the foreground job, and the shell sees it die of it.
    shell.input("bpsh 0-1 sleep 4714; echo status$?\n")?;
    let node = &cluster.nodes[0];
    node.until("pgrep -fx 'sleep 4714'")?;
    cluster.nodes[1].until("pgrep -fx 'sleep 4714'")?;
    shell.input("\u{3}")?;
    // What is typed before bpsh has gone is its input.
    cluster.master.until("! pgrep -x bpsh")?;
    shell.input("echo after$?\n")?;
    let said = shell.expect("after")?;
    shell.expect("130").with_context(|| format!("bpsh did not die of Ctrl-C: {said}"))?;
    node.until("! pgrep -fx 'sleep 4714'")?;

    // Ctrl-Z and fg.
    shell.input("bpsh 1 sleep 4715\n")?;
    cluster.nodes[1].until("pgrep -fx 'sleep 4715'")?;
    shell.input("\u{1a}")?;
    cluster.nodes[1].until("test $(ps -o stat= -p $(pgrep -fx 'sleep 4715') | cut -c1) = T")?;
    shell.expect("Stopped")?;
    shell.input("fg\n")?;
    cluster.nodes[1].until("test $(ps -o stat= -p $(pgrep -fx 'sleep 4715') | cut -c1) = S")?;
    shell.input("\u{3}")?;
    cluster.master.until("! pgrep -x bpsh")?;
    shell.input("echo end$((1+1))\n")?;
    shell.expect("end2")?;
    shell.input("exit\n")?;
    shell.wait(crate::machine::LIMIT)?;
    Ok(())
}

//! `bpsh 0-4 sleep 60 & ps xf | bpstat -P`: ghosts are children of bpsh, and each line has its node's number.

use std::time::Duration;

use acceptance::tree::Tree;
use acceptance::{Cluster, Process, Shell, Snapshot, User, eventually};

const LONG: Duration = Duration::from_secs(20);

/// A running `bpsh 0-4 sleep 60`, started as a background job.
struct Launch {
    cluster: Cluster,
    shell: Shell,
    /// In the master's numbers.
    bpsh: u32,
}

impl Launch {
    fn start(user: User) -> Self {
        let cluster = Cluster::attach();
        let mut shell = Shell::start(&cluster, user);
        let bpsh = shell.number("bpsh 0-4 sleep 60 & echo $!");
        eventually("five processes run on the nodes", LONG, || {
            let snapshot = cluster.snapshot();
            let sleeping = snapshot.remote().filter(|process| process.name == "sleep").count();
            (sleeping == 5).then_some(())
        });
        Self { cluster, shell, bpsh }
    }

    fn ghosts<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a Process> {
        let bpsh = snapshot.in_member("master", self.bpsh).expect("bpsh runs");
        snapshot.children(bpsh.pid).collect()
    }

    /// Node numbers by the kernel: a ghost's number is that of its process.
    fn nodes(&self, snapshot: &Snapshot) -> Vec<(u32, String)> {
        let ghosts = self.ghosts(snapshot);
        let node_of = |number: u32| {
            let mut there = snapshot.remote().filter(|process| process.own_number() == number);
            let member = there.next().expect("a process with the ghost's number").member.clone();
            member.trim_start_matches('n').to_owned()
        };
        ghosts.iter().map(|ghost| (ghost.member_number(), node_of(ghost.member_number()))).collect()
    }

    fn end(mut self) {
        let line = format!("kill -9 {}; wait {}", self.bpsh, self.bpsh);
        assert_eq!(self.shell.run(&line).status, 137);
        eventually("nothing is left on the nodes", LONG, || {
            (self.cluster.snapshot().remote().count() == 0).then_some(())
        });
    }
}

#[test]
fn ghosts_are_children_of_bpsh_with_the_programs_name() {
    let launch = Launch::start(User::ordinary());
    let snapshot = launch.cluster.snapshot();
    let bpsh = snapshot.in_member("master", launch.bpsh).expect("bpsh runs");
    let ghosts: Vec<Tree> = (0..5).map(|_| Tree::leaf("sleep")).collect();
    assert_eq!(Tree::of(&snapshot, bpsh.pid), Some(Tree::new("bpsh", ghosts)));
    for ghost in launch.ghosts(&snapshot) {
        assert_eq!((ghost.group, ghost.session), (bpsh.group, bpsh.session), "{ghost:?}");
        assert_eq!(ghost.uids, [1000; 4], "{ghost:?}");
    }
    let mut nodes: Vec<String> = snapshot.remote().map(|process| process.member.clone()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["n0", "n1", "n2", "n3", "n4"], "one process on each node");
    launch.end();
}

#[test]
fn ps_xf_shows_each_ghost_below_bpsh_with_its_node() {
    let mut launch = Launch::start(User::ordinary());
    let output = launch.shell.run("ps xf | bpstat -P").output;
    let lines: Vec<&str> = output.lines().collect();
    let nodes = launch.nodes(&launch.cluster.snapshot());
    assert_eq!(nodes.len(), 5);
    let bpsh_line = lines.iter().position(|line| line.split_whitespace().next() == Some(&launch.bpsh.to_string()));
    let bpsh_line = bpsh_line.unwrap_or_else(|| panic!("no line of bpsh, or one with a node:\n{output}"));
    let indent = |line: &str| line.find("\\_");
    for (number, node) in nodes {
        let number = number.to_string();
        let line = lines.iter().position(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&[&node, &number])
        });
        let line = line.unwrap_or_else(|| panic!("no line begins with node {node} and {number}:\n{output}"));
        assert!(line > bpsh_line && line <= bpsh_line + 5, "below bpsh:\n{output}");
        assert!(indent(lines[line]) > indent(lines[bpsh_line]), "indented below bpsh:\n{output}");
    }
    let local = lines.iter().find(|line| line.contains("bash --norc")).expect("the shell's line");
    assert!(local.starts_with(' '), "what runs here has no node: {local:?}");
    launch.end();
}

#[test]
fn other_forms_of_ps_have_the_nodes_too() {
    let mut launch = Launch::start(User::root());
    let nodes = launch.nodes(&launch.cluster.snapshot());
    for (form, column) in [("ps aux", 2), ("ps -ef", 2), ("ps -e -o ppid,pid,comm", 2), ("ps -eo comm,pid", 2)] {
        let output = launch.shell.run(&format!("{form} | bpstat -P")).output;
        for (number, node) in &nodes {
            let found = output.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.first() == Some(&node.as_str()) && words.get(column) == Some(&number.to_string().as_str())
            });
            assert!(found, "`{form}`: no line with node {node} and process {number}:\n{output}");
        }
    }
    launch.end();
}

#[test]
fn bpstat_lists_the_processes_with_their_nodes() {
    let mut launch = Launch::start(User::ordinary());
    let output = launch.shell.run("bpstat -p").output;
    for (number, node) in launch.nodes(&launch.cluster.snapshot()) {
        let found = output.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&[&number.to_string(), &node])
        });
        assert!(found, "no line begins with {number} {node}:\n{output}");
    }
    launch.end();
}

//! Trees of processes: how they look, and whether they are as they should be.

use std::fmt;

use crate::Snapshot;

/// A process and its children by name, in order of their names: what a test expects to see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tree {
    pub name: String,
    pub children: Vec<Tree>,
}

impl Tree {
    pub fn new(name: &str, children: impl IntoIterator<Item = Tree>) -> Self {
        let mut children: Vec<Tree> = children.into_iter().collect();
        children.sort();
        Self { name: name.to_owned(), children }
    }

    pub fn leaf(name: &str) -> Self {
        Self::new(name, [])
    }

    /// The tree below (and with) a process of the host's number `root`. Zombies count: they are in the process table.
    pub fn of(snapshot: &Snapshot, root: u32) -> Option<Self> {
        let process = snapshot.get(root)?;
        Some(Self::new(&process.name, snapshot.children(root).filter_map(|child| Self::of(snapshot, child.pid))))
    }
}

/// `bpsh(sleep sleep)`.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (place, child) in self.children.iter().enumerate() {
            write!(f, "{}{child}", if place == 0 { "(" } else { " " })?;
        }
        if self.children.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// All processes as `ps xf` would show them, with each one's numbers, state and user.
pub fn picture(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut member = None;
    let mut roots: Vec<_> = snapshot.processes.iter().filter(|p| snapshot.get(p.parent).is_none()).collect();
    roots.sort_by_key(|process| (process.member.clone(), process.started));
    for root in roots {
        if member != Some(&root.member) {
            text += &format!("{}\n", root.member);
            member = Some(&root.member);
        }
        draw(snapshot, root.pid, 1, &mut text);
    }
    text
}

fn draw(snapshot: &Snapshot, pid: u32, depth: usize, text: &mut String) {
    let Some(process) = snapshot.get(pid) else { return };
    let numbers: Vec<String> = process.numbers.iter().map(u32::to_string).collect();
    let uid = process.uids[1];
    *text += &format!("{}{} {} {} uid {uid}\n", "  ".repeat(depth), process.state, numbers.join("/"), process.name);
    for child in snapshot.children(pid) {
        draw(snapshot, child.pid, depth + 1, text);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Cluster, eventually};

    /// A shell with one child, which has two.
    const FAMILY: &str = "sh -c 'sleep 50 & sleep 51 & wait' & wait";

    fn wanted() -> Tree {
        Tree::new("bash", [Tree::new("sh", [Tree::leaf("sleep"), Tree::leaf("sleep")])])
    }

    #[test]
    fn a_family_is_recognised() {
        let cluster = Cluster::attach();
        let running = cluster.command("bash").args(["-c", FAMILY]).start();
        eventually("the family is there", Duration::from_secs(20), || {
            (Tree::of(&cluster.snapshot(), running.pid())? == wanted()).then_some(())
        });
        assert_eq!(wanted().to_string(), "bash(sh(sleep sleep))");
    }

    #[test]
    fn planted_a_reparented_process_is_seen() {
        let cluster = Cluster::attach();
        let running = cluster.command("bash").args(["-c", FAMILY]).start();
        eventually("the family is there", Duration::from_secs(20), || {
            (Tree::of(&cluster.snapshot(), running.pid())? == wanted()).then_some(())
        });
        let snapshot = cluster.snapshot();
        let middle = snapshot.children(running.pid()).next().expect("the inner shell").pid;
        let sleeps: Vec<u32> = snapshot.children(middle).map(|process| process.pid).collect();
        // Its children go to the member's init.
        ghost_sys::pidfd::kill(middle.cast_signed(), 9).expect("kill");
        eventually("the tree has changed", Duration::from_secs(20), || {
            let tree = Tree::of(&cluster.snapshot(), running.pid());
            (tree.as_ref() != Some(&wanted())).then_some(())
        });
        let snapshot = cluster.snapshot();
        for pid in sleeps {
            let orphan = snapshot.get(pid).expect("the orphan lives");
            assert_ne!(orphan.parent, middle);
            ghost_sys::pidfd::kill(pid.cast_signed(), 9).expect("kill");
        }
    }
}

//! The tree of ghosts on the master against the real trees on the nodes, process by process.
//!
//! Both come from the host's /proc: of a node's processes in the numbers of its cluster PID namespace, of ghosts in those of
//! the master. A process and its ghost have the same number, or the numbers that `bpstat -p` names: a claim of the product's, which
//! says only what is to be compared with what. Parents, groups and sessions that are not of the tree (the
//! launcher and whatever is above it) have other numbers on both sides, as long as they are one on one side if and only if
//! they are one on the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Process, Snapshot};

/// What there is to know of a process while nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Alive,
    Stopped,
    /// It has ended, and nobody has waited for it.
    Zombie,
}

impl Life {
    const fn of(state: char) -> Life {
        match state {
            'T' => Life::Stopped,
            'Z' | 'X' => Life::Zombie,
            _ => Life::Alive,
        }
    }
}

/// A process as one side shows it, all numbers being that side's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub number: u32,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    pub name: String,
    pub life: Life,
}

impl Entry {
    /// `level`: which of the namespaces of [`Process::numbers`] counts.
    fn of(process: &Process, parent: u32, level: usize) -> Option<Entry> {
        Some(Entry {
            number: *process.numbers.get(level)?,
            parent,
            group: *process.group_numbers.get(level)?,
            session: *process.session_numbers.get(level)?,
            name: process.name.clone(),
            life: Life::of(process.state),
        })
    }
}

/// By number.
pub type Side = BTreeMap<u32, Entry>;

/// The cluster's processes on a node, but its holder and stand-ins there for processes of the master's own (`local`: number
/// and name).
pub fn on_node(snapshot: &Snapshot, member: &str, local: &BTreeSet<(u32, String)>) -> Side {
    const CLUSTER: usize = 2;
    let all = snapshot.of(member).filter(|process| process.is_remote() && !process.is_holder() && !process.stands_in);
    let real = all.filter(|process| !local.contains(&(process.own_number(), process.name.clone())));
    let entries = real.filter_map(|process| {
        let parent = snapshot.get(process.parent).filter(|parent| parent.is_remote()).map_or(0, Process::own_number);
        Entry::of(process, parent, CLUSTER)
    });
    entries.map(|entry| (entry.number, entry)).collect()
}

/// The master's processes that are not in `others` (the host's number and start): those that were there before anything was
/// launched, and the launchers.
pub fn ghosts(snapshot: &Snapshot, others: &BTreeSet<(u32, u64)>) -> Side {
    const MASTER: usize = 1;
    let new = snapshot.of("master").filter(|process| !others.contains(&(process.pid, process.started)));
    let entries = new.filter_map(|process| {
        let parent = snapshot.get(process.parent).map_or(0, Process::member_number);
        Entry::of(process, parent, MASTER)
    });
    entries.map(|entry| (entry.number, entry)).collect()
}

/// Which ghost is whose: its number by node and number there, where that is another one.
pub type Numbers = BTreeMap<(String, u32), u32>;

/// Reads what `bpstat -p` prints: lines of PID, node and, if it is another one, PID there.
pub fn numbers(table: &str) -> Numbers {
    let row = |line: &str| -> Option<((String, u32), u32)> {
        let words: Vec<u32> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [here, node, there] = words.as_slice() else { return None };
        Some(((format!("n{node}"), *there), *here))
    };
    table.lines().filter_map(row).collect()
}

/// The table of numbers, completed: it does not tell of zombies, which are found by their parents and names.
fn with_zombies(node: &str, real: &Side, ghosts: &Side, numbers: &Numbers) -> Numbers {
    let mut all = numbers.clone();
    let key = |number: u32| (node.to_owned(), number);
    let mut taken: BTreeSet<u32> = numbers.values().copied().collect();
    for zombie in real.values().filter(|entry| entry.life == Life::Zombie && !numbers.contains_key(&key(entry.number)))
    {
        let parent = numbers.get(&key(zombie.parent)).copied().unwrap_or(zombie.parent);
        let fits = |ghost: &&Entry| {
            ghost.life == Life::Zombie
                && ghost.name == zombie.name
                && (ghost.parent == parent || !real.contains_key(&zombie.parent))
                && !taken.contains(&ghost.number)
        };
        let same = ghosts.get(&zombie.number).filter(fits);
        if let Some(ghost) = same.or_else(|| ghosts.values().find(fits)) {
            taken.insert(ghost.number);
            all.insert(key(zombie.number), ghost.number);
        }
    }
    all
}

/// A node's side in the numbers of the master, as far as the processes of the tree go.
fn translated(node: &str, real: &Side, numbers: &Numbers) -> Vec<Entry> {
    let here = |number: u32| {
        let known = real.contains_key(&number).then(|| numbers.get(&(node.to_owned(), number)).copied());
        known.flatten().unwrap_or(number)
    };
    let entry = |entry: &Entry| Entry {
        number: here(entry.number),
        parent: here(entry.parent),
        group: here(entry.group),
        session: here(entry.session),
        ..entry.clone()
    };
    real.values().map(entry).collect()
}

/// What is not equal, a line for each fault; nothing: all is.
pub fn differences(ghosts: &Side, nodes: &BTreeMap<String, Side>, numbers: &Numbers) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (node, real) in nodes {
        let entries = translated(node, real, &with_zombies(node, real, ghosts, numbers));
        let real: Side = entries.iter().map(|entry| (entry.number, entry.clone())).collect();
        let (mut groups, mut sessions) = (Pairs::default(), Pairs::default());
        for entry in &entries {
            if !seen.insert(entry.number) {
                found.push(format!("{node}: a second process for the ghost of {entry:?}"));
            }
            let Some(ghost) = ghosts.get(&entry.number) else {
                found.push(format!("{node}: no ghost of {entry:?}"));
                continue;
            };
            let mut differ = |what: &str, here: String, there: String| {
                let (number, name, life) = (entry.number, &entry.name, entry.life);
                found.push(format!("{node}: {number} ({name}, {life:?}): {what}: {there} there, ghost {here}"));
            };
            if ghost.name != entry.name {
                differ("name", ghost.name.clone(), entry.name.clone());
            }
            if ghost.life != entry.life {
                differ("state", format!("{:?}", ghost.life), format!("{:?}", entry.life));
            }
            // Outside of the tree it is the launcher here and the holder there, or init on both sides.
            let inside = |side: &Side, number: u32| side.contains_key(&number).then_some(number);
            if inside(ghosts, ghost.parent) != inside(&real, entry.parent) {
                differ("parent", ghost.parent.to_string(), entry.parent.to_string());
            }
            if let Some(other) = groups.misfit(ghost.group, entry.group) {
                differ("group", format!("{} (others: {other})", ghost.group), entry.group.to_string());
            }
            if let Some(other) = sessions.misfit(ghost.session, entry.session) {
                differ("session", format!("{} (others: {other})", ghost.session), entry.session.to_string());
            }
        }
    }
    let extra = ghosts.values().filter(|ghost| !seen.contains(&ghost.number));
    found.extend(extra.map(|ghost| format!("no process on any node: ghost {ghost:?}")));
    found
}

/// Which number here goes with which there, once and for all.
#[derive(Default)]
struct Pairs {
    there_of: BTreeMap<u32, u32>,
    here_of: BTreeMap<u32, u32>,
}

impl Pairs {
    /// `None`: it fits; else how others go together.
    fn misfit(&mut self, here: u32, there: u32) -> Option<String> {
        let (known_there, known_here) =
            (*self.there_of.entry(here).or_insert(there), *self.here_of.entry(there).or_insert(here));
        let fits = known_there == there && known_here == here;
        (!fits).then(|| format!("{there} there is {known_here}, {here} is {known_there} there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, parent: u32, group: u32, session: u32) -> Entry {
        Entry { number, parent, group, session, name: "oak".into(), life: Life::Alive }
    }

    fn side(entries: &[Entry]) -> Side {
        entries.iter().map(|entry| (entry.number, entry.clone())).collect()
    }

    /// A rank 10 with the children 11, which leads a group, and 12, which leads a session; 13 is an orphan.
    fn real() -> Vec<Entry> {
        vec![entry(10, 0, 10, 1), entry(11, 10, 11, 1), entry(12, 10, 12, 12), entry(13, 0, 11, 1)]
    }

    /// Below the launcher 5 of group 4 in session 3.
    fn mirrored() -> Vec<Entry> {
        vec![entry(10, 5, 4, 3), entry(11, 10, 11, 3), entry(12, 10, 12, 12), entry(13, 1, 11, 3)]
    }

    fn judged(ghosts: &[Entry]) -> Vec<String> {
        differences(&side(ghosts), &BTreeMap::from([("n0".to_owned(), side(&real()))]), &Numbers::new())
    }

    #[test]
    fn other_numbers_on_the_node_are_told_apart_by_the_table() {
        let there = vec![entry(2, 0, 2, 1), entry(3, 2, 3, 1), entry(12, 2, 12, 12), entry(10, 0, 3, 1)];
        let nodes = BTreeMap::from([("n0".to_owned(), side(&there))]);
        let told = numbers("PID  Node  Node's PID\n10   0     2\n11   0     3\n12   0\n13   0     10\n");
        assert_eq!(differences(&side(&mirrored()), &nodes, &told), [""; 0]);
        let wrong = numbers("10 0 2\n13 0 3\n12 0\n11 0 10\n");
        assert!(!differences(&side(&mirrored()), &nodes, &wrong).is_empty(), "a table that lies");
        let double = numbers("10 0 2\n11 0 3\n11 0 10\n");
        let told = differences(&side(&mirrored()), &nodes, &double);
        assert!(told.iter().any(|line| line.contains("second process")), "{told:?}");
    }

    #[test]
    fn a_faithful_tree_is_equal() {
        assert_eq!(judged(&mirrored()), [""; 0]);
    }

    #[test]
    fn each_planted_fault_is_found() {
        type Plant = fn(&mut Vec<Entry>);
        let faults: &[(&str, Plant)] = &[
            ("no ghost", |ghosts| ghosts.truncate(3)),
            ("no process", |ghosts| ghosts.push(entry(14, 10, 4, 3))),
            ("parent", |ghosts| ghosts[1].parent = 12),
            ("parent", |ghosts| ghosts[1].parent = 1),
            ("parent", |ghosts| ghosts[3].parent = 11),
            ("group", |ghosts| ghosts[1].group = 4),
            ("group", |ghosts| ghosts[3].group = 4),
            ("session", |ghosts| ghosts[2].session = 3),
            ("name", |ghosts| ghosts[2].name = "elm".into()),
            ("state", |ghosts| ghosts[0].life = Life::Stopped),
            ("state", |ghosts| ghosts[1].life = Life::Zombie),
        ];
        for (what, plant) in faults {
            let mut ghosts = mirrored();
            plant(&mut ghosts);
            let told = judged(&ghosts);
            assert!(told.iter().any(|line| line.contains(what)), "{what}: {told:?}");
        }
    }
}

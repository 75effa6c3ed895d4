//! The cluster's processes, as the host's /proc shows them.
//!
//! Membership is the cgroup: what is anywhere below the cgroup of a member belongs to it. That includes zombies, and
//! processes whose cgroup has been removed (kernel/cgroup/cgroup.c, proc_cgroup_show()).

use std::fs;

use crate::Cluster;

#[derive(Debug, Clone)]
pub struct Process {
    /// In the host's numbers, as `parent`, `group` and `session`.
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// Its numbers from the host's namespace inwards (`NSpid`): for a process of the master `[host, master]`, for one that
    /// runs on a node `[host, node, cluster]`.
    pub numbers: Vec<u32>,
    /// As in [`Process::numbers`], of its process group.
    pub group_numbers: Vec<u32>,
    /// The same of its session.
    pub session_numbers: Vec<u32>,
    /// The member it belongs to: `master`, `n0`, …
    pub member: String,
    /// Below the member's cgroup.
    pub cgroup: String,
    pub name: String,
    /// R, S, D, T, t, Z, X, I.
    pub state: char,
    /// Real, effective, saved, filesystem.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    pub threads: u32,
    /// Bit n-1 for signal n.
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
    /// Resident memory.
    pub rss_kib: u64,
    /// Clock ticks after boot: with the number it names the process for ever.
    pub started: u64,
    /// It runs in a holder's memory, and is none: a stand-in of a process of the master.
    pub stands_in: bool,
}

impl Process {
    /// The number it has in its own PID namespace: what getpid() gives.
    pub fn own_number(&self) -> u32 {
        self.numbers.last().copied().unwrap_or(self.pid)
    }

    /// The number it has in its member's namespace: what `ps` there shows.
    pub fn member_number(&self) -> u32 {
        self.numbers.get(1).copied().unwrap_or(self.pid)
    }

    /// Whether it lives in a namespace below its member's: the cluster's processes of a node (and their holder).
    pub fn is_remote(&self) -> bool {
        self.numbers.len() > 2
    }

    /// Whether it is the PID 1 of such a namespace.
    pub fn is_holder(&self) -> bool {
        self.is_remote() && self.own_number() == 1
    }

    /// A process by its number, wherever it is; None when there is none (any more).
    pub fn read(pid: u32) -> Option<Self> {
        let cgroup = cgroup_of(pid)?;
        Self::complete(pid, String::new(), cgroup)
    }

    fn complete(pid: u32, member: String, cgroup: String) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may contain blanks and parentheses; the fields begin after the last one (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let list = |name: &str| -> Vec<u32> {
            line(name).unwrap_or_default().split_whitespace().filter_map(|text| text.parse().ok()).collect()
        };
        let mask = |name: &str| u64::from_str_radix(line(name).unwrap_or("0").trim(), 16).unwrap_or(0);
        let four = |name: &str| -> Option<[u32; 4]> { list(name).try_into().ok() };
        Some(Self {
            pid,
            parent: number(1)? as u32,
            group: number(2)? as u32,
            session: number(3)? as u32,
            numbers: list("NSpid"),
            group_numbers: list("NSpgid"),
            session_numbers: list("NSsid"),
            member,
            cgroup,
            // status escapes what would break its lines (fs/proc/array.c, proc_task_name()).
            name: line("Name")?.trim_start_matches('\t').to_owned(),
            state: fields.first()?.chars().next()?,
            uids: four("Uid")?,
            gids: four("Gid")?,
            groups: list("Groups"),
            threads: list("Threads").first().copied().unwrap_or(0),
            blocked: mask("SigBlk"),
            ignored: mask("SigIgn"),
            caught: mask("SigCgt"),
            // Zombies have none.
            rss_kib: list("VmRSS").first().copied().map_or(0, u64::from),
            started: number(19)?,
            stands_in: false,
        })
    }
}

/// All processes of a cluster at (about) one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub processes: Vec<Process>,
}

impl Snapshot {
    pub fn take(cluster: &Cluster) -> Self {
        let mount = ghost_sys::mount::cgroup2().expect("cgroup v2");
        let top = cluster.cgroup.strip_prefix(&mount).expect("the cluster's cgroup is below the mount of cgroup v2");
        let top = format!("/{}/", top.display());
        let mut processes = Vec::new();
        for pid in all_pids() {
            let Some(path) = cgroup_of(pid) else { continue };
            let Some((member, rest)) = path.strip_prefix(&top).and_then(|path| path.split_once('/')) else { continue };
            processes.extend(Process::complete(pid, member.to_owned(), rest.to_owned()));
        }
        processes.sort_by_key(|process| (process.started, process.pid));
        // What is launched is in a cgroup of its launch from its birth on, and the holder in its own.
        let holders: Vec<(String, String)> =
            processes.iter().filter(|it| it.is_holder()).map(|it| (it.member.clone(), it.cgroup.clone())).collect();
        for process in processes.iter_mut().filter(|it| it.is_remote() && !it.is_holder()) {
            let its = holders.iter().any(|(member, cgroup)| *member == process.member && *cgroup == process.cgroup);
            process.stands_in = its;
        }
        Self { processes }
    }

    /// By the host's number.
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    /// By the number it has in a member's namespace.
    pub fn in_member(&self, member: &str, number: u32) -> Option<&Process> {
        self.processes.iter().find(|process| process.member == member && process.member_number() == number)
    }

    pub fn of<'a>(&'a self, member: &'a str) -> impl Iterator<Item = &'a Process> {
        self.processes.iter().filter(move |process| process.member == member)
    }

    /// The cluster's processes on the nodes, without the holders and what stands there for processes of the master.
    pub fn remote(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.is_remote() && !process.is_holder() && !process.stands_in)
    }

    /// What stands on the nodes for processes of the master.
    pub fn stand_ins(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.stands_in)
    }

    pub fn children(&self, pid: u32) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(move |process| process.parent == pid)
    }
}

/// Children in the host's numbers, zombies included (/proc/PID/task/TID/children); none when it is gone.
pub fn children_of(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    found
}

/// Children, their children, and so on.
pub fn descendants_of(pid: u32) -> Vec<u32> {
    let mut found = children_of(pid);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children_of(pid));
        next += 1;
    }
    found
}

/// Whether the process has left the process table: not even a zombie is there.
pub fn is_gone(pid: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// The state letter; None when it has left the process table.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 2..)?.chars().next()
}

/// The innermost number of a process (`NSpid`).
pub fn own_number_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

pub(crate) fn all_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Its path in the cgroup v2 hierarchy.
pub(crate) fn cgroup_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

//! What a cluster is made of, seen from outside, and what of it is left later. Reads the kernel only, never the runner.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghost_sys::bpf_objects::{self, Kind};

const KINDS: [&str; 6] = ["net", "mnt", "pid", "uts", "ipc", "cgroup"];

/// The identities of everything that must go. Only what belongs to one cluster is counted, because other clusters may
/// come and go on the same machine meanwhile.
#[derive(Debug, Default)]
pub struct Traces {
    /// As `net:[4026532281]`, which is also how links in /proc/PID/fd name them.
    pub namespaces: BTreeSet<String>,
    pub bpf: BTreeSet<(Kind, u32)>,
    pub paths: BTreeSet<PathBuf>,
    pub processes: BTreeMap<u32, String>,
}

impl Traces {
    /// Of everything in the cgroup, and of the namespaces that only the runner holds.
    pub fn of(cgroup: &Path, state: &Path, runner: u32) -> Self {
        let mut traces = Self::default();
        let own: BTreeSet<String> = KINDS.iter().filter_map(|kind| namespace("self", kind)).collect();
        for pid in members(cgroup) {
            traces.namespaces.extend(KINDS.iter().filter_map(|kind| namespace(&pid.to_string(), kind)));
            traces.processes.insert(pid, comm(pid));
            traces.bpf.extend(bpf_of(pid));
        }
        for link in descriptors(runner) {
            if KINDS.iter().any(|kind| link.starts_with(&format!("{kind}:["))) {
                traces.namespaces.insert(link);
            }
        }
        traces.namespaces.retain(|namespace| !own.contains(namespace));
        traces.paths.insert(cgroup.to_owned());
        traces.paths.insert(state.to_owned());
        traces.paths.extend(fs::read_link(state.join("bin")));
        traces
    }

    /// One line for each thing that still exists.
    pub fn remains(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.paths.iter().filter(|path| path.exists()).map(|path| format!("path {}", path.display())).collect();
        for (kind, id) in &self.bpf {
            if bpf_objects::ids(*kind).expect("the kernel's list of BPF objects").contains(id) {
                found.push(format!("BPF {kind:?} {id}"));
            }
        }
        for pid in pids() {
            for kind in KINDS {
                if namespace(&pid.to_string(), kind).is_some_and(|namespace| self.namespaces.contains(&namespace)) {
                    found.push(format!("process {pid} {} in its {kind} namespace", comm(pid)));
                }
            }
            for link in descriptors(pid) {
                if self.namespaces.contains(&link) {
                    found.push(format!("descriptor of {pid} {}: {link}", comm(pid)));
                }
            }
        }
        for mount in host_mounts() {
            let held = |name: &String| mount.contains(name.as_str());
            let below = |path: &PathBuf| mount.contains(&path.display().to_string());
            if self.namespaces.iter().any(held) || self.paths.iter().any(below) {
                found.push(format!("mount {mount}"));
            }
        }
        found
    }

    /// Namespaces and cgroups are freed behind the back of who ended the last process: some patience is allowed.
    pub fn remains_after(&self, patience: Duration) -> Vec<String> {
        let until = Instant::now() + patience;
        loop {
            let found = self.remains();
            if found.is_empty() || Instant::now() > until {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes of a cgroup and of those below it.
pub fn members(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(members(&entry.path()));
        }
    }
    found
}

/// Devices and IPC do not outlive their namespace, whose identity is its inode number.
fn namespace(pid: &str, kind: &str) -> Option<String> {
    let inode = fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?.ino();
    Some(format!("{kind}:[{inode}]"))
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_str()?.to_owned())).collect()
}

fn bpf_of(pid: u32) -> BTreeSet<(Kind, u32)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        for line in fs::read_to_string(entry.path()).unwrap_or_default().lines() {
            let (key, value) = line.split_once(':').unwrap_or_default();
            let kind = match key {
                "prog_id" => Kind::Program,
                "map_id" => Kind::Map,
                "link_id" => Kind::Link,
                _ => continue,
            };
            found.extend(value.trim().parse().map(|id| (kind, id)));
        }
    }
    found
}

/// Of our own mount namespace, with root and source: a namespace that is kept by a bind mount shows as its root.
fn host_mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    text.lines().map(str::to_owned).collect()
}

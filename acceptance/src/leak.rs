//! What a cluster has, counted from outside, and what it has more than before.
//!
//! Counted are processes (zombies too), mounts of every mount namespace, cgroups, descriptors of the processes that stay,
//! and BPF objects. A BPF object of the kernel that somebody outside the cluster holds open is not the cluster's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ghost_sys::bpf_objects::{Kind, ids, maps_of};

use crate::process::{Process, all_pids};
use crate::{Cluster, Snapshot, poll_until};

/// The name of a process for ever: the host's number and its start.
type Name = (u32, u64);

#[derive(Debug, Clone)]
pub struct Census {
    processes: BTreeMap<Name, String>,
    /// How often each appears, over all mount namespaces.
    mounts: BTreeMap<String, usize>,
    cgroups: BTreeMap<String, usize>,
    descriptors: BTreeMap<Name, BTreeMap<String, usize>>,
    bpf: BTreeSet<(Kind, u32)>,
}

impl Census {
    pub fn take(cluster: &Cluster) -> Self {
        let snapshot = cluster.snapshot();
        let mut cgroups = BTreeMap::new();
        directories(&cluster.cgroup, &mut cgroups);
        let mut bpf = BTreeSet::new();
        for kind in [Kind::Program, Kind::Map, Kind::Link] {
            let all = ids(kind).expect("BPF objects can be listed by root");
            bpf.extend(all.into_iter().map(|id| (kind, id)));
        }
        Self {
            processes: snapshot.processes.iter().map(|process| (name(process), describe(process))).collect(),
            mounts: mounts(&snapshot),
            cgroups,
            descriptors: snapshot.processes.iter().map(|process| (name(process), descriptors(process.pid))).collect(),
            bpf,
        }
    }

    /// What there is now and was not there `before`, one line each.
    pub fn more_than(&self, before: &Self, cluster: &Cluster) -> Vec<String> {
        let mut found = Vec::new();
        for (name, text) in &self.processes {
            if !before.processes.contains_key(name) {
                found.push(format!("process {text}"));
            }
        }
        for (mount, count) in &self.mounts {
            let had = before.mounts.get(mount).copied().unwrap_or(0);
            if *count > had {
                found.push(format!("mount {mount}: {count} instead of {had}"));
            }
        }
        for (path, count) in &self.cgroups {
            let had = before.cgroups.get(path).copied().unwrap_or(0);
            if *count > had {
                found.push(format!("cgroup {path}: {count} instead of {had}"));
            }
        }
        for (name, now) in &self.descriptors {
            let Some(then) = before.descriptors.get(name) else { continue };
            for (what, count) in now {
                let had = then.get(what).copied().unwrap_or(0);
                if *count > had {
                    let process = self.processes.get(name).map_or("", String::as_str);
                    found.push(format!("descriptor of {process}: {what}: {count} instead of {had}"));
                }
            }
        }
        let mut new: BTreeSet<(Kind, u32)> = self.bpf.difference(&before.bpf).copied().collect();
        if !new.is_empty() {
            for held in held_outside(cluster) {
                new.remove(&held);
            }
        }
        found.extend(new.into_iter().map(|(kind, id)| format!("BPF object: {kind:?} {id}")));
        found
    }

    /// How many BPF objects of each kind there are, without those of others. Daemons that were started anew have others than before.
    pub fn bpf_objects(&self, cluster: &Cluster) -> BTreeMap<String, usize> {
        let foreign = held_outside(cluster);
        let mut counts = BTreeMap::new();
        for (kind, _) in self.bpf.difference(&foreign) {
            *counts.entry(format!("{kind:?}")).or_default() += 1;
        }
        counts
    }

    /// Waits until there is nothing more than now; fails the test with the list of what stays.
    #[track_caller]
    pub fn must_come_back(&self, cluster: &Cluster, within: Duration) {
        let mut last = Vec::new();
        let clean = poll_until(within, || {
            last = Self::take(cluster).more_than(self, cluster);
            last.is_empty().then_some(())
        });
        if clean.is_none() {
            panic!("still there after {} ms:\n  {}", within.as_millis(), last.join("\n  "));
        }
    }
}

fn name(process: &Process) -> Name {
    (process.pid, process.started)
}

fn describe(process: &Process) -> String {
    format!("{}: {} ({:?}, {})", process.member, process.name, process.numbers, process.state)
}

/// Of each mount namespace of the cluster, by member, mount point, root and kind. Numbers of mounts are not compared.
fn mounts(snapshot: &Snapshot) -> BTreeMap<String, usize> {
    let mut seen = BTreeSet::new();
    let mut found = BTreeMap::new();
    for process in &snapshot.processes {
        let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/mnt", process.pid)) else { continue };
        if !seen.insert(namespace.ino()) {
            continue;
        }
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", process.pid)).unwrap_or_default();
        for line in text.lines() {
            // proc_pid_mountinfo(5): id, parent, device, root, mount point, …, -, kind, source, …
            let fields: Vec<&str> = line.split(' ').collect();
            let kind = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 1));
            let (Some(root), Some(point), Some(kind)) = (fields.get(3), fields.get(4), kind) else { continue };
            *found.entry(format!("{}: {kind} {root} on {point}", process.member)).or_default() += 1;
        }
    }
    found
}

/// Which number of a kind there is says nothing: things are counted by kind.
fn without_numbers(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars() {
        if !character.is_ascii_digit() {
            short.push(character);
        } else if !short.ends_with('#') {
            short.push('#');
        }
    }
    short
}

fn directories(path: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            *found.entry(without_numbers(&entry.path().display().to_string())).or_default() += 1;
            directories(&entry.path(), found);
        }
    }
}

/// What a process's descriptors refer to, without the numbers of anonymous objects.
pub fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        let what = match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => without_numbers(&target),
        };
        *found.entry(what).or_default() += 1;
    }
    found
}

/// BPF objects that processes outside the cluster have open, and the maps that such programs use.
fn held_outside(cluster: &Cluster) -> BTreeSet<(Kind, u32)> {
    let ours: BTreeSet<u32> = cluster.snapshot().processes.iter().map(|process| process.pid).collect();
    let mut held = BTreeSet::new();
    for pid in all_pids().into_iter().filter(|pid| !ours.contains(pid)) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let is_bpf = fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("bpf"));
            if !is_bpf {
                continue;
            }
            let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
            for line in fs::read_to_string(info).unwrap_or_default().lines() {
                for (key, kind) in [("prog_id:", Kind::Program), ("map_id:", Kind::Map), ("link_id:", Kind::Link)] {
                    if let Some(id) = line.strip_prefix(key).and_then(|text| text.trim().parse().ok()) {
                        held.insert((kind, id));
                    }
                }
            }
        }
    }
    let programs: Vec<u32> = held.iter().filter(|(kind, _)| *kind == Kind::Program).map(|(_, id)| *id).collect();
    for program in programs {
        // One that is gone by now uses none.
        held.extend(maps_of(program).unwrap_or_default().into_iter().map(|id| (Kind::Map, id)));
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shell, User, eventually};

    const LONG: Duration = Duration::from_secs(20);

    /// What is planted must be found, and only while it is there.
    fn planted(plant: &str, remove: &str, wanted: &str) {
        let cluster = Cluster::attach();
        let mut shell = Shell::start(&cluster, User::root());
        shell.run("true");
        let before = Census::take(&cluster);
        assert_eq!(before.more_than(&before, &cluster), [""; 0]);
        let answer = shell.run(plant);
        assert_eq!(answer.status, 0, "{plant}: {answer:?} {}", shell.stderr());
        eventually(wanted, LONG, || {
            let more = Census::take(&cluster).more_than(&before, &cluster);
            more.iter().any(|line| line.contains(wanted)).then_some(())
        });
        shell.run(remove);
        before.must_come_back(&cluster, LONG);
    }

    #[test]
    fn planted_a_process_is_seen() {
        planted("sleep 77 & job=$!", "kill -9 $job; wait", "process master: sleep");
    }

    #[test]
    fn planted_a_zombie_is_seen() {
        // The shell that execs never waits for it.
        planted("sh -c 'sleep 0 & exec sleep 78' & job=$!", "kill -9 $job; wait", "process master: sleep");
    }

    #[test]
    fn planted_a_mount_is_seen() {
        planted("mount -t tmpfs leak /mnt", "umount /mnt", "mount master: tmpfs / on /mnt");
    }

    #[test]
    fn planted_a_mount_in_a_namespace_of_its_own_is_seen() {
        let plant = "unshare -m sh -c 'mount -t tmpfs leak /mnt; exec sleep 79' & job=$!";
        planted(plant, "kill -9 $job; wait", "mount master: tmpfs / on /mnt");
    }

    #[test]
    fn planted_a_cgroup_is_seen() {
        planted("mkdir /sys/fs/cgroup/user.slice/leak", "rmdir /sys/fs/cgroup/user.slice/leak", "user.slice/leak");
    }

    #[test]
    fn planted_a_descriptor_is_seen() {
        planted("exec 9</etc/passwd", "exec 9<&-", "/etc/passwd: 1 instead of 0");
    }

    #[test]
    fn the_maps_of_a_program_are_known() {
        Cluster::attach();
        let maps = ids(Kind::Map).expect("maps");
        let programs = ids(Kind::Program).expect("programs");
        let used: BTreeSet<u32> = programs.iter().flat_map(|id| maps_of(*id).unwrap_or_default()).collect();
        assert!(used.iter().any(|id| maps.contains(id)), "{used:?} of {maps:?}");
    }

    #[test]
    fn planted_a_bpf_object_is_seen() {
        planted("probe hold-map & job=$!", "kill -9 $job; wait", "BPF object: Map");
    }
}

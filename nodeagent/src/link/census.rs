//! What runs on this node for the cluster, as the kernel's cgroups show it: how much it is, and how it is ended.
//!
//! ```text
//! stop (SIGINT)  ──SIGTERM to each──> all gone ──> the master hears the ends ──> the holder ends
//!                        └─(GRACE)──SIGKILL──┘
//! ```
//! As a machine ends its own processes when it goes down. Where there are no cgroups they die with the holder, and the master hears
//! of it when the lease is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghost_proto::instance::Instance;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::holder::cgroup;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long the dead may take to go.
const DYING: Duration = Duration::from_secs(3);
/// How long the last ends may take to the master.
const TELLING: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(20);

/// The launches' cgroups.
#[derive(Debug)]
pub struct Census {
    top: Option<PathBuf>,
}

impl Census {
    /// Of the holder that this program starts or finds: one that was started by this unit.
    pub fn of(instance: &Instance) -> Census {
        Census { top: cgroup::top(instance).ok() }
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.processes().len()
    }

    fn launches(&self) -> Vec<PathBuf> {
        let entries = self.top.iter().filter_map(|top| fs::read_dir(top).ok()).flatten().flatten();
        let is_launch = |path: &PathBuf| path.file_name().is_some_and(cgroup::is_of_a_launch);
        entries.map(|entry| entry.path()).filter(is_launch).collect()
    }

    fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for launch in self.launches() {
            collect(&launch, &mut found);
        }
        found
    }

    /// Ends them all. The holder, the session to the master go on meanwhile, so that statuses get there.
    pub async fn end(&self) {
        let processes = self.processes();
        if processes.is_empty() {
            return;
        }
        info!(processes = processes.len(), "ending the cluster's processes of this node");
        for pid in processes {
            let pid = Pid::from_raw(pid);
            // What is stopped would not see it.
            let _ = kill(pid, Signal::SIGTERM).and_then(|()| kill(pid, Signal::SIGCONT));
        }
        if !self.are_gone(GRACE).await {
            warn!(processes = self.count(), "they do not end by themselves: killed");
            for launch in self.launches() {
                // Since Linux 5.14, with all that is below.
                let _ = fs::write(launch.join("cgroup.kill"), "1");
            }
            if !self.are_gone(DYING).await {
                warn!(processes = self.count(), "they do not die");
            }
        }
        sleep(TELLING).await;
    }

    async fn are_gone(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.count() > 0 {
            if Instant::now() > until {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }
}

/// The processes of a cgroup and of those that programs have made below it, but zombies: they have no more to end.
fn collect(cgroup: &Path, found: &mut Vec<i32>) {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 is one that this PID namespace does not see.
    found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_have_put_deeper_counts_and_the_holder_does_not() {
        let top = tempfile::tempdir().expect("directory");
        let put = |name: &str, content: &str| {
            fs::create_dir_all(top.path().join(name)).expect("cgroup");
            fs::write(top.path().join(name).join("cgroup.procs"), content).expect("processes");
        };
        put("self", "7\n");
        put("slot-1", "10\n11\n0\n");
        put("slot-1/deeper/still", "12\n");
        put("slot-2", "");
        let census = Census { top: Some(top.path().to_owned()) };
        let mut found = census.processes();
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
        assert_eq!(Census { top: None }.count(), 0);
    }
}

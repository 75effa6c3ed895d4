//! Remote programs whose ghosts' `/proc` shows them.

use std::time::Duration;

use ghost_sys::mount::mounts_of;

use crate::process::{children_of, own_number_of};
use crate::{Cluster, Cmd, Finished, Process, Running, User, eventually};

const LONG: Duration = Duration::from_secs(20);

/// A remote program with one ghost, that is shown.
pub struct Shown {
    pub running: Running,
    /// The ghost's number on the master.
    pub ghost: u32,
}

impl Shown {
    pub fn start(cluster: &Cluster, user: User, node: u32, program: &[&str]) -> Shown {
        let node = node.to_string();
        let words = [node.as_str()].into_iter().chain(program.iter().copied());
        Shown::of(cluster, cluster.command("bpsh").args(words).user(user).input_pipe().start())
    }

    pub fn of(cluster: &Cluster, running: Running) -> Shown {
        let ghost = eventually("the ghost is there", LONG, || {
            let ghosts = children_of(running.pid());
            ghosts.first().and_then(|ghost| own_number_of(*ghost))
        });
        eventually("it is shown", LONG, || is_shown(cluster, ghost).then_some(()));
        Shown { running, ghost }
    }

    pub fn process(&self, cluster: &Cluster) -> Process {
        let snapshot = cluster.snapshot();
        let found = snapshot.remote().find(|process| process.own_number() == self.ghost);
        found.cloned().expect("the process runs under its ghost's number")
    }

    pub fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.ghost)
    }

    /// Words of `ps -o COLUMNS`.
    pub fn ps(&self, cluster: &Cluster, columns: &str) -> Vec<String> {
        let number = self.ghost.to_string();
        let text = ps(cluster, &["-o", columns, "-p", &number]).success();
        text.lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    pub fn end(self) {
        let Shown { running, .. } = self;
        // Its standard input ends.
        running.wait();
    }
}

pub fn is_shown(cluster: &Cluster, ghost: u32) -> bool {
    views(cluster).contains(&format!("/proc/{ghost}"))
}

/// Mount points of views on the master, by the kernel.
pub fn views(cluster: &Cluster) -> Vec<String> {
    let mounts = mounts_of(cluster.master().init_pid).expect("mountinfo");
    let views = mounts.into_iter().filter(|mount| mount.source == "ghostproc-view");
    views.map(|mount| mount.point.display().to_string()).filter(|point| point.starts_with("/proc/")).collect()
}

pub fn ps(cluster: &Cluster, arguments: &[&str]) -> Finished {
    cluster.command("ps").args(arguments.iter().copied()).limit(LONG).run()
}

pub fn sh(cluster: &Cluster, user: User, script: &str) -> Cmd {
    cluster.command("sh").args(["-c", script]).user(user)
}

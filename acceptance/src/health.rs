//! The daemons before something hostile happens, while it happens, and after it.

use std::time::Duration;

use crate::{Cluster, Cmd, Ended, Finished, Running, User, eventually, leak, memory};

const LONG: Duration = Duration::from_secs(60);
const VERY_LONG: Duration = Duration::from_secs(300);
/// What hostile input may cost a daemon in memory, once it is over.
pub const MOST_KIB: u64 = 32 * 1024;

fn bpsh(cluster: &Cluster, words: &[&str]) -> Cmd {
    cluster.command("bpsh").args(words).user(User::ordinary())
}

/// The hostile program, to be run on the master by somebody who has nothing to do with [`User::ordinary`].
pub fn hostile(cluster: &Cluster, words: &[&str]) -> Cmd {
    cluster.master().install("hostile");
    cluster.command("hostile").args(words).user(User::other()).limit(VERY_LONG)
}

/// The daemons as they were before something hostile happened.
pub struct Health {
    before: leak::Census,
    daemons: Vec<u32>,
    pub memory_kib: Vec<u64>,
}

impl Health {
    pub fn of(cluster: &Cluster) -> Self {
        // What is made once, on first use, is there now.
        bpsh(cluster, &["0-3", "true"]).run().success();
        eventually("nothing runs", LONG, || (cluster.snapshot().remote().count() == 0).then_some(()));
        let daemons: Vec<u32> = cluster.members().iter().map(crate::Member::daemon).collect();
        let memory_kib = daemons.iter().map(|pid| memory::resident_kib(*pid).expect("it runs")).collect();
        Self { before: leak::Census::take(cluster), daemons, memory_kib }
    }

    /// The same daemons, as healthy, with nothing more than before, and they work.
    #[track_caller]
    pub fn must_be_as_before(&self, cluster: &Cluster) {
        self.must_be_as_before_within(cluster, LONG);
    }

    #[track_caller]
    pub fn must_be_as_before_within(&self, cluster: &Cluster, within: Duration) {
        let shown = bpsh(cluster, &["-s", "0-3", "hostname"]).run().success();
        assert_eq!(shown, "n0\nn1\nn2\nn3\n");
        let daemons: Vec<u32> = cluster.members().iter().map(crate::Member::daemon).collect();
        assert_eq!(daemons, self.daemons, "a daemon was started again");
        self.before.must_come_back(cluster, within);
        for (pid, before) in self.daemons.iter().zip(&self.memory_kib) {
            let now = memory::resident_kib(*pid).expect("it runs");
            assert!(now <= before + MOST_KIB, "process {pid}: {now} KiB instead of {before} KiB");
        }
    }
}

/// While it goes on, another user works.
#[track_caller]
pub fn survived(cluster: &Cluster, mut hostile: Running) -> Finished {
    let mut launches = 0;
    while hostile.ended().is_none() || launches < 3 {
        works(cluster);
        launches += 1;
    }
    println!("{launches} launches meanwhile");
    hostile.wait().expect(Ended::Exited(0))
}

/// Another user can start programs now.
#[track_caller]
pub fn works(cluster: &Cluster) {
    let finished = bpsh(cluster, &["0-3", "true"]).limit(LONG).run();
    assert_eq!(finished.ended, Ended::Exited(0), "a launch meanwhile: {}", finished.error_text());
}

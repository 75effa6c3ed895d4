//! What is tried, one file per theme.

mod clock;
mod mounts;
mod packages;
mod programs;
mod resets;
mod restarts;
mod terminal;
mod views;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::root::Release;

pub struct Scenario {
    pub name: &'static str,
    /// One line for who selects.
    pub what: &'static str,
    /// Only in the long form.
    pub long: bool,
    pub run: fn(&Cluster, Release) -> Result<()>,
}

/// In the order in which they run; the last one takes the product away.
pub const ALL: &[Scenario] = &[
    Scenario { name: "programs", what: "statuses, signals, streams, the tree", long: false, run: programs::run },
    Scenario { name: "hooks", what: "no kernel program needs LSM or fentry", long: false, run: programs::hooks },
    Scenario { name: "terminal", what: "a login: ps, Ctrl-C, top", long: false, run: terminal::run },
    Scenario {
        name: "restarts",
        what: "50 processes stream: kill -9, restarts, upgrade",
        long: false,
        run: restarts::run,
    },
    Scenario { name: "clock", what: "the wall clocks jump", long: true, run: clock::run },
    Scenario {
        name: "views",
        what: "systemd goes on when the view's server hangs or dies",
        long: true,
        run: views::server,
    },
    Scenario {
        name: "mounts",
        what: "what systemd and journald spend on ghosts with views",
        long: true,
        run: mounts::run,
    },
    Scenario { name: "node-reset", what: "a node is reset and comes back", long: true, run: resets::node },
    Scenario {
        name: "master-reset",
        what: "the master is reset: nodes end what they ran",
        long: true,
        run: resets::master,
    },
    Scenario { name: "packages", what: "remove and purge", long: true, run: packages::run },
];

/// 6.9 or later hands sleeping ghosts to the next ghostd (FUSE_NOTIFY_RESEND).
fn hands_over(release: Release) -> bool {
    release != Release::Bookworm
}

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

/// What is run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A stage of `cargo xtask test`.
    Short,
    Long,
}

const SHORT: &[Form] = &[Form::Short];
const LONG: &[Form] = &[Form::Long];
const BOTH: &[Form] = &[Form::Short, Form::Long];

pub struct Scenario {
    pub name: &'static str,
    /// One line for who selects.
    pub what: &'static str,
    pub forms: &'static [Form],
    pub run: fn(&Cluster, Release) -> Result<()>,
}

/// In the order in which they run; the last one takes the product away.
pub const ALL: &[Scenario] = &[
    Scenario { name: "programs", what: "statuses, signals, streams, the tree", forms: BOTH, run: programs::run },
    Scenario { name: "hooks", what: "no kernel program needs LSM or fentry", forms: BOTH, run: programs::hooks },
    Scenario { name: "terminal", what: "a login: ps, Ctrl-C, top", forms: BOTH, run: terminal::run },
    Scenario {
        name: "ghostd",
        what: "a few processes stream: kill -9 and restart of ghostd",
        forms: SHORT,
        run: restarts::of_ghostd,
    },
    Scenario {
        name: "restarts",
        what: "50 processes stream: kill -9, restarts, upgrade",
        forms: LONG,
        run: restarts::run,
    },
    Scenario { name: "clock", what: "the wall clocks jump", forms: LONG, run: clock::run },
    Scenario {
        name: "views",
        what: "systemd goes on when the view's server hangs or dies",
        forms: LONG,
        run: views::server,
    },
    Scenario {
        name: "mounts",
        what: "what systemd and journald spend on ghosts with views",
        forms: LONG,
        run: mounts::run,
    },
    Scenario { name: "node-reset", what: "a node is reset and comes back", forms: LONG, run: resets::node },
    Scenario {
        name: "master-reset",
        what: "the master is reset: nodes end what they ran",
        forms: LONG,
        run: resets::master,
    },
    Scenario { name: "packages", what: "remove and purge", forms: LONG, run: packages::run },
];

/// 6.9 or later hands sleeping ghosts to the next ghostd (FUSE_NOTIFY_RESEND).
fn hands_over(release: Release) -> bool {
    release != Release::Bookworm
}

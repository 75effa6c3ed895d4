//! `cargo xtask cluster`: a master and nodes on this one machine, in namespaces of their own.
//!
//! ```text
//!   host ── runner (this process) ──┬── init of master ── ghostd
//!                                   │        └ (namespaces) CMD, a child of the runner
//!                                   ├── init of n0 ────── nodeagent ── ghost-holder ── remote processes
//!                                   └── init of n1 …
//!   network: a namespace without processes holds the bridge; every member hangs on it by a veth pair
//! ```
//!
//! Invariant: everything lives by the runner. Processes die with their init, which dies with the runner; mounts, BPF
//! pins and networks belong to namespaces that only those processes and the runner's descriptors keep. What the kernel
//! does not clean up so (cgroups, the state directory, the copy of the programs), the runner removes, or, when it was
//! killed, the next start ([`state::sweep`]).

mod cgroup;
pub mod description;
mod foreground;
mod member;
mod network;
mod setup;
mod signals;
mod state;
mod user;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::{machine, products};

#[derive(Args)]
pub struct ClusterArgs {
    /// Number of nodes
    #[arg(short = 'n', long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=250))]
    nodes: u32,
    /// Run CMD as this user (a number)
    #[arg(long)]
    user: Option<u32>,
    /// Run CMD on this machine instead of the cluster's master, with GHOSTPROC_CLUSTER naming a description
    #[arg(long, conflicts_with = "user")]
    outside: bool,
    /// Run the programs as they are released (slower to build)
    #[arg(long)]
    release: bool,
    /// The master and CMD on the first processor, the nodes on the others
    #[arg(long, conflicts_with = "outside")]
    apart: bool,
    /// Milliseconds of silence after which a daemon is killed; 0 for never
    #[arg(long, default_value_t = 10_000)]
    watchdog: u64,
    /// Say how long each step took
    #[arg(long)]
    timing: bool,
    /// Run this shell script in every member instead of the daemons, which are not even built (tests of the cluster
    /// itself); it must notify readiness as they do
    #[arg(long, hide = true)]
    daemon: Option<String>,
    /// What to run; without it an interactive shell
    #[arg(last = true)]
    command: Vec<String>,
}

pub fn run(args: ClusterArgs) -> Result<ExitCode> {
    machine::must_be_root("the test cluster")?;
    machine::for_cluster()?;
    anyhow::ensure!(!args.apart || machine::processors() > 1, "--apart: this machine has one processor");
    let programs = match (&args.daemon, args.release) {
        (Some(_), _) => Vec::new(),
        (None, true) => products::build("release")?,
        (None, false) => products::build("cluster")?,
    };

    let timing = Timing { on: args.timing, last: Instant::now() };
    let mut signals = signals::Signals::take()?;
    let ended = setup::with_cluster(&args, &programs, &mut signals, timing);
    // Everything is cleaned up by now.
    match ended {
        Ok(ended) => ended.end_likewise(),
        Err(why) => match why.downcast_ref::<signals::Interrupted>() {
            Some(signals::Interrupted(signal)) => foreground::Ended::Signaled(*signal).end_likewise(),
            None => Err(why),
        },
    }
}

/// Prints how long each step took, if wanted.
pub struct Timing {
    on: bool,
    last: Instant,
}

impl Timing {
    pub fn step(&mut self, what: &str) {
        if self.on {
            eprintln!("xtask: {what}: {} ms", self.last.elapsed().as_millis());
        }
        self.last = Instant::now();
    }
}

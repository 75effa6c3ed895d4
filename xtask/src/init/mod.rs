//! PID 1 of a cluster member: builds the member's root, then plays the part of systemd for its one daemon.
//!
//! It knows nothing of the product: what to run is said by its [`Spec`], when to run it on its control socket.
//! Its three standard descriptors are: 0 the listening control socket, 1 the lifeline to the runner (end of file: the
//! runner is gone), 2 the member's log.
//!
//! Invariant: when the runner is gone, so is this process, and with it (kernel/pid_namespace.c,
//! zap_pid_ns_processes()) every process of the member, and with those its mounts, its network and its BPF pins.

mod rootfs;
mod service;
mod store;
mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::machine;

#[derive(Args)]
pub struct InitArgs {
    /// File with the member's description ([`Spec`]), as JSON
    spec: PathBuf,
}

/// What a member is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Host name.
    pub name: String,
    /// An empty directory that serves as mount point while the root is built.
    pub scratch: PathBuf,
    /// The directory with the programs; it appears as [`PROGRAMS`].
    pub programs: PathBuf,
    /// Directories of the host that must be visible although they lie where a member has something of its own.
    pub visible: Vec<PathBuf>,
    /// Directories of the host (without leading slash) that a member must not inherit.
    pub hidden: Vec<PathBuf>,
    /// The processors on which all of it runs; empty: all there are.
    pub processors: Vec<usize>,
    /// Contents of /etc/hosts.
    pub hosts: String,
    /// Whether the terminals are the host's. Else the member has a devpts of its own.
    pub host_terminals: bool,
    pub service: ServiceSpec,
}

/// The member's daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name of the unit, e.g. `ghostd`: its cgroup is /system.slice/ghostd.service.
    pub name: String,
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Milliseconds of silence after which it is killed; 0: no watchdog.
    pub watchdog_ms: u64,
    /// The signal that tells it that another one follows, as `SIGUSR2`; SIGTERM if there is none.
    pub restart_signal: Option<String>,
}

/// Where a member sees the product's programs.
pub const PROGRAMS: &str = "/opt/ghostproc/bin";

/// Where a member's root user finds everything else.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn run(args: InitArgs) -> Result<ExitCode> {
    let spec = std::fs::read(&args.spec).with_context(|| format!("{}", args.spec.display()))?;
    let spec: Spec = serde_json::from_slice(&spec).with_context(|| format!("{}", args.spec.display()))?;
    machine::run_on(&spec.processors).with_context(|| format!("{}: its processors", spec.name))?;
    rootfs::build(&spec).with_context(|| format!("{}: building its root", spec.name))?;
    supervisor::run(spec.service)?;
    Ok(ExitCode::SUCCESS)
}

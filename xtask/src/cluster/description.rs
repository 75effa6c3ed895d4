//! `cluster.json`: what a program outside needs to know of a running cluster.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::state;

/// Names the description for programs that run with `--outside`.
pub const VARIABLE: &str = "GHOSTPROC_CLUSTER";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    pub id: String,
    /// The programs, as the host sees them.
    pub bin_dir: PathBuf,
    /// The cgroup of the whole cluster, as the host sees it.
    pub cgroup: PathBuf,
    /// The master first, then the nodes by number.
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Its host name: `master`, `n0`, `n1`, …
    pub name: String,
    pub role: Role,
    /// -1 for the master.
    pub number: i32,
    /// Its PID 1, as the host sees it: `/proc/INIT_PID/ns/*` are its namespaces.
    pub init_pid: u32,
    /// As the host sees it; below it init.scope, user.slice, and system.slice/DAEMON.service.
    pub cgroup: PathBuf,
    /// Its root directory, as the host sees it.
    pub rootfs: PathBuf,
    pub address: Ipv4Addr,
    /// Its control socket, as the host sees it.
    pub control: PathBuf,
    /// What its daemon printed.
    pub log: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Node,
}

impl Description {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))
    }

    /// The running cluster that is meant: by id, by the environment, or the only one there is.
    pub fn find(id: Option<&str>) -> Result<Self> {
        if let Some(id) = id {
            return Self::read(&state::directory(id).join("cluster.json"));
        }
        if let Some(path) = std::env::var_os(VARIABLE) {
            return Self::read(Path::new(&path));
        }
        let running = state::running()?;
        match running.as_slice() {
            [id] => Self::read(&state::directory(id).join("cluster.json")),
            [] => bail!("no cluster runs; `cargo xtask cluster` starts one"),
            several => bail!("several clusters run ({}): say which with --id", several.join(" ")),
        }
    }
}

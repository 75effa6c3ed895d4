//! The running test cluster, as its description (`cluster.json` of `cargo xtask cluster`) tells it.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghost_sys::namespace::Place;
use serde::Deserialize;

use crate::{Cmd, Snapshot, User, command, report};

/// Names the description.
pub const VARIABLE: &str = "GHOSTPROC_CLUSTER";

/// Where a member has the tests' own programs; this directory is in every PATH.
const PROGRAMS: &str = "usr/local/bin";

#[derive(Debug, Clone, Deserialize)]
pub struct Cluster {
    pub id: String,
    /// The product's programs, as the host sees them.
    pub bin_dir: PathBuf,
    /// The cgroup of the whole cluster, as the host sees it.
    pub cgroup: PathBuf,
    /// The master first, then the nodes by number.
    members: Vec<Member>,
}

/// The master or a node. Paths are the host's.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    /// Its host name: `master`, `n0`, `n1`, …
    pub name: String,
    /// -1 for the master.
    pub number: i32,
    /// Its PID 1, in the host's numbers.
    pub init_pid: u32,
    pub cgroup: PathBuf,
    pub rootfs: PathBuf,
    pub address: Ipv4Addr,
    pub control: PathBuf,
    /// What its daemon printed.
    pub log: PathBuf,
}

/// What a member's init says of its daemon.
#[derive(Debug, Clone, Deserialize)]
pub struct DaemonState {
    pub ok: bool,
    #[serde(default)]
    pub error: String,
    /// dead, starting, running, stopping, waiting.
    pub state: String,
    /// In the member's numbers; 0: none.
    pub pid: u32,
    /// Starts after an unexpected end.
    pub restarts: u32,
}

impl Cluster {
    /// The cluster this test runs in. From now on a panic prints what the cluster looks like.
    #[track_caller]
    pub fn attach() -> Self {
        let cluster = Self::read();
        for member in &cluster.members {
            member.install("probe");
        }
        report::on_panic();
        cluster
    }

    /// Only the description.
    #[track_caller]
    pub(crate) fn read() -> Self {
        let Some(path) = std::env::var_os(VARIABLE) else {
            panic!("{VARIABLE} is not set: these tests run in a cluster, by `cargo xtask test`");
        };
        let text = std::fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", Path::new(&path).display()));
        serde_json::from_slice(&text).unwrap_or_else(|why| panic!("{}: {why}", Path::new(&path).display()))
    }

    pub fn master(&self) -> &Member {
        &self.members[0]
    }

    /// By number.
    #[track_caller]
    pub fn node(&self, number: u32) -> &Member {
        let there = self.members.iter().find(|member| i64::from(member.number) == i64::from(number));
        there.unwrap_or_else(|| panic!("this cluster has no node {number}: start it with more nodes"))
    }

    pub fn nodes(&self) -> &[Member] {
        &self.members[1..]
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A program to be run on the master.
    pub fn command(&self, program: &str) -> Cmd {
        self.master().command(program)
    }

    /// All its processes, from outside.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }
}

impl Member {
    /// A program to be run in it, as root if nothing else is said.
    pub fn command(&self, program: &str) -> Cmd {
        Cmd::new(self, program)
    }

    /// Where [`Cmd`] starts programs, for those that are started otherwise (in a [`crate::Terminal`]).
    #[track_caller]
    pub fn place(&self, user: &User) -> Place {
        let place = command::place(self.init_pid, &self.cgroup.join("user.slice"), user);
        place.unwrap_or_else(|why| panic!("{}: {why}", self.name))
    }

    /// How the host sees a file of its: `inside` is absolute.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.rootfs.join(inside.trim_start_matches('/'))
    }

    /// Talks to its init: `status`, `start`, `stop`, `restart`, `kill SIGNAL`, `watchdog MILLISECONDS`.
    #[track_caller]
    pub fn control(&self, request: &str) -> DaemonState {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&self.control)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            writeln!(stream, "{request}")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        let line = ask().unwrap_or_else(|why| panic!("{}: {request}: {why}", self.name));
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{}: {request}: {why}: {line}", self.name))
    }

    /// Its daemon's process, in the host's numbers.
    #[track_caller]
    pub fn daemon(&self) -> u32 {
        let state = self.control("status");
        match self.number_of(&state) {
            Some(pid) => pid,
            None => panic!("{}: its daemon is {} (process {})", self.name, state.state, state.pid),
        }
    }

    /// The same, if it runs at this moment.
    pub fn running_daemon(&self) -> Option<u32> {
        self.number_of(&self.control("status"))
    }

    fn number_of(&self, daemon: &DaemonState) -> Option<u32> {
        Snapshot::take(&Cluster::read()).in_member(&self.name, daemon.pid).map(|process| process.pid)
    }

    /// The end of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Copies one of the tests' own programs into the member, unless it is there already.
    #[track_caller]
    pub fn install(&self, program: &str) {
        let target = self.rootfs.join(PROGRAMS).join(program);
        if target.exists() {
            return;
        }
        let own = std::env::current_exe().expect("our own path");
        // deps/TEST-HASH stands beside the program's directory.
        let source = own.ancestors().skip(1).map(|directory| directory.join(program)).find(|path| path.is_file());
        let source = source.unwrap_or_else(|| panic!("no program {program} near {}", own.display()));
        let install = || -> std::io::Result<()> {
            if let Some(directory) = target.parent() {
                std::fs::create_dir_all(directory)?;
            }
            // Under another name first: whoever sees it sees all of it.
            let temporary = target.with_extension("new");
            std::fs::copy(&source, &temporary)?;
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
            std::fs::rename(&temporary, &target)
        };
        install().unwrap_or_else(|why| panic!("{}: {why}", target.display()));
    }
}

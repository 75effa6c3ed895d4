//! One member of a running cluster, from the runner's side: its init and what is started inside.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ghost_sys::namespace::{Place, spawn};
use nix::sched::CloneFlags;
use nix::sys::wait::WaitStatus;

use super::description;
use super::signals::Signals;
use crate::control::{self, Reply};
use crate::init::Spec;

/// How many lines of a log a failure shows.
const LOG_LINES: usize = 15;

pub struct Member {
    pub description: description::Member,
    init: Child,
    /// The init was reaped elsewhere; its PID may be somebody else's by now.
    reaped: bool,
    /// The init ends when this is closed.
    _lifeline: UnixStream,
}

/// What is known of a member before it runs.
pub struct Plan {
    pub role: description::Role,
    pub number: i32,
    pub address: Ipv4Addr,
    pub spec: Spec,
}

impl Member {
    /// Starts the init. It builds its root while we go on; the first answer on its control socket says it is done.
    pub fn start(plan: Plan, state: &Path, cluster_cgroup: &Path) -> Result<Self> {
        let name = plan.spec.name.clone();
        let cgroup = cluster_cgroup.join(&name);
        super::cgroup::create(&cgroup)?;
        std::fs::create_dir(&plan.spec.scratch)?;
        let control = state.join(format!("{name}.control"));
        let log = state.join(format!("{name}.log"));
        let listener = UnixListener::bind(&control)?;
        let (lifeline, theirs) = UnixStream::pair()?;

        let spec = state.join(format!("{name}.json"));
        std::fs::write(&spec, serde_json::to_vec_pretty(&plan.spec)?)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("init").arg("cluster-init").arg(spec);
        command.env_clear().env("PATH", crate::init::PATH);
        command.stdin(OwnedFd::from(listener)).stdout(OwnedFd::from(theirs)).stderr(File::create(&log)?);
        let kinds = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        let init = spawn(command, Place::new(kinds).cgroup(&cgroup)?.new_session().die_with_parent())
            .with_context(|| format!("{name}: starting it in namespaces of its own"))?;
        let description = description::Member {
            name,
            role: plan.role,
            number: plan.number,
            init_pid: init.id(),
            cgroup,
            rootfs: PathBuf::from(format!("/proc/{}/root", init.id())),
            address: plan.address,
            control,
            log,
        };
        Ok(Self { description, init, reaped: false, _lifeline: lifeline })
    }

    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Inside this member, in the given cgroup of it.
    pub fn place(&self, slice: &str) -> Result<Place> {
        Place::inside(self.init.id())
            .and_then(|place| place.cgroup(&self.description.cgroup.join(slice)))
            .with_context(|| format!("{}: its init is gone", self.name()))
    }

    /// Starts one of the product's programs as root. What it says on standard error goes to the member's log.
    pub fn tool(&self, arguments: &[&str], input: Option<&str>) -> Result<Child> {
        let what = || format!("{}: {}", self.name(), arguments.join(" "));
        let (program, rest) = arguments.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(rest).env_clear().env("PATH", format!("{}:{}", crate::init::PROGRAMS, crate::init::PATH));
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(File::options().append(true).open(&self.description.log)?);
        let mut child = spawn(command, self.place("system.slice")?.die_with_parent()).with_context(what)?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that ends without reading says why in its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child)
    }

    /// Sends a request to the init.
    pub fn send(&self, request: &str) -> Result<UnixStream> {
        control::send(&self.description.control, request).map_err(|why| self.blame(why))
    }

    /// Waits for the reply to a request, which must be a success.
    pub fn expect(&self, reply: UnixStream, limit: Duration, signals: &mut Signals) -> Result<Reply> {
        use std::os::fd::AsFd;
        signals.readable(reply.as_fd(), Instant::now() + limit).map_err(|why| self.blame(why))?;
        let reply = control::receive(reply).map_err(|why| self.blame(why))?;
        if !reply.ok {
            return Err(self.blame(anyhow::anyhow!("{}", reply.error)));
        }
        Ok(reply)
    }

    /// Adds the member's name, and the end of its log, to an error.
    pub fn blame(&self, why: anyhow::Error) -> anyhow::Error {
        if why.is::<super::signals::Interrupted>() {
            return why;
        }
        let text = std::fs::read_to_string(&self.description.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        why.context(format!("{}: its log ends with\n  {last}\n{}", self.name(), self.name()))
    }

    /// To be told what wait(2) said of any child.
    pub fn note(&mut self, status: WaitStatus) {
        self.reaped |= matches!(status, WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)
            if pid.as_raw() as u32 == self.description.init_pid);
    }

    pub fn is_gone(&self) -> bool {
        self.reaped
    }

    /// Kills everything in it.
    pub fn kill(&mut self) -> Result<()> {
        if self.reaped {
            return Ok(());
        }
        self.init.kill().with_context(|| format!("{}: killing it", self.name()))
    }

    /// What is still in it, unless its PID 1 has been reaped: that is possible only when everything in it is dead
    /// (kernel/pid_namespace.c, zap_pid_ns_processes()).
    pub fn remaining(&self) -> Option<Vec<String>> {
        (!self.reaped).then(|| super::cgroup::processes(&self.description.cgroup))
    }
}

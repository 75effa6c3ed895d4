//! Bringing a cluster up as an administrator would bring up a real one (init, token, join, start), and down again.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::description::{Description, Role};
use super::foreground::{self, Ended};
use super::member::{Member, Plan};
use super::network::{MASTER, Network, node_address};
use super::signals::Signals;
use super::state::State;
use super::{ClusterArgs, Timing, cgroup};
use crate::init::{ServiceSpec, Spec};
use crate::{control, machine, products};

/// Longest time that any one step may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passed on to the daemons: how much they say in their log.
const LOG_VARIABLES: [&str; 2] = ["GHOSTPROC_LOG", "RUST_BACKTRACE"];

/// A real installation's files on this host are none of the cluster's business.
const HIDDEN: [&str; 2] = ["/etc/ghostproc", "/var/lib/ghostproc"];

/// What is to be taken down.
struct Cluster {
    state: Option<State>,
    members: Vec<Member>,
    cgroup: PathBuf,
    /// Ends with its last descriptor, after the members.
    _network: Network,
}

/// Brings the cluster up, runs the command, takes the cluster down: also after errors and signals.
pub fn with_cluster(
    args: &ClusterArgs,
    programs: &[PathBuf],
    signals: &mut Signals,
    mut timing: Timing,
) -> Result<Ended> {
    let state = State::create(programs)?;
    let mut cluster = Cluster {
        cgroup: cgroup::path(&state.id)?,
        state: Some(state),
        members: Vec::new(),
        _network: Network::create()?,
    };
    timing.step("state, programs, bridge");
    let ended = cluster
        .bring_up(args, signals, &mut timing)
        .and_then(|description| foreground::run(args, &description, &mut cluster.members, signals));
    timing.step("command");
    let down = cluster.take_down();
    timing.step("down");
    let ended = ended?;
    down?;
    Ok(ended)
}

impl Cluster {
    fn bring_up(&mut self, args: &ClusterArgs, signals: &mut Signals, timing: &mut Timing) -> Result<PathBuf> {
        let state = self.state.as_ref().context("the cluster is down")?;
        for plan in plans(args, state) {
            self.members.push(Member::start(plan, &state.directory, &self.cgroup)?);
        }
        let wires: Vec<_> =
            self.members.iter().map(|member| (member.description.init_pid, member.description.address)).collect();
        self._network.connect(&wires)?;
        all(&self.members, "status", signals)?;
        timing.step("members");

        let description = Description {
            id: state.id.clone(),
            bin_dir: state.programs.clone(),
            cgroup: self.cgroup.clone(),
            members: self.members.iter().map(|member| member.description.clone()).collect(),
        };
        let path = state.directory.join("cluster.json");
        fs::write(&path, serde_json::to_vec_pretty(&description)?)?;

        if let Some((master, nodes)) = self.members.split_first()
            && args.daemon.is_none()
        {
            form(master, nodes, signals, timing)?;
        } else {
            all(&self.members, "start", signals)?;
        }
        Ok(path)
    }

    fn take_down(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.kill()?;
        }
        let until = Instant::now() + PATIENCE;
        while let Some((name, left)) =
            self.members.iter().find_map(|member| Some((member.name().to_owned(), member.remaining()?)))
        {
            // Any child, not only the inits: what the command has left behind is ours by now, and as long as it is a
            // zombie of a member's PID namespace, that member's init does not end.
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Ok(WaitStatus::StillAlive) => bail!("{name}: does not end; still there: {left:?}"),
                Ok(status) => self.members.iter_mut().for_each(|member| member.note(status)),
                Err(why) => return Err(why).with_context(|| format!("waiting for the end of {name}")),
            }
        }
        self.members.clear();
        match self.state.take() {
            Some(state) => state.remove(),
            None => Ok(()),
        }
    }
}

impl Drop for Cluster {
    /// After a panic or an error on the way up. The orderly way has left nothing to do.
    fn drop(&mut self) {
        if self.state.is_some()
            && let Err(why) = self.take_down()
        {
            eprintln!("xtask: cleaning up: {why:#}; the next `cargo xtask cluster` tries again");
        }
    }
}

/// Makes a cluster of the daemons.
fn form(master: &Member, nodes: &[Member], signals: &mut Signals, timing: &mut Timing) -> Result<()> {
    finish(master, master.tool(&["ghostd", "init"], None)?, "ghostd init", signals)?;
    timing.step("ghostd init");
    all(std::slice::from_ref(master), "start", signals)?;
    timing.step("ghostd");
    if nodes.is_empty() {
        return Ok(());
    }
    let numbers = format!("0-{}", nodes.len() - 1);
    let uses = nodes.len().to_string();
    let token = master.tool(&["bpctl", "token", "--nodes", &numbers, "--uses", &uses], None)?;
    let token = finish(master, token, "bpctl token", signals)?;

    let mut joining = Vec::new();
    for node in nodes {
        let number = node.description.number.to_string();
        let address = MASTER.to_string();
        joining.push((node, node.tool(&["nodeagent", "join", &address, "--node", &number], Some(&token))?));
    }
    for (node, child) in joining {
        finish(node, child, "nodeagent join", signals)?;
    }
    timing.step("token and join");
    all(nodes, "start", signals)?;
    timing.step("nodeagents");
    // A nodeagent is ready when it works, whether its master is there or not; the command wants them connected.
    let until = Instant::now() + PATIENCE;
    loop {
        let statuses = finish(master, master.tool(&["bpstat", "-s"], None)?, "bpstat -s", signals)?;
        let up = statuses.lines().filter(|status| status.trim() == "up").count();
        if up == nodes.len() {
            timing.step("nodes up");
            return Ok(());
        }
        if Instant::now() > until {
            let down =
                nodes.iter().find(|node| ask_for_status(node).is_none_or(|status| !status.contains("connected")));
            let why = anyhow::anyhow!("only {up} of {uses} nodes are up after {} s", PATIENCE.as_secs());
            return Err(down.unwrap_or(master).blame(why));
        }
        signals.pause(Duration::from_millis(5))?;
    }
}

/// What a daemon last said of itself.
fn ask_for_status(member: &Member) -> Option<String> {
    control::ask(&member.description.control, "status").ok().map(|reply| reply.status)
}

/// Waits for a program's end and returns what it printed.
fn finish(member: &Member, mut child: Child, what: &str, signals: &mut Signals) -> Result<String> {
    // Small outputs only: a pipe holds them until we read.
    signals.success(&mut child, Instant::now() + PATIENCE, what).map_err(|why| member.blame(why))?;
    let mut text = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut text)?;
    Ok(text)
}

/// Asks all at once, then waits for all.
fn all(members: &[Member], request: &str, signals: &mut Signals) -> Result<()> {
    let asked: Vec<_> = members.iter().map(|member| Ok((member, member.send(request)?))).collect::<Result<_>>()?;
    for (member, reply) in asked {
        member.expect(reply, PATIENCE, signals)?;
    }
    Ok(())
}

/// Those of the master, or of the nodes.
pub fn processors(args: &ClusterArgs, master: bool) -> Vec<usize> {
    match args.apart {
        true if master => vec![0],
        true => (1..machine::processors()).collect(),
        false => Vec::new(),
    }
}

fn plans(args: &ClusterArgs, state: &State) -> Vec<Plan> {
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n{MASTER} master\n");
    for number in 0..args.nodes {
        hosts += &format!("{} n{number}\n", node_address(number));
    }
    let environment: Vec<(String, String)> =
        LOG_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let mut visible = vec![products::workspace().to_owned()];
    visible.extend(products::target_directory(&state.programs).map(Path::to_owned));
    let spec = |name: &str, daemon: &str| Spec {
        name: name.to_owned(),
        scratch: state.directory.join(format!("{name}.scratch")),
        programs: state.programs.clone(),
        visible: visible.clone(),
        hidden: HIDDEN.iter().map(PathBuf::from).collect(),
        processors: processors(args, name == "master"),
        hosts: hosts.clone(),
        host_terminals: name == "master",
        service: ServiceSpec {
            name: daemon.to_owned(),
            command: match &args.daemon {
                Some(script) => ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                None => vec![daemon.to_owned(), "run".to_owned()],
            },
            environment: environment.clone(),
            watchdog_ms: args.watchdog,
            restart_signal: (daemon == "ghostd").then(|| "SIGUSR2".to_owned()).filter(|_| args.daemon.is_none()),
        },
    };
    let mut plans = vec![Plan { role: Role::Master, number: -1, address: MASTER, spec: spec("master", "ghostd") }];
    for number in 0..args.nodes {
        plans.push(Plan {
            role: Role::Node,
            number: number as i32,
            address: node_address(number),
            spec: spec(&format!("n{number}"), "nodeagent"),
        });
    }
    plans
}

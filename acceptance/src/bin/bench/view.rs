//! What a look at many ghosts costs: `ps aux` and `top` with so many ghosts against so many local processes.
//!
//! Warm: somebody has looked within the last second. Cold: nobody has, so that the nodes are asked first.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::commands::timed;
use crate::measure::{Table, median};

const ROUNDS: usize = 7;
/// After this what is known is too old.
const OLD: Duration = Duration::from_millis(1200);

/// Programs that run until this is dropped: children of one process, which ends them with itself.
struct Many(Child);

impl Many {
    fn start(mut command: Command) -> Result<Many> {
        Ok(Many(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        // The shell's and bpsh's own way out: what they started goes with them.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

pub fn measure(table: &mut Table) -> Result<()> {
    for count in [10, 100, 1_000] {
        let local = {
            let mut shell = Command::new("sh");
            let script = format!(
                "trap 'kill $(jobs -p) 2> /dev/null; exit' TERM; i=0; \
                 while [ $i -lt {count} ]; do sleep 10001 & i=$((i+1)); done; wait"
            );
            shell.args(["-c", &script]);
            let _many = Many::start(shell)?;
            wait_for("sleep 10001", count)?;
            looks()?
        };
        let ghosts = {
            let mut bpsh = Command::new("bpsh");
            let nodes = nodes()?;
            let list: Vec<String> = (0..count).map(|rank| (rank % nodes).to_string()).collect();
            bpsh.arg(list.join(",")).args(["sleep", "10002"]);
            let _many = Many::start(bpsh)?;
            wait_for("sleep 10002", count)?;
            wait_for_views(count)?;
            looks()?
        };
        for (what, local, ghosts, promise) in [
            ("ps aux, warm", local.warm, ghosts.warm, "at most 1 with 1,000"),
            ("ps aux, cold", local.cold, ghosts.cold, "at most 4 with 1,000"),
            ("top -b -n1, warm", local.top, ghosts.top, "at most 1 with 1,000"),
        ] {
            table.row(
                &format!("{what}, {count} ghosts"),
                format!("{:.1} ms", ghosts * 1e3),
                format!("{:.1} ms local processes", local * 1e3),
                format!("{:.2}", ghosts / local),
                promise,
            );
        }
    }
    Ok(())
}

/// Medians in seconds.
struct Looks {
    warm: f64,
    cold: f64,
    top: f64,
}

fn looks() -> Result<Looks> {
    let ps = || timed(Command::new("ps").arg("aux").stdout(Stdio::null()));
    let top = || timed(Command::new("top").args(["-b", "-n1"]).stdout(Stdio::null()));
    let (mut warm, mut cold, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        std::thread::sleep(OLD);
        cold.push(ps()?.as_secs_f64());
        warm.push(ps()?.as_secs_f64());
        tops.push(top()?.as_secs_f64());
    }
    Ok(Looks { warm: median(&mut warm), cold: median(&mut cold), top: median(&mut tops) })
}

fn nodes() -> Result<usize> {
    let output = Command::new("bpctl").args(["nodes", "list", "up"]).output()?;
    let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(" up ")).count();
    ensure!(lines > 0, "no node is up");
    Ok(lines)
}

fn wait_for(what: &str, count: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        let found = Command::new("pgrep").args(["-fxc", what]).output()?;
        let found: usize = String::from_utf8_lossy(&found.stdout).trim().parse().context("pgrep -c")?;
        if found >= count {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(120) {
            bail!("only {found} of {count} `{what}` run");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_for_views(count: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let found = mounts.lines().filter(|line| line.starts_with("ghostproc-view /proc/")).count();
        if found >= count {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(60) {
            bail!("only {found} of {count} ghosts are shown");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

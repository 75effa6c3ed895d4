//! What a look at many ghosts costs: `ps aux` and `top` with so many ghosts against so many local processes.
//!
//! Warm: somebody has looked within the last second. Cold: nobody has, so that the nodes are asked first.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::commands::timed;
use crate::measure::{Table, median};

const ROUNDS: usize = 5;
/// In each round.
const LOOKS: usize = 3;
/// After this what is known is too old.
const OLD: Duration = Duration::from_millis(1200);

/// Programs that run until this is dropped: children of one process, in its group.
struct Many(Child);

impl Many {
    fn start(mut command: Command) -> Result<Many> {
        Ok(Many(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?))
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

pub fn measure(table: &mut Table) -> Result<()> {
    let nodes = nodes()?;
    for count in [10, 100, 1_000] {
        let (mut of_local, mut of_ghosts) = (Looks::default(), Looks::default());
        // In turn: what disturbs the machine disturbs both.
        for _ in 0..ROUNDS {
            let script = format!("i=0; while [ $i -lt {count} ]; do sleep 10001 & i=$((i+1)); done; wait");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]);
            let many = Many::start(shell)?;
            wait_for("sleep 10001", count)?;
            of_local.look()?;
            drop(many);
            wait_for_none("sleep 10001")?;

            let list: Vec<String> = (0..count).map(|rank| (rank % nodes).to_string()).collect();
            let mut bpsh = Command::new("bpsh");
            bpsh.arg(list.join(",")).args(["sleep", "10002"]);
            let many = Many::start(bpsh)?;
            wait_for("sleep 10002", count)?;
            wait_for_views(count)?;
            of_ghosts.look()?;
            drop(many);
            wait_for_none("sleep 10002")?;
        }
        for (what, local, ghosts, promise) in [
            ("ps aux, warm", &mut of_local.warm, &mut of_ghosts.warm, "at most 1 with 1,000"),
            ("ps aux, cold", &mut of_local.cold, &mut of_ghosts.cold, "at most 4 with 1,000"),
            ("top -b -n1, warm", &mut of_local.top, &mut of_ghosts.top, "at most 1 with 1,000"),
        ] {
            let (local, ghosts) = (median(local), median(ghosts));
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

/// Seconds.
#[derive(Default)]
struct Looks {
    warm: Vec<f64>,
    cold: Vec<f64>,
    top: Vec<f64>,
}

impl Looks {
    fn look(&mut self) -> Result<()> {
        let ps = || timed(Command::new("ps").arg("aux").stdout(Stdio::null()));
        let top = || timed(Command::new("top").args(["-b", "-n1"]).stdout(Stdio::null()));
        // Nobody has looked at these files before; that costs more, and is not what is compared.
        ps()?;
        top()?;
        for _ in 0..LOOKS {
            std::thread::sleep(OLD);
            self.cold.push(ps()?.as_secs_f64());
            self.warm.push(ps()?.as_secs_f64());
            std::thread::sleep(OLD);
            ps()?;
            self.top.push(top()?.as_secs_f64());
        }
        Ok(())
    }
}

fn nodes() -> Result<usize> {
    let output = Command::new("bpctl").args(["nodes", "list", "up"]).output()?;
    let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(" up ")).count();
    ensure!(lines > 0, "no node is up");
    Ok(lines)
}

fn running(what: &str) -> Result<usize> {
    let output = Command::new("pgrep").args(["-fxc", what]).output()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("pgrep -c")
}

fn wait_for(what: &str, count: usize) -> Result<()> {
    wait_until(what, |found| found >= count)
}

fn wait_for_none(what: &str) -> Result<()> {
    wait_until(what, |found| found == 0)
}

fn wait_until(what: &str, is_right: impl Fn(usize) -> bool) -> Result<()> {
    let begin = Instant::now();
    loop {
        let found = running(what)?;
        if is_right(found) {
            return Ok(());
        }
        if begin.elapsed() > Duration::from_secs(120) {
            bail!("{found} `{what}` run");
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

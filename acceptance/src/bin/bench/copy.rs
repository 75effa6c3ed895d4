//! `bpcp` against scp, and against a link that is shaped.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::measure::{Table, in_turn, median};
use crate::ssh::Server;

const MEBIBYTES: usize = 512;
const FILE: &str = "/dev/shm/bench-copy";
/// What the shaped link carries, headers included.
const GIGABIT: f64 = 1e9 / 8.0 / (1 << 20) as f64;

pub fn measure(table: &mut Table, ssh: Option<&Server>) -> Result<()> {
    with_file(|| {
        if let Some(ssh) = ssh {
            against_scp(table, ssh, ", master and node on the same processors")?;
        }
        shaped(table)
    })
}

/// On a cluster whose master and nodes do not take turns on one processor, as two machines do not either.
pub fn measure_apart(table: &mut Table, ssh: &Server) -> Result<()> {
    with_file(|| against_scp(table, ssh, ", master and node with a processor each"))
}

fn with_file(measure: impl FnOnce() -> Result<()>) -> Result<()> {
    let made =
        Command::new("sh").args(["-c", &format!("head -c {} /dev/urandom > {FILE}", MEBIBYTES << 20)]).status()?;
    ensure!(made.success(), "no file on the master");
    let measured = measure();
    let _ = fs::remove_file(FILE);
    let _ = Command::new("bpsh").args(["-n", "0", "rm", "-f", FILE, "/dev/shm/bench-scp"]).status();
    measured
}

fn timed(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(start.elapsed())
}

fn bpcp() -> Result<Duration> {
    let mut command = Command::new("bpcp");
    command.args(["-q", FILE, "0:/dev/shm"]);
    timed(command)
}

fn rate(seconds: f64) -> String {
    format!("{:.0} MiB/s", MEBIBYTES as f64 / seconds)
}

fn against_scp(table: &mut Table, ssh: &Server, what: &str) -> Result<()> {
    let (ours, theirs) = in_turn(5, bpcp, || timed(ssh.copy(FILE, "/dev/shm/bench-scp")))?;
    let ratio = format!("{:.2}", theirs / ours);
    table.row(&format!("`bpcp FILE 0:DIR`, 512 MiB, against scp{what}"), rate(ours), rate(theirs), ratio, "at least 2");
    Ok(())
}

/// The master sends at 1 Gbit/s at most.
fn shaped(table: &mut Table) -> Result<()> {
    let device = fs::read_dir("/sys/class/net")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name != "lo" && !name.starts_with("tunl") && !name.starts_with("sit"))
        .context("the master has no network device")?;
    let shape = ["qdisc", "add", "dev", &device, "root", "tbf", "rate", "1gbit", "burst", "256kb", "latency", "50ms"];
    match Command::new("tc").args(shape).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        other => {
            eprintln!("bench: without a shaped link: tc cannot shape {device} ({other:?})");
            return Ok(());
        }
    }
    let mut times = (0..3).map(|_| bpcp().map(|time| time.as_secs_f64())).collect::<Result<Vec<_>>>();
    let _ = Command::new("tc").args(["qdisc", "del", "dev", &device, "root"]).status();
    let seconds = median(times.as_deref_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?);
    let ratio = format!("{:.2}", MEBIBYTES as f64 / seconds / GIGABIT);
    let link = format!("{GIGABIT:.0} MiB/s");
    table.row("the same over a link of 1 Gbit/s (tbf), against the link", rate(seconds), link, ratio, "at least 0.8");
    Ok(())
}

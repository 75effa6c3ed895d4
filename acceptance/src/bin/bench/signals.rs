//! From kill() on the master to the handler on the node.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::measure::{Table, median, now_ns};

const SIGNALS: usize = 500;

/// On the node: prints the time at which each SIGUSR1 arrives.
pub fn stamp() -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    set.thread_block()?;
    let signals = SignalFd::new(&set)?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    while signals.read_signal()?.is_some() {
        writeln!(out, "{}", now_ns())?;
        out.flush()?;
    }
    Ok(())
}

pub fn measure(table: &mut Table) -> Result<()> {
    let program = std::env::current_exe()?;
    let remote = latencies(Command::new("bpsh").arg("0").arg(&program).arg("stamp"), true)?;
    let local = latencies(Command::new(&program).arg("stamp"), false)?;
    table.row(
        "kill() to the program's handler, median of 500",
        format!("{:.0} us", remote * 1e-3),
        format!("{:.0} us", local * 1e-3),
        format!("{:.1}", remote / local),
        "at most 500 us",
    );
    Ok(())
}

/// Median in nanoseconds.
fn latencies(command: &mut Command, ghost: bool) -> Result<f64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    lines.next().context("the program ended before it was ready")??;
    let mut pid = i32::try_from(child.id())?;
    if ghost {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        pid = children.split_whitespace().next().context("bpsh has no ghost")?.parse()?;
    }
    let mut times = Vec::new();
    for _ in 0..SIGNALS {
        let sent = now_ns();
        kill(Pid::from_raw(pid), Signal::SIGUSR1)?;
        let arrived: i64 = lines.next().context("the program ended")??.parse()?;
        times.push((arrived - sent) as f64);
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    child.wait()?;
    Ok(median(&mut times))
}

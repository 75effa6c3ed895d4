//! What the processes that remote processes fork cost, and how soon they are seen on the master.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

use crate::measure::{Table, median, now_ns};

const BIRTHS: usize = 200;
const FORKS: u32 = 5_000;

/// On the node: for each line of input a child, and the time at which it was made.
pub fn mother() -> Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lines() {
        line?;
        let begin = now_ns();
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
        writeln!(out, "{begin}")?;
        out.flush()?;
        // Long enough for the master to see it.
        std::thread::sleep(Duration::from_millis(10));
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

pub fn measure(table: &mut Table) -> Result<()> {
    let program = std::env::current_exe()?;
    let remote = births(Command::new("bpsh").arg("0").arg(&program).arg("mother"), true)?;
    let local = births(Command::new(&program).arg("mother"), false)?;
    table.row(
        "from fork on the node to the child in the master's process table, median of 200",
        format!("{:.2} ms", remote * 1e-6),
        format!("{:.2} ms", local * 1e-6),
        format!("{:.1}", remote / local),
        "at most 5 ms",
    );

    let storm = format!("i=0; while [ $i -lt {FORKS} ]; do (:); i=$((i+1)); done");
    let (mut remote, mut local) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        remote.push(master_cpu(Command::new("bpsh").args(["0,1", "sh", "-c", &storm]))? / f64::from(2 * FORKS));
        local.push(master_cpu(Command::new("sh").args(["-c", &storm]))? / f64::from(FORKS));
    }
    let (remote, local) = (median(&mut remote), median(&mut local));
    table.row(
        "the master's CPU time for a fork and exit on a node, in a storm on two nodes",
        format!("{:.0} us", remote * 1e6),
        format!("{:.0} us local", local * 1e6),
        format!("{:.2}", remote / local),
        "less than 1",
    );
    Ok(())
}

/// Median in nanoseconds from just before the fork to the child being seen.
fn births(command: &mut Command, ghost: bool) -> Result<f64> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("stdin")?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    let mut pid = child.id();
    if ghost {
        pid = wait_for("bpsh's ghost", || children(pid).into_iter().next())?;
    }
    let mut times = Vec::new();
    for _ in 0..BIRTHS {
        wait_for("the last child to be gone", || children(pid).is_empty().then_some(()))?;
        writeln!(input)?;
        wait_for("the child", || children(pid).into_iter().next())?;
        let seen = now_ns();
        let begin: i64 = lines.next().context("the program ended")??.parse()?;
        times.push((seen - begin) as f64);
    }
    drop(input);
    child.wait()?;
    Ok(median(&mut times))
}

/// By the parent in each process's stat: the view of a ghost has no list of children.
fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |child: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat.rfind(')').and_then(|at| stat.get(at + 2..)?.split(' ').nth(1)?.parse::<u32>().ok());
        parent == Some(pid)
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = condition() {
            return Ok(found);
        }
        if begin.elapsed() > Duration::from_secs(10) {
            bail!("{what}: not within 10 s");
        }
    }
}

/// CPU seconds on this host while the command runs: the command's, its descendants' and ghostd's.
fn master_cpu(command: &mut Command) -> Result<f64> {
    let before = children_cpu()? + ghostd_cpu();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(children_cpu()? + ghostd_cpu() - before)
}

fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Of the daemon on this host; 0 if there is none.
fn ghostd_cpu() -> f64 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0.0 };
    let ticks: u64 = entries
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| stat.contains(" (ghostd) "))
        .filter_map(|stat| {
            let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ').skip(11);
            Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
        })
        .sum();
    // USER_HZ is 100 on every architecture that this is for.
    ticks as f64 / 100.0
}

//! One small command: on a node, here, and over ssh.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::measure::{Table, in_turn};
use crate::ssh::Server;

pub fn timed(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}

pub fn measure(table: &mut Table, ssh: Option<&Server>) -> Result<()> {
    let remote = || timed(Command::new("bpsh").args(["0", "/bin/true"]));
    let (ours, local) = in_turn(300, remote, || timed(&mut Command::new("/bin/true")))?;
    table.row(
        "`bpsh 0 /bin/true` against `/bin/true`, median of 300",
        format!("{:.2} ms", ours * 1e3),
        format!("{:.2} ms", local * 1e3),
        format!("{:.2}", ours / local),
        "at most 4",
    );
    let Some(ssh) = ssh else { return Ok(()) };
    let (ours, theirs) = in_turn(5, remote, || timed(ssh.command(false).arg("/bin/true")))?;
    table.row(
        "… against `ssh host /bin/true`, median of 5",
        format!("{:.2} ms", ours * 1e3),
        format!("{:.1} ms", theirs * 1e3),
        format!("{:.4}", ours / theirs),
        "",
    );
    ssh.open_master()?;
    let (ours, theirs) = in_turn(50, remote, || timed(ssh.command(true).arg("/bin/true")))?;
    table.row(
        "… against ssh with an open ControlMaster, median of 50",
        format!("{:.2} ms", ours * 1e3),
        format!("{:.1} ms", theirs * 1e3),
        format!("{:.3}", ours / theirs),
        "",
    );
    Ok(())
}

//! Bulk data from a node.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::measure::{Table, in_turn};
use crate::ssh::Server;

const MEBIBYTES: usize = 512;

pub fn measure(table: &mut Table, ssh: Option<&Server>) -> Result<()> {
    // /dev/shm is a member's own: each side makes its own copy.
    let make = format!("head -c {} /dev/zero > /dev/shm/bench-data", MEBIBYTES << 20);
    ensure!(Command::new("bpsh").args(["0", "sh", "-c", &make]).status()?.success(), "no file on node 0");
    let remote = || {
        let start = Instant::now();
        let status = Command::new("sh").args(["-c", "exec bpsh -n 0 cat /dev/shm/bench-data > /dev/null"]).status()?;
        ensure!(status.success(), "bpsh: {status}");
        Ok(start.elapsed())
    };
    let rate = |seconds: f64| format!("{:.0} MiB/s", MEBIBYTES as f64 / seconds);
    match ssh {
        Some(ssh) => {
            let (ours, theirs) = in_turn(7, remote, || {
                let start = Instant::now();
                let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
                let status = ssh.command(false).args(["cat", "/dev/shm/bench-data"]).stdout(null).status()?;
                ensure!(status.success(), "ssh: {status}");
                Ok(start.elapsed())
            })?;
            let ratio = format!("{:.2}", theirs / ours);
            table.row(
                "`bpsh 0 cat FILE > /dev/null`, 512 MiB, against ssh",
                rate(ours),
                rate(theirs),
                ratio,
                "at least 2",
            );
        }
        None => {
            // A pipe's status is that of its end: that there is something to read is seen here.
            ensure!(Command::new("sh").args(["-c", &make]).status()?.success(), "no file on the master");
            let (ours, local) = in_turn(7, remote, || {
                let start = Instant::now();
                ensure!(
                    Command::new("sh").args(["-c", "cat /dev/shm/bench-data | cat > /dev/null"]).status()?.success(),
                    "cat"
                );
                Ok(start.elapsed())
            })?;
            let ratio = format!("{:.2}", local / ours);
            table.row(
                "`bpsh 0 cat FILE > /dev/null`, 512 MiB, against a local pipe",
                rate(ours),
                rate(local),
                ratio,
                "",
            );
        }
    }
    let _ = fs::remove_file("/dev/shm/bench-data");
    let _ = Command::new("bpsh").args(["0", "rm", "/dev/shm/bench-data"]).status();
    Ok(())
}

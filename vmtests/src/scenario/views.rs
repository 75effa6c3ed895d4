//! What lies over /proc/GHOST, and PID 1, which looks at /proc, too.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::root::Release;

/// The view's server stops answering, then dies: ps and systemd go on, and a new one serves.
pub fn server(cluster: &Cluster, _: Release) -> Result<()> {
    let master = &cluster.master;
    let running = master.spawn("su - alice -c 'bpsh 0-1 sleep 4730'")?;
    let is_shown = "[ $(ps ax -o args= | grep -cx 'sleep 4730') = 2 ] && grep -q ' /proc/[0-9]* ' /proc/mounts";
    master.until(is_shown)?;
    for signal in ["STOP", "KILL"] {
        let server = master.until("pgrep -f 'ghost-vie[w] serve' | grep .")?;
        master.run(&format!("kill -{signal} {}", server.split_whitespace().next().context("no server")?))?;
        master.run("ps axf > /dev/null; systemctl status --no-pager > /dev/null; systemctl daemon-reload")?;
        master.run("systemd-run --wait --quiet true")?;
        master.until(is_shown).with_context(|| format!("no new view after SIG{signal}"))?;
    }
    running.kill()?;
    master.run("pkill -fx 'sleep 4730'; true")?;
    Ok(())
}

/// Ghosts of the measurement.
const GHOSTS: usize = 1000;
/// Seconds of processor time that PID 1 may spend on making and removing one mount unit, on an emulated machine.
const SECONDS: f64 = 0.25;
/// Bytes that PID 1 may keep for each.
const BYTES: f64 = 64.0 * 1024.0;

/// systemd makes a unit of each mount.
pub fn cost(cluster: &Cluster, _: Release) -> Result<()> {
    let master = &cluster.master;
    let look = || -> Result<Vec<(f64, f64)>> {
        ["init.scope", "system.slice/systemd-journald.service"]
            .iter()
            .map(|unit| {
                let said = master.run(&format!(
                    "cd /sys/fs/cgroup/{unit}; sed -n 's/^usage_usec //p' cpu.stat; cat memory.current"
                ))?;
                let mut numbers = said.lines().map(|line| line.parse::<f64>().unwrap_or(f64::NAN));
                Ok((numbers.next().unwrap_or(f64::NAN) / 1e6, numbers.next().unwrap_or(f64::NAN)))
            })
            .collect()
    };
    let before = look()?;
    let views = "[ $(grep -c ' /proc/[0-9]* ' /proc/mounts) -ge ";
    // Few launches of many: each rank is a ghost with a view.
    let list = (0..50).map(|rank| (rank % 2).to_string()).collect::<Vec<_>>().join(",");
    master.run(&format!(
        "for i in $(seq {}); do su - alice -c 'bpsh {list} sleep 4740' < /dev/null > /dev/null 2>&1 & done; disown -a",
        GHOSTS / 50
    ))?;
    let limit = 4 * crate::machine::LIMIT;
    master.until_with(limit, &format!("{views}{GHOSTS} ]"), |_| true)?;
    master.run("systemctl list-units --type=mount --no-legend | wc -l; ps ax > /dev/null")?;
    let during = look()?;
    master.run("pkill -x bpsh; true")?;
    master.until_with(limit, &format!("! {views}1 ]"), |_| true)?;
    master.run("systemctl daemon-reload")?;
    let after = look()?;
    for (index, name) in ["systemd", "journald"].iter().enumerate() {
        let seconds = (after[index].0 - before[index].0) / GHOSTS as f64;
        let bytes = (during[index].1 - before[index].1) / GHOSTS as f64;
        println!(
            "  {name}: {:.1} ms of processor time and {:.1} KiB for each of {GHOSTS} ghosts with a view (afterwards {:.1} MiB in all)",
            seconds * 1000.0,
            bytes / 1024.0,
            after[index].1 / 1048576.0
        );
        ensure!(seconds < SECONDS, "{name} spends {seconds} s on a ghost");
        ensure!(bytes < BYTES, "{name} keeps {bytes} bytes for a ghost");
    }
    Ok(())
}

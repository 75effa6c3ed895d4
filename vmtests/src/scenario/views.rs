//! What lies over /proc/GHOST, and PID 1, which looks at /proc, too.

use anyhow::{Context, Result};

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

//! systemd makes a unit of each mount, so of each ghost's view: what that costs it, its user's part, and journald.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::root::Release;

const LAUNCHES: usize = 20;
/// Ranks of a launch, each of which is a ghost with a view.
const RANKS: usize = 50;
const GHOSTS: usize = LAUNCHES * RANKS;

/// Who spends: its control group.
const SPENDERS: [(&str, &str); 3] = [
    ("systemd", "init.scope"),
    ("systemd --user", "user.slice/user-1000.slice/user@1000.service/init.scope"),
    ("journald", "system.slice/systemd-journald.service"),
];
/// Seconds of processor time for making and removing one mount unit, on an emulated machine.
const SECONDS: f64 = 0.25;
/// Bytes that are kept for each.
const BYTES: f64 = 64.0 * 1024.0;

/// Views come and go in their hundreds; if none does for so long, something stands still.
const STANDSTILL: Duration = Duration::from_secs(120);
/// For all of them, as long as there is progress.
const LIMIT: Duration = Duration::from_secs(900);

/// Seconds and bytes.
#[derive(Debug, Clone, Copy)]
struct Spent(f64, f64);

pub fn run(cluster: &Cluster, _: Release) -> Result<()> {
    // Who has logged in once has a manager; it stays while she is logged in.
    let mut login = cluster.master.spawn("su - alice -c 'echo here; read line'")?;
    login.expect("here")?;
    let before = look(cluster)?;
    let began = Instant::now();
    launch(cluster)?;
    views_become(cluster, GHOSTS)?;
    let appeared = began.elapsed();
    cluster.master.run("systemctl list-units --type=mount --no-legend > /dev/null; ps ax > /dev/null")?;
    let during = look(cluster)?;
    let began = Instant::now();
    cluster.master.run("pkill -x bpsh; true")?;
    views_become(cluster, 0)?;
    let left = began.elapsed();
    cluster.master.run("systemctl daemon-reload")?;
    let after = look(cluster)?;
    println!("  {GHOSTS} views came in {} s and went in {} s", appeared.as_secs(), left.as_secs());
    for (index, (name, _)) in SPENDERS.iter().enumerate() {
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
    login.input("on\n")?;
    login.wait(crate::machine::LIMIT)?;
    Ok(())
}

fn look(cluster: &Cluster) -> Result<Vec<Spent>> {
    SPENDERS
        .iter()
        .map(|(name, group)| {
            let said = cluster.master.run(&format!(
                "cd /sys/fs/cgroup/{group} && sed -n 's/^usage_usec //p' cpu.stat && cat memory.current"
            ))?;
            let mut numbers = said.lines().map(str::parse::<f64>);
            let mut next = || numbers.next().with_context(|| format!("{name}: no figures"))?.context(*name);
            Ok(Spent(next()? / 1e6, next()?))
        })
        .collect()
}

/// Few launches of many.
fn launch(cluster: &Cluster) -> Result<()> {
    let list = (0..RANKS).map(|rank| (rank % cluster.nodes.len()).to_string()).collect::<Vec<_>>().join(",");
    cluster.master.run(&format!(
        "rm -rf /home/alice/mounts; install -d -o alice /home/alice/mounts; for i in $(seq {LAUNCHES}); do \
         su - alice -c \"bpsh {list} sleep 4740 < /dev/null > mounts/$i.out 2> mounts/$i.err; echo \\$? > mounts/$i.status\" \
         > /dev/null 2>&1 & done; disown -a"
    ))?;
    Ok(())
}

fn views_become(cluster: &Cluster, wanted: usize) -> Result<()> {
    let began = Instant::now();
    let (mut last, mut moved) = (None, began);
    loop {
        let said = cluster
            .master
            .run("grep -c ' /proc/[0-9]* ' /proc/mounts; ls /home/alice/mounts | grep -c status; true")?;
        let mut numbers = said.lines().map(|line| line.parse::<usize>().unwrap_or(0));
        let (views, ended) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if views == wanted {
            return Ok(());
        }
        if last != Some(views) {
            (last, moved) = (Some(views), Instant::now());
        }
        let early = wanted > 0 && ended > 0;
        if early || moved.elapsed() > STANDSTILL || began.elapsed() > LIMIT {
            bail!("{views} views instead of {wanted} after {} s\n{}", began.elapsed().as_secs(), state(cluster)?);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What the launches have said, and what there is of them.
fn state(cluster: &Cluster) -> Result<String> {
    let mut state = cluster.master.run(
        "cd /home/alice/mounts; echo \"$(ls | grep -c status) of the launches have ended: $(cat *.status 2> /dev/null | sort | uniq -c | paste -sd,)\"; \
         cat *.err | sort | uniq -c | sort -rn | head -20; echo \"ghosts: $(pgrep -cfx 'sleep 4740')\"; free -m; cat /proc/loadavg",
    )?;
    for node in &cluster.nodes {
        state += &format!("{}: ", node.name());
        state += &node.run("echo \"$(pgrep -cfx 'sleep 4740') processes; load $(cat /proc/loadavg)\"")?;
    }
    Ok(state)
}

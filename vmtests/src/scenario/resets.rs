//! Machines that are reset without warning.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::root::Release;

/// Presses the button and waits for the machine's next life.
fn reset(machine: &Machine) -> Result<()> {
    let before = machine.boots(None)?;
    // What apt has installed is on the disk.
    machine.run("sync")?;
    machine.reset()?;
    machine.boots(Some(&before))?;
    Ok(())
}

pub fn node(cluster: &Cluster, _: Release) -> Result<()> {
    let master = &cluster.master;
    let lost = master.spawn("su - alice -c 'bpsh 1 sleep 4720'")?;
    let mut other = master.spawn("su - alice -c \"bpsh 0 sh -c 'echo begun; read line; exit 5'\"")?;
    other.expect("begun")?;
    cluster.nodes[1].until("pgrep -fx 'sleep 4720'")?;
    reset(&cluster.nodes[1])?;
    let output = lost.wait(crate::machine::LIMIT)?;
    ensure!(output.status != 0, "a process of a node that was reset has ended well: {output:?}");
    master.until("! pgrep -fx 'sleep 4720'")?;
    cluster.nodes_are_up()?;
    ensure!(cluster.nodes[1].try_run("pgrep -fx 'sleep 4720'")?.status == 1, "it runs again");
    // The other node's process has not noticed.
    other.input("on\n")?;
    let output = other.wait(crate::machine::LIMIT)?;
    ensure!(output.status == 5, "the other node's process: {output:?}");
    Ok(())
}

pub fn master(cluster: &Cluster, _: Release) -> Result<()> {
    drop(cluster.master.spawn("su - alice -c 'bpsh 0-1 sleep 4721'")?);
    for node in &cluster.nodes {
        node.until("pgrep -fx 'sleep 4721'")?;
    }
    reset(&cluster.master)?;
    for node in &cluster.nodes {
        node.until("! pgrep -fx 'sleep 4721'")?;
    }
    cluster.nodes_are_up()
}

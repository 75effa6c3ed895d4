//! The wall clocks jump while processes run: nothing dies, nothing is declared dead.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::root::Release;

pub fn run(cluster: &Cluster, _: Release) -> Result<()> {
    let mut running =
        cluster.master.spawn("su - alice -c \"bpsh 0-1 sh -c 'echo begun; read line; echo got \\$line'\"")?;
    running.expect("begun")?;
    running.expect("begun")?;
    for jump in ["+1 day", "-2 days", "+1 day"] {
        for machine in cluster.machines() {
            machine.run(&format!("date -s '{jump}'"))?;
        }
        // Longer than lease and margin, by a clock that cannot be set.
        cluster.master.run("sleep 25")?;
        ensure!(cluster.as_user("bpsh -a hostname | sort")? == "n0\nn1\n", "the nodes after {jump}");
    }
    // The master's alone, too.
    cluster.master.run("date -s '+400 days'")?;
    cluster.master.run("sleep 25")?;
    cluster.master.run("date -s '-400 days'")?;
    running.input("on\n")?;
    let output = running.wait(crate::machine::LIMIT)?;
    ensure!(output.status == 0 && output.out.matches("got on").count() == 2, "after the jumps: {output:?}");
    cluster.nodes_are_up()
}

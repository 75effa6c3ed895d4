//! The machines for somebody who wants to look: each line of standard input is a machine's name and a line of bash for it.

use std::io::BufRead;

use anyhow::Result;

use crate::cluster::Cluster;

/// Runs what is typed, as root, until there is no more.
pub fn run(cluster: &Cluster) -> Result<()> {
    println!("MACHINE COMMAND (machines: {}), until the end of input", names(cluster));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Some((name, command)) = line.trim().split_once(' ') else { continue };
        let Some(machine) = cluster.machines().find(|machine| machine.name() == name) else {
            println!("no machine {name}: there are {}", names(cluster));
            continue;
        };
        match machine.try_run(command) {
            Ok(output) => println!("{}{}{name}: exit status {}", output.out, output.err, output.status),
            Err(why) => println!("{why:#}\n{}", machine.console()),
        }
    }
    Ok(())
}

fn names(cluster: &Cluster) -> String {
    cluster.machines().map(crate::machine::Machine::name).collect::<Vec<_>>().join(", ")
}

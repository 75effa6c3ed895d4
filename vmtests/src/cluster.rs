//! The three machines with the product on them, as an administrator puts it there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::machine::{Hardware, Machine};
use crate::network::Network;
use crate::readme::{self, Step, Who};
use crate::root::recipe::{SEATS, USER};

/// Where the image with the packages is mounted in the machines.
pub const PRODUCTS: &str = "/run/vmtests";

pub struct Cluster {
    pub master: Machine,
    pub nodes: Vec<Machine>,
    _network: Network,
}

impl Cluster {
    /// Starts the machines and waits until all of them are up.
    pub fn boot(hardware: &Hardware) -> Result<Self> {
        let network = Network::new(Path::new("."));
        let [master, nodes @ ..] = SEATS;
        let master = Machine::start(hardware, &network, master)?;
        let nodes = nodes.into_iter().map(|seat| Machine::start(hardware, &network, seat)).collect::<Result<_>>()?;
        let cluster = Self { master, nodes, _network: network };
        for machine in cluster.machines() {
            machine.boots(None).map_err(|why| why.context(machine.console()))?;
        }
        Ok(cluster)
    }

    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        std::iter::once(&self.master).chain(&self.nodes)
    }

    /// Types what the README says, with the packages in the machines' current directories. What it says in words, that the token is to be
    /// brought to the nodes, is done as soon as there is one.
    pub fn install(&self, readme: &Path) -> Result<()> {
        let text = std::fs::read_to_string(readme).with_context(|| readme.display().to_string())?;
        for machine in self.machines() {
            machine.run(&format!("cp {PRODUCTS}/1/*.deb ."))?;
        }
        let mut carried = false;
        let steps = readme::steps(&text)?;
        for together in steps.chunk_by(|one, next| one.who.is_node() && next.who.is_node()) {
            match together {
                [Step { who: Who::Master, command }] => {
                    self.master.types(command)?;
                    if !carried && let Ok(token) = self.master.run("cat token") {
                        for node in &self.nodes {
                            node.put("token", &token)?;
                        }
                        carried = true;
                    }
                }
                // What she sees is true as soon as the nodes have connected.
                [Step { who: Who::User, command }] => {
                    self.master.until(&format!("su - {USER} -c {}", quoted(command)))?;
                }
                together => self.on_nodes(together)?,
            }
        }
        self.nodes_are_up()
    }

    /// Nodes get their numbers in the order in which they join: only what is before that, apt's work, is done on all at the same time.
    fn on_nodes(&self, steps: &[Step]) -> Result<()> {
        let place = |step: &Step| {
            let node = step.who.node().and_then(|number| self.nodes.get(number));
            node.with_context(|| format!("the README has more nodes than there are: {step:?}"))
        };
        let (apt, others): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| step.command.starts_with("apt-get "));
        std::thread::scope(|scope| {
            let typing: Vec<_> =
                apt.into_iter().map(|step| scope.spawn(move || place(step)?.types(&step.command))).collect();
            typing.into_iter().try_for_each(|typing| typing.join().map_err(|_| anyhow!("panicked"))?)
        })?;
        others.into_iter().try_for_each(|step| place(step)?.types(&step.command))
    }

    /// Waits until the master says so.
    pub fn nodes_are_up(&self) -> Result<()> {
        let all = self.nodes.len();
        self.master.until_with(crate::machine::LIMIT, "bpsh -a hostname", |out| out.lines().count() == all).map(drop)
    }

    /// Runs a line on the master as the user, with a login's environment.
    pub fn as_user(&self, line: &str) -> Result<String> {
        self.master.run(&format!("su - {USER} -c {}", quoted(line)))
    }

    /// MainPID of a unit, as soon as it has one and it is none of `not`.
    pub fn main_pid(&self, machine: &Machine, unit: &str, not: &str) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < crate::machine::LIMIT {
            let said = machine.run(&format!("systemctl show -p MainPID -p ActiveState {unit}"))?;
            let pid = said.lines().find_map(|line| line.strip_prefix("MainPID=")).unwrap_or("0");
            if said.contains("ActiveState=active") && pid != "0" && pid != not {
                return Ok(pid.to_owned());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        bail!("{}: {unit} has no main process", machine.name())
    }

    /// What helps to understand a failure.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for machine in self.machines() {
            report += &format!("{}: console\n{}", machine.name(), machine.console());
            if machine.is_broken() {
                continue;
            }
            let line = "journalctl -q --no-pager -n 40 -u ghostd -u nodeagent; bpstat -l 2>&1";
            match machine.try_run(line) {
                Ok(output) => report += &output.out,
                Err(why) => report += &format!("{why:#}\n"),
            }
        }
        report
    }
}

/// As one word of a shell's line.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_keeps_a_quote() {
        assert_eq!(quoted("echo 'a'"), r"'echo '\''a'\'''");
    }
}

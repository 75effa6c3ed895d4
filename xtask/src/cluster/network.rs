//! The cluster's network: a namespace of its own holds the bridge, so that nothing of it is seen on the host, and it is
//! gone when the runner closes the last descriptor of it.
//!
//! Invariant: no device is ever made in the host's network namespace.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use ghost_sys::namespace::{Place, new_network, spawn};

/// The network's prefix length.
const PREFIX: u8 = 16;

pub const MASTER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

pub fn node_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 79, 0, 10)) + number)
}

pub struct Network {
    hub: OwnedFd,
}

impl Network {
    pub fn create() -> Result<Self> {
        let network = Self { hub: new_network().context("network namespace")? };
        let script = "link set lo up\nlink add hub type bridge\nlink set hub up\n";
        ip(script, network.hub.try_clone()?).context("the cluster's bridge")?;
        Ok(network)
    }

    /// Connects the network namespaces of these processes, in which eth0 gets the address.
    pub fn connect(&self, members: &[(u32, Ipv4Addr)]) -> Result<()> {
        let mut script = String::new();
        for (number, (pid, _)) in members.iter().enumerate() {
            script += &format!("link add port{number} type veth peer name eth0 netns {pid}\n");
            script += &format!("link set port{number} master hub up\n");
        }
        ip(&script, self.hub.try_clone()?).context("connecting the members to the bridge")?;
        for (pid, address) in members {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
            let script = format!("link set lo up\naddr add {address}/{PREFIX} dev eth0\nlink set eth0 up\n");
            ip(&script, namespace.into()).with_context(|| format!("the network of {address}"))?;
        }
        Ok(())
    }
}

fn ip(script: &str, namespace: OwnedFd) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = spawn(command, Place::here().net(namespace)).context("ip")?;
    child.stdin.take().context("ip has no input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_in_the_network() {
        let mut all: Vec<Ipv4Addr> = (0..=250).map(node_address).collect();
        all.push(MASTER);
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|address| address.octets()[..2] == [10, 79]));
    }
}

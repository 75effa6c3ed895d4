//! What apt takes away, and what stays.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::root::Release;

pub fn run(cluster: &Cluster, _: Release) -> Result<()> {
    for machine in cluster.machines() {
        let packages = "$(dpkg-query -W -f '${Package}\\n' 'ghostproc*')";
        machine.run(&format!("apt-get remove -y {packages}"))?;
        machine.until("! pgrep -x 'ghostd|nodeagent|ghost-holder|ghost-view|bpsh'")?;
        ensure!(machine.try_run("grep -E 'ghostproc| /proc/[0-9]+ ' /proc/mounts")?.status == 1, "mounts stay");
        if machine.name() == cluster.master.name() {
            // Keys and configuration are the administrator's until she purges.
            machine.run("test -e /etc/ghostproc/ghostd.toml")?;
        }
        machine.run(&format!("apt-get purge -y {packages}"))?;
        let left = machine.run("find /etc /var /run /usr -xdev -name '*ghostproc*' -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/var/cache/*'")?;
        ensure!(left.is_empty(), "{}: purge leaves\n{left}", machine.name());
    }
    Ok(())
}

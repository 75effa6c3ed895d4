//! Daemons are killed, restarted and upgraded while remote processes run and stream. Nothing is lost.

use anyhow::{Context, Result, ensure};

use super::hands_over;
use crate::cluster::{Cluster, PRODUCTS};
use crate::root::Release;

/// In the long form, and in the short one.
const MANY: usize = 50;
const FEW: usize = 8;

/// Counts until it is told to stop, and says how far it has come: without a child of its own, and whatever the machine's speed.
const COUNT: &str = "$| = 1; my $i = 0; until (-e \"/tmp/stop\") { print ++$i, \"\\n\"; select undef, undef, undef, 0.3 } print \"end $i\\n\"";

/// Processes that stream.
struct Streams<'a> {
    cluster: &'a Cluster,
    count: usize,
}

impl<'a> Streams<'a> {
    fn start(cluster: &'a Cluster, count: usize) -> Result<Self> {
        for node in &cluster.nodes {
            node.run("rm -f /tmp/stop")?;
        }
        cluster.master.put("/home/alice/count.pl", COUNT)?;
        cluster.master.run("chmod 644 /home/alice/count.pl")?;
        cluster.as_user(&format!(
            "rm -rf streams; mkdir streams; for i in $(seq {count}); do \
             {{ bpsh $((i % 2)) perl -e \"$(cat count.pl)\" > streams/$i 2> streams/$i.error < /dev/null; echo $? > streams/$i.status; }} & \
             done > /dev/null 2>&1; disown -a"
        ))?;
        let streams = Self { cluster, count };
        streams.go_on()?;
        Ok(streams)
    }

    /// Waits until each of them has come three lines further.
    fn go_on(&self) -> Result<()> {
        let count = self.count;
        self.cluster
            .master
            .until(&format!(
                "cd /home/alice/streams; [ $(ls | grep -c '^[0-9]*$') = {count} ] || exit 1; \
                 before=$(wc -l $(seq {count}) | awk '{{ print $1 }}'); \
                 for t in $(seq 100); do sleep 0.5; \
                   paste <(echo \"$before\") <(wc -l $(seq {count}) | awk '{{ print $1 }}') | head -{count} | awk '$2 < $1 + 3 {{ bad = 1 }} END {{ exit bad }}' && exit; \
                   ls *.status 2>/dev/null && exit 1; done; exit 1"
            ))
            .context("the streams do not go on")
            .map(drop)
    }

    /// Waits until all commands have ended, however.
    fn have_ended(&self) -> Result<()> {
        let count = self.count;
        self.cluster.master.until(&format!("[ $(cat /home/alice/streams/*.status | wc -l) = {count} ]")).map(drop)
    }

    /// Tells them to stop; each has counted without a gap, and ends well.
    fn finish(self) -> Result<()> {
        let Self { cluster, count } = self;
        for node in &cluster.nodes {
            node.run("touch /tmp/stop")?;
        }
        self.have_ended()?;
        let said = cluster.master.run(&format!(
            "cd /home/alice/streams; for i in $(seq {count}); do \
             [ $(cat $i.status) = 0 ] || {{ echo $i: status $(cat $i.status); cat $i.error; }}; \
             awk -v i=$i '/^end/ {{ e = $2; next }} {{ if ($1 != NR) {{ print i \": line \" NR \" is \" $0; exit }} n = NR }} \
               END {{ if (e == \"\" || e != n) print i \": end \" e \" after \" n \" lines\" }}' $i; done"
        ))?;
        ensure!(said.is_empty(), "what has been lost:\n{said}");
        Ok(())
    }
}

pub fn run(cluster: &Cluster, release: Release) -> Result<()> {
    if !hands_over(release) {
        return without_handover(cluster);
    }
    let master = &cluster.master;
    let streams = Streams::start(cluster, MANY)?;
    kill_and_restart(&streams)?;

    let node = &cluster.nodes[0];
    let pid = cluster.main_pid(node, "nodeagent", "")?;
    node.run("systemctl restart nodeagent")?;
    cluster.main_pid(node, "nodeagent", &pid)?;
    streams.go_on().context("after systemctl restart nodeagent")?;

    // A new package under load, on the master and on one node.
    for (machine, unit) in [(master, "ghostd"), (&cluster.nodes[1], "nodeagent")] {
        let before = cluster.main_pid(machine, unit, "")?;
        upgrade(machine)?;
        cluster.main_pid(machine, unit, &before).with_context(|| format!("{unit} was not restarted by the upgrade"))?;
        streams.go_on().with_context(|| format!("after the upgrade of {}", machine.name()))?;
    }
    streams.finish()
}

/// The short form: ghostd alone.
pub fn of_ghostd(cluster: &Cluster, release: Release) -> Result<()> {
    if !hands_over(release) {
        return are_lost(cluster, FEW);
    }
    let streams = Streams::start(cluster, FEW)?;
    kill_and_restart(&streams)?;
    streams.finish()
}

/// ghostd is killed, then restarted; the streams go on each time.
fn kill_and_restart(streams: &Streams) -> Result<()> {
    let (cluster, master) = (streams.cluster, &streams.cluster.master);
    let pid = cluster.main_pid(master, "ghostd", "")?;
    master.run(&format!("kill -9 {pid}"))?;
    let pid = cluster.main_pid(master, "ghostd", &pid)?;
    streams.go_on().context("after kill -9 of ghostd")?;

    master.run("systemctl restart ghostd")?;
    cluster.main_pid(master, "ghostd", &pid)?;
    streams.go_on().context("after systemctl restart ghostd")
}

/// Installs the newer packages of what is installed.
fn upgrade(machine: &crate::machine::Machine) -> Result<()> {
    machine.run(&format!(
        "rm -f *.deb; for package in $(dpkg-query -W -f '${{Package}}\\n' 'ghostproc*'); do cp {PRODUCTS}/2/${{package}}_*.deb .; done; \
         apt-get install -y ./*.deb"
    ))?;
    let versions = machine.run("dpkg-query -W -f '${Version} ${db:Status-Status}\\n' 'ghostproc*'")?;
    ensure!(versions.lines().all(|line| line.ends_with("-2 installed")), "not upgraded: {versions}");
    Ok(())
}

/// Before Linux 6.9 a ghostd that ends takes its remote processes along, and says so; the next one starts new ones.
fn without_handover(cluster: &Cluster) -> Result<()> {
    let master = &cluster.master;
    // A nodeagent's end is survived on every kernel, and an upgrade leaves a ghostd alone under which something runs.
    let streams = Streams::start(cluster, MANY)?;
    let node = &cluster.nodes[0];
    let pid = cluster.main_pid(node, "nodeagent", "")?;
    node.run("systemctl restart nodeagent")?;
    cluster.main_pid(node, "nodeagent", &pid)?;
    streams.go_on().context("after systemctl restart nodeagent")?;
    let pid = cluster.main_pid(master, "ghostd", "")?;
    upgrade(master)?;
    ensure!(
        cluster.main_pid(master, "ghostd", "")? == pid,
        "the upgrade has restarted a ghostd under which processes run"
    );
    streams.go_on().context("after the upgrade")?;
    streams.finish()?;

    are_lost(cluster, MANY)
}

/// A restart of ghostd on such a kernel.
fn are_lost(cluster: &Cluster, count: usize) -> Result<()> {
    let streams = Streams::start(cluster, count)?;
    cluster.master.run("systemctl restart ghostd")?;
    streams.have_ended()?;
    let told =
        cluster.master.run("cd /home/alice/streams; cat *.error | grep -c lost; cat *.status | grep -c '^0$'; true")?;
    ensure!(told == format!("{count}\n0\n"), "who was lost is told so: {told}");
    for node in &cluster.nodes {
        node.until("! pgrep -f '[t]mp/stop'")?;
    }
    cluster.nodes_are_up()
}

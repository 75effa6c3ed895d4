//! `bpctl doctor`: what ghostd has found out about the master and the nodes, for people.
//!
//! Where ghostd cannot be asked, the program that is installed says what it lacks here.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ghost_proto::client::{AdminReply, ClientToMaster, MasterToClient};
use ghost_proto::examine::{Examination, Finding, Gravity, Host};
use ghost_proto::ids::NodeNumber;
use ghost_proto::instance::{self, Instance};

use super::{BROKEN, Failure, REFUSED};
use crate::connection::{Connection, ConnectionError};

/// Longer than nodes may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Asks, prints, and fails if something does not work.
pub(super) fn run(instance: &Instance, request: ClientToMaster, all: bool) -> Result<(), Failure> {
    let mut connection = match Connection::open(instance, "bpctl") {
        Ok(connection) => connection,
        Err(error) => return Err(without_ghostd(instance, &error)),
    };
    let examination = match connection.request_within(request, Some(ANSWER))? {
        MasterToClient::Admin(AdminReply { examination: Some(examination), .. }) => examination,
        other => {
            return Err(Failure { code: BROKEN, text: format!("ghostd gave an answer that does not fit: {other:?}") });
        }
    };
    super::print(&report(&examination, all))?;
    let broken = count(&examination, Gravity::Broken);
    if broken == 0 {
        return Ok(());
    }
    let things = if broken == 1 { "one thing does" } else { "some things do" };
    Err(Failure { code: REFUSED, text: format!("{things} not work, see above") })
}

/// Why ghostd does not answer, as far as its program can say.
fn without_ghostd(instance: &Instance, error: &ConnectionError) -> Failure {
    let program = ["/usr/sbin/ghostd", "/usr/local/sbin/ghostd", "/usr/bin/ghostd"].map(PathBuf::from);
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("ghostd"));
    let found = beside.into_iter().chain(program).find(|path| path.is_file());
    let advice = match found {
        None => "no ghostd is installed on this host: on a node, run this on the master".to_owned(),
        Some(ghostd) => {
            let mut check = Command::new(&ghostd);
            check.arg("check").env(instance::ENVIRONMENT, instance.as_str());
            match check.output() {
                Ok(output) if output.status.success() => {
                    "it could run here; start it: systemctl start ghostd".to_owned()
                }
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(why) => format!("{}: {}", ghostd.display(), crate::connection::plain(&why)),
            }
        }
    };
    Failure { code: BROKEN, text: format!("{error}\n{advice}") }
}

fn count(examination: &Examination, gravity: Gravity) -> usize {
    let findings = examination.hosts.iter().flat_map(|host| &host.findings);
    findings.filter(|finding| finding.gravity() == gravity).count()
}

/// A paragraph for each host of which there is something to say, and a sum.
fn report(examination: &Examination, all: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for host in &examination.hosts {
        let shown: Vec<&Finding> = host.findings.iter().filter(|f| all || f.gravity() != Gravity::Fine).collect();
        if shown.is_empty() {
            continue;
        }
        lines.push(heading(host));
        for finding in shown {
            let word = match finding.gravity() {
                Gravity::Fine => "ok",
                Gravity::Less => "less",
                Gravity::Broken => "BROKEN",
            };
            let colon = if finding.found.is_empty() { "" } else { ": " };
            lines.push(format!("  {word:<6} {}{colon}{}", finding.what, finding.found));
        }
    }
    let (broken, less) = (count(examination, Gravity::Broken), count(examination, Gravity::Less));
    let nodes = examination.hosts.iter().filter(|host| host.node != NodeNumber::MASTER.0).count();
    let hosts = format!("the master and {nodes} {}", if nodes == 1 { "node" } else { "nodes" });
    lines.push(match (broken, less) {
        (0, 0) => format!("{hosts}: all is well"),
        _ => format!("{hosts}: {broken} not working, {less} less than it could be"),
    });
    lines
}

fn heading(host: &Host) -> String {
    let mut line = if host.node == NodeNumber::MASTER.0 { "master".to_owned() } else { format!("node {}", host.node) };
    if !host.name.is_empty() {
        line += &format!(" ({})", host.name);
    }
    if !host.release.is_empty() {
        line += &format!(", release {}, Linux {}", host.release, host.kernel);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examination() -> Examination {
        let finding = |gravity: Gravity, what: &str, found: &str| Finding {
            gravity: gravity.into(),
            what: what.to_owned(),
            found: found.to_owned(),
        };
        let host = |node, name: &str, release: &str, findings| Host {
            node,
            name: name.to_owned(),
            release: release.to_owned(),
            kernel: "6.12.57".to_owned(),
            findings,
        };
        let down = finding(Gravity::Broken, "connection", "has not joined: make it join");
        let pids = finding(Gravity::Less, "process ids", "up to 32768");
        Examination {
            hosts: vec![
                host(-1, "head", "0.1.0", vec![finding(Gravity::Fine, "root", "")]),
                host(0, "n0", "0.1.0", vec![finding(Gravity::Fine, "connection", "0.3 ms"), pids]),
                host(1, "", "", vec![down]),
            ],
        }
    }

    #[test]
    fn what_is_wrong_is_shown_host_by_host() {
        assert_eq!(
            report(&examination(), false),
            [
                "node 0 (n0), release 0.1.0, Linux 6.12.57",
                "  less   process ids: up to 32768",
                "node 1",
                "  BROKEN connection: has not joined: make it join",
                "the master and 2 nodes: 1 not working, 1 less than it could be",
            ]
        );
        let all = report(&examination(), true);
        assert!(all.contains(&"  ok     root".to_owned()) && all.contains(&"  ok     connection: 0.3 ms".to_owned()));
    }

    #[test]
    fn a_healthy_cluster_takes_a_line() {
        let mut examination = examination();
        examination.hosts.truncate(1);
        assert_eq!(report(&examination, false), ["the master and 0 nodes: all is well"]);
    }
}

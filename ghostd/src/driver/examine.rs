//! `bpctl doctor`: looks at this host, asks every node's agent to look at its own, and tells what came back within a few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ghost_host::examine::examine;
use ghost_host::requirements::{Role, kernel_release};
use ghost_proto::Control;
use ghost_proto::client::{AdminReply, MasterToClient};
use ghost_proto::examine::{Examination, Examine, Examined, Finding, Gravity, Host};
use ghost_proto::ids::NodeNumber;
use ghost_proto::view::MasterToAgent;
use ghost_proto::words::harmless;

use super::Driver;
use crate::core::{ClientId, LinkId};
use crate::membership::Listed;

/// How long nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Milliseconds by which a clock may differ; more confuses make, rsync, and who reads logs.
const CLOCKS: i64 = 1000;
/// Days before its end from which on a certificate is to be renewed.
const EXPIRES_SOON: i64 = 30;
/// Findings that are taken from a node, and characters of each text.
const FINDINGS: usize = 64;
const TEXT: usize = 1024;

const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Questions that are under way.
#[derive(Default)]
pub(super) struct Examinations {
    seq: u64,
    open: Vec<Open>,
}

/// One of them.
struct Open {
    seq: u64,
    client: ClientId,
    asked: Instant,
    nodes: BTreeMap<NodeNumber, (LinkId, Option<Answer>)>,
}

struct Answer {
    examined: Examined,
    round_trip: Duration,
    /// How much the node's clock is ahead of this one's, in milliseconds.
    ahead: i64,
}

impl Driver {
    /// Asks all nodes that are there. The answer comes when they have answered, or after [`PATIENCE`].
    pub(super) fn begin_examination(&mut self, client: ClientId) {
        self.examinations.seq += 1;
        let seq = self.examinations.seq;
        let mut nodes = BTreeMap::new();
        for (link, port) in &self.nodes {
            port.outbox.control(MasterToAgent::Examine(Examine { seq }).to_frame(), None);
            nodes.insert(port.number, (*link, None));
        }
        self.examinations.open.push(Open { seq, client, asked: Instant::now(), nodes });
        self.end_examinations();
    }

    /// A node has answered.
    pub(super) fn examined(&mut self, node: NodeNumber, link: LinkId, examined: Examined) {
        let Some(open) = self.examinations.open.iter_mut().find(|open| open.seq == examined.seq) else { return };
        let round_trip = open.asked.elapsed();
        if let Some((asked, answer @ None)) = open.nodes.get_mut(&node)
            && *asked == link
        {
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let then = i64::try_from((wall.saturating_sub(round_trip / 2)).as_millis()).unwrap_or(i64::MAX);
            let ahead = i64::try_from(examined.wall_ms).unwrap_or(i64::MAX).saturating_sub(then);
            *answer = Some(Answer { examined, round_trip, ahead });
        }
        self.end_examinations();
    }

    /// Answers the questions that are complete or too old.
    pub(super) fn end_examinations(&mut self) {
        let is_over = |open: &mut Open| {
            open.asked.elapsed() >= PATIENCE || open.nodes.values().all(|(_, answer)| answer.is_some())
        };
        for open in self.examinations.open.extract_if(.., is_over).collect::<Vec<_>>() {
            let Some(port) = self.clients.get(&open.client) else { continue };
            let examination = Examination { hosts: self.hosts(open.nodes) };
            let reply = AdminReply { lines: Vec::new(), examination: Some(examination) };
            port.outbox.control(MasterToClient::Admin(reply).to_frame(), None);
        }
    }

    fn hosts(&self, mut answers: BTreeMap<NodeNumber, (LinkId, Option<Answer>)>) -> Vec<Host> {
        let master = Host {
            node: NodeNumber::MASTER.0,
            name: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            release: RELEASE.to_owned(),
            kernel: kernel_release().unwrap_or_default(),
            findings: examine(Role::Master),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let certificates = self.certificates();
        let nodes = self.membership.nodes().into_iter().map(|listed| {
            let answer = answers.remove(&listed.number);
            let number = listed.number;
            let mut host = node(listed, answer.map(|(_, answer)| answer));
            host.findings.extend(certificates.get(&number).map(|expires| certificate(expires.saturating_sub(now))));
            host
        });
        std::iter::once(master).chain(nodes).collect()
    }
}

/// What is to be said of a node. `answer`: of one that is connected, if it has answered.
fn node(listed: Listed, answer: Option<Option<Answer>>) -> Host {
    let host = Host { node: listed.number.0, name: listed.hostname.clone(), ..Host::default() };
    let connection =
        |gravity: Gravity, found: String| Finding { gravity: gravity.into(), what: "connection".to_owned(), found };
    let Some(answer) = answer else {
        let why = listed.reason();
        let found = format!("{why}: see the log of nodeagent there, or make it join with a token (`bpctl token`)");
        return Host { findings: vec![connection(Gravity::Broken, found)], ..host };
    };
    let Some(Answer { examined, round_trip, ahead }) = answer else {
        let found = format!(
            "no answer within {} s, though it is connected: a process there hangs, or its nodeagent is of another release",
            PATIENCE.as_secs()
        );
        return Host { findings: vec![connection(Gravity::Less, found)], ..host };
    };
    let mut findings = vec![
        connection(Gravity::Fine, format!("{:.1} ms there and back", round_trip.as_secs_f64() * 1e3)),
        release(&examined.release),
        clock(ahead),
    ];
    findings.extend(examined.findings.into_iter().take(FINDINGS).map(|finding| Finding {
        gravity: finding.gravity().into(),
        what: harmless(&finding.what, TEXT),
        found: harmless(&finding.found, TEXT),
    }));
    Host { release: harmless(&examined.release, TEXT), kernel: harmless(&examined.kernel, TEXT), findings, ..host }
}

fn release(there: &str) -> Finding {
    let (gravity, found) = if there == RELEASE {
        (Gravity::Fine, String::new())
    } else {
        (Gravity::Less, format!("nodeagent is {}, ghostd {RELEASE}: upgrade the older one", harmless(there, TEXT)))
    };
    Finding { gravity: gravity.into(), what: "same release as ghostd".to_owned(), found }
}

/// `left`: seconds for which it is valid still.
fn certificate(left: i64) -> Finding {
    let days = left / 86_400;
    let (gravity, found) = if days >= EXPIRES_SOON {
        (Gravity::Fine, format!("valid for {days} days"))
    } else if left > 0 {
        (Gravity::Less, format!("it expires in {days} days, and the node cannot connect then: `nodeagent renew` there"))
    } else {
        let found =
            "it has expired: the node cannot connect again; it has to join anew (`bpctl nodes replace`, a token)";
        (Gravity::Less, found.to_owned())
    };
    Finding { gravity: gravity.into(), what: "certificate".to_owned(), found }
}

fn clock(ahead: i64) -> Finding {
    let gravity = if ahead.abs() <= CLOCKS { Gravity::Fine } else { Gravity::Less };
    let mut found = format!("{} ms {}", ahead.abs(), if ahead < 0 { "behind" } else { "ahead" });
    if gravity == Gravity::Less {
        found += ": make, rsync and logs are confused by it, nothing here is; let chrony set the clocks";
    }
    Finding { gravity: gravity.into(), what: "wall clock".to_owned(), found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::members::{Permissions, Standing};

    fn listed(standing: Standing) -> Listed {
        let permissions = Permissions { uid: 0, gid: 0, mode: 0o111 };
        Listed {
            number: NodeNumber(3),
            standing,
            permissions,
            address: None,
            hostname: "n3".to_owned(),
            held: None,
            root: String::new(),
        }
    }

    #[test]
    fn a_certificate_that_ends_soon_is_told() {
        assert_eq!(certificate(86_400 * 31).gravity(), Gravity::Fine);
        let soon = certificate(86_400 * 7 + 5);
        assert_eq!(soon.gravity(), Gravity::Less);
        assert!(soon.found.starts_with("it expires in 7 days") && soon.found.contains("nodeagent renew"), "{soon:?}");
        // A session lasts longer than the certificate that it was begun with.
        let late = certificate(-5);
        assert!(late.gravity() == Gravity::Less && late.found.starts_with("it has expired"), "{late:?}");
    }

    #[test]
    fn a_node_that_is_not_there_says_why() {
        let host = node(listed(Standing::Declared), None);
        assert_eq!(host.findings[0].gravity(), Gravity::Broken);
        assert!(host.findings[0].found.starts_with("has not joined: "), "{host:?}");
        let host = node(listed(Standing::Declared), Some(None));
        assert!(host.findings[0].found.contains("within 3 s"), "{host:?}");
    }

    #[test]
    fn what_a_node_says_is_made_harmless() {
        let finding = Finding { gravity: 77, what: "a\u{1b}[2J".to_owned(), found: "x".repeat(5000) };
        let findings = vec![finding; 500];
        let examined =
            Examined { seq: 1, release: "9.9\n".to_owned(), kernel: "6.12".to_owned(), wall_ms: 0, findings };
        let answer = Answer { examined, round_trip: Duration::from_millis(3), ahead: -5000 };
        let host = node(listed(Standing::Declared), Some(Some(answer)));
        assert_eq!(host.findings.len(), 3 + FINDINGS);
        assert!(host.findings.iter().all(|finding| !finding.what.contains('\u{1b}') && finding.found.len() <= TEXT));
        assert_eq!(host.release, "9.9 ");
        assert_eq!(host.findings[1].gravity(), Gravity::Less, "another release");
        assert!(host.findings[2].found.starts_with("5000 ms behind: "), "{:?}", host.findings[2]);
    }
}

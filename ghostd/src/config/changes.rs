//! What differs between two configurations, for who reads the log after a reload.

use std::fmt::{Display, Formatter, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ghost_proto::nodeset::fold;

use super::{Config, JoinRule, NodePermissions};

/// A key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: &'static str,
    pub from: String,
    pub to: String,
    /// Whether it counts at once; else from the next start on.
    pub at_once: bool,
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)?;
        if self.at_once { Ok(()) } else { write!(f, ", from the next start of ghostd on (which ends nothing)") }
    }
}

impl Config {
    /// What another configuration changes, in the order of the documentation.
    pub fn changes(&self, new: &Config) -> Vec<Change> {
        // All fields by name: who adds one decides here as well.
        let Config {
            listen,
            lease,
            margin,
            log,
            view,
            socket_mode,
            certificate_term,
            nodes,
            permissions,
            node_up,
            node_up_limit,
            metrics_listen,
            join,
        } = self;
        let mut all = Vec::new();
        let mut compare = |key, at_once, from: String, to: String| {
            if from != to {
                all.push(Change { key, from, to, at_once });
            }
        };
        // Nodes count by the lease that they were told when they connected.
        compare("listen", false, listen.to_string(), new.listen.to_string());
        compare("lease_seconds", false, seconds(*lease), seconds(new.lease));
        compare("margin_seconds", false, seconds(*margin), seconds(new.margin));
        compare("log", true, quoted(log), quoted(&new.log));
        compare("view", true, on_or_off(*view), on_or_off(new.view));
        compare("socket_mode", true, octal(*socket_mode), octal(new.socket_mode));
        compare("certificate_days", true, days(*certificate_term), days(new.certificate_term));
        compare("nodes", true, quoted(&fold(nodes)), quoted(&fold(&new.nodes)));
        compare("node", true, list(permissions), list(&new.permissions));
        let program = |program: &Option<PathBuf>| program.as_ref().map_or("none".into(), |p| p.display().to_string());
        compare("node_up", true, program(node_up), program(&new.node_up));
        compare("node_up_seconds", true, seconds(*node_up_limit), seconds(new.node_up_limit));
        let address = |address: &Option<SocketAddr>| address.map_or_else(|| "none".into(), |a| a.to_string());
        compare("metrics_listen", true, address(metrics_listen), address(&new.metrics_listen));
        compare("join", true, list(join), list(&new.join));
        all
    }

    /// This one as far as it counts at once, with the rest of the one that runs.
    pub fn without_a_start(self, running: &Config) -> Config {
        Config { listen: running.listen, lease: running.lease, margin: running.margin, ..self }
    }
}

impl Display for NodePermissions {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "nodes {}", fold(&self.nodes))?;
        if let Some(owner) = self.owner {
            write!(f, " owner {owner}")?;
        }
        if let Some(group) = self.group {
            write!(f, " group {group}")?;
        }
        if let Some(mode) = self.mode {
            write!(f, " mode {}", octal(mode))?;
        }
        Ok(())
    }
}

impl Display for JoinRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            JoinRule::Hostname { before, after, add } => write!(f, "hostname {before}{{}}{after} + {add}"),
            JoinRule::Addresses { first, last, number } => write!(f, "addresses {first}-{last} from {number} on"),
        }
    }
}

fn seconds(duration: Duration) -> String {
    duration.as_secs().to_string()
}

fn days(duration: Duration) -> String {
    (duration.as_secs() / (24 * 3600)).to_string()
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn on_or_off(on: bool) -> String {
    quoted(if on { "on" } else { "off" })
}

fn octal(mode: u32) -> String {
    format!("{mode:#o}")
}

fn list<T: Display>(entries: &[T]) -> String {
    let texts: Vec<String> = entries.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join("; "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("ghostd.toml")).unwrap()
    }

    #[test]
    fn each_key_is_told_with_both_values() {
        let old = parse("nodes = \"0-3\"\n");
        let new = parse(
            "listen = \"10.1.1.1\"\nlease_seconds = 20\nmargin_seconds = 6\nlog = \"debug\"\nview = \"off\"\n\
             socket_mode = 0o660\ncertificate_days = 2\nnode_up = \"/srv/up\"\nnode_up_seconds = 5\nmetrics_listen = \"[::1]:9223\"\nnodes = \"0-7\"\n\
             [[node]]\nnodes = \"1-2\"\nowner = 7\nmode = 0o110\n[[join]]\nhostname = \"n{}\"\n\
             [[join]]\naddresses = \"10.0.0.1-10.0.0.9\"\nfirst = 3\n",
        );
        let said: Vec<String> = old.changes(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "listen: 0.0.0.0:2223 -> 10.1.1.1:2223, from the next start of ghostd on (which ends nothing)",
                "lease_seconds: 15 -> 20, from the next start of ghostd on (which ends nothing)",
                "margin_seconds: 5 -> 6, from the next start of ghostd on (which ends nothing)",
                "log: \"info\" -> \"debug\"",
                "view: \"on\" -> \"off\"",
                "socket_mode: 0o666 -> 0o660",
                "certificate_days: 3650 -> 2",
                "nodes: \"0-3\" -> \"0-7\"",
                "node: [] -> [nodes 1-2 owner 7 mode 0o110]",
                "node_up: none -> /srv/up",
                "node_up_seconds: 600 -> 5",
                "metrics_listen: none -> [::1]:9223",
                "join: [] -> [hostname n{} + 0; addresses 10.0.0.1-10.0.0.9 from 3 on]",
            ]
        );
        assert_eq!(new.changes(&new), []);
    }

    #[test]
    fn what_wants_a_start_is_told_again_until_then() {
        let running = parse("");
        let new = parse("lease_seconds = 20\nnodes = \"0-7\"\n");
        let now = new.clone().without_a_start(&running);
        let keys: Vec<&str> = now.changes(&new).iter().map(|change| change.key).collect();
        assert_eq!(keys, ["lease_seconds"]);
    }
}

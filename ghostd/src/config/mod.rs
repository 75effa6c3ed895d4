//! The master's configuration file, `/etc/INSTANCE/ghostd.toml`.
//!
//! Invariant: what the file says is either taken or an error with file and line. A misspelt key is never ignored
//! ([`keys`]). What the daemon gets is checked: numbers are in range, names are resolved.

mod changes;
mod join_rule;
mod keys;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghost_proto::ids::NodeNumber;
use ghost_proto::nodeset::NodeSpec;
use serde::Deserialize;
use toml::Spanned;

use crate::accounts::{Accounts, NoAccount};
pub use changes::Change;
pub use join_rule::JoinRule;

/// The port of the cluster protocol, BProc's.
pub const PORT: u16 = 2223;
/// Lease and margin together stay below the kernel's hung-task time (120 s by default, often lowered to 60).
pub(crate) const MAX_LEASE_AND_MARGIN: u64 = 60;
pub(crate) const MAX_LEASE: u64 = 40;
const LONGEST_NODE_UP: u64 = 24 * 3600;

/// The configuration, checked and resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where nodes connect to.
    pub listen: SocketAddr,
    /// How long a node goes on without hearing from its master: 1 to 40 s.
    pub lease: Duration,
    /// How much longer the master waits before it declares the node's processes dead; with the lease less than 60 s.
    pub margin: Duration,
    /// What is logged, in the form of `RUST_LOG`.
    pub log: String,
    /// Whether `/proc/GHOST` shows the node's process.
    pub view: bool,
    /// Permission bits of the commands' socket.
    pub socket_mode: u32,
    /// How long a node's certificate is valid.
    pub certificate_term: Duration,
    /// Nodes that exist whether they have joined or not, in order.
    pub nodes: Vec<NodeNumber>,
    /// Owner, group and mode by node; a later entry goes before an earlier one.
    pub permissions: Vec<NodePermissions>,
    /// What is run for a node that comes, before others than root may use it.
    pub node_up: Option<PathBuf>,
    /// How long that may take: 1 s to a day.
    pub node_up_limit: Duration,
    /// Where figures of ghostd are told over HTTP; nowhere if it is absent.
    pub metrics_listen: Option<SocketAddr>,
    /// How a joining node's number is found, first match first.
    pub join: Vec<JoinRule>,
}

/// Owner, group and mode of some nodes; what is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePermissions {
    /// In order.
    pub nodes: Vec<NodeNumber>,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// 0 to 0o777; the execute bits count.
    pub mode: Option<u32>,
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    path: PathBuf,
    /// From 1; absent if the file could not be read at all.
    line: Option<usize>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

/// What is wrong, and at which byte of the text.
struct Fault {
    at: usize,
    message: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT),
            lease: Duration::from_secs(15),
            margin: Duration::from_secs(5),
            log: "info".to_owned(),
            view: true,
            socket_mode: 0o666,
            certificate_term: ghost_trust::ca::NODE_TERM,
            nodes: Vec::new(),
            permissions: Vec::new(),
            node_up: None,
            node_up_limit: Duration::from_secs(600),
            metrics_listen: None,
            join: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "; `ghostd init` makes it",
                _ => "",
            };
            ConfigError { path: path.to_owned(), line: None, message: format!("cannot be read: {error}{hint}") }
        })?;
        Config::parse(&text, path)
    }

    /// Reads the file's text; `path` is for messages.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        understand(text).map_err(|fault| {
            let line = 1 + text.bytes().take(fault.at).filter(|b| *b == b'\n').count();
            ConfigError { path: path.to_owned(), line: Some(line), message: fault.message }
        })
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: Option<Spanned<String>>,
    lease_seconds: Option<Spanned<u64>>,
    margin_seconds: Option<Spanned<u64>>,
    log: Option<Spanned<String>>,
    view: Option<Spanned<String>>,
    socket_mode: Option<Spanned<u32>>,
    certificate_days: Option<Spanned<u32>>,
    nodes: Option<Spanned<String>>,
    node_up: Option<Spanned<PathBuf>>,
    node_up_seconds: Option<Spanned<u64>>,
    metrics_listen: Option<Spanned<String>>,
    #[serde(default)]
    node: Vec<WrittenPermissions>,
    #[serde(default)]
    join: Vec<Spanned<join_rule::Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPermissions {
    nodes: Spanned<String>,
    owner: Option<Spanned<Account>>,
    group: Option<Spanned<Account>>,
    mode: Option<Spanned<u32>>,
}

/// A user or group, by name or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Account {
    Number(u32),
    Name(String),
}

fn understand(text: &str) -> Result<Config, Fault> {
    keys::check(text)?;
    let from_toml =
        |e: toml::de::Error| Fault { at: e.span().map_or(0, |span| span.start), message: e.message().to_owned() };
    let written: Written = toml::from_str(text).map_err(from_toml)?;
    let mut config = Config::default();
    if let Some(listen) = written.listen {
        config.listen =
            listen_address(listen.get_ref()).map_err(|message| Fault { at: listen.span().start, message })?;
    }
    if let Some(lease) = &written.lease_seconds {
        config.lease = seconds(lease, 1, MAX_LEASE)?;
    }
    if let Some(margin) = &written.margin_seconds {
        config.margin = seconds(margin, 1, MAX_LEASE_AND_MARGIN)?;
    }
    if (config.lease + config.margin).as_secs() >= MAX_LEASE_AND_MARGIN {
        let at = written.margin_seconds.or(written.lease_seconds).map_or(0, |value| value.span().start);
        let message = format!(
            "lease_seconds and margin_seconds together are {} s, they must stay below {MAX_LEASE_AND_MARGIN} s \
             (the kernel warns of tasks that hang longer)",
            (config.lease + config.margin).as_secs()
        );
        return Err(Fault { at, message });
    }
    if let Some(log) = written.log {
        let at = log.span().start;
        config.log = log.into_inner();
        ghost_log::check(&config.log).map_err(|error| Fault { at, message: error.to_string() })?;
    }
    if let Some(view) = &written.view {
        config.view = match view.get_ref().as_str() {
            "on" => true,
            "off" => false,
            other => {
                let message = format!("`{other}` is neither \"on\" nor \"off\"");
                return Err(Fault { at: view.span().start, message });
            }
        };
    }
    if let Some(mode) = &written.socket_mode {
        config.socket_mode = permission_bits(mode)?;
    }
    if let Some(days) = &written.certificate_days {
        config.certificate_term = Duration::from_secs(u64::from(*days.get_ref()) * 24 * 3600);
        if config.certificate_term.is_zero() {
            return Err(Fault {
                at: days.span().start,
                message: "a certificate must be valid for a day or more".into(),
            });
        }
    }
    if let Some(nodes) = &written.nodes
        && !nodes.get_ref().trim().is_empty()
    {
        config.nodes = numbers(nodes)?;
    }
    if let Some(program) = written.node_up {
        if !program.get_ref().is_absolute() {
            let message = format!("`{}` is not an absolute path", program.get_ref().display());
            return Err(Fault { at: program.span().start, message });
        }
        config.node_up = Some(program.into_inner());
    }
    if let Some(limit) = &written.node_up_seconds {
        config.node_up_limit = seconds(limit, 1, LONGEST_NODE_UP)?;
    }
    if let Some(listen) = &written.metrics_listen {
        let address = listen.get_ref().parse().map_err(|_| {
            let message =
                format!("`{}` is no address with a port; write for example `127.0.0.1:9223`", listen.get_ref());
            Fault { at: listen.span().start, message }
        })?;
        config.metrics_listen = Some(address);
    }
    for entry in written.node {
        config.permissions.push(NodePermissions {
            nodes: numbers(&entry.nodes)?,
            owner: entry.owner.map(|who| account(&who, Accounts::Users)).transpose()?,
            group: entry.group.map(|who| account(&who, Accounts::Groups)).transpose()?,
            mode: entry.mode.map(|mode| permission_bits(&mode)).transpose()?,
        });
    }
    for rule in written.join {
        let at = rule.span().start;
        config.join.push(JoinRule::understand(rule.into_inner()).map_err(|message| Fault { at, message })?);
    }
    Ok(config)
}

/// An address to listen on, `ADDRESS:PORT` or `ADDRESS` for the usual port.
///
/// # Errors
/// For people: what is expected.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)))
        .map_err(|_| format!("`{text}` is not an address; write for example `0.0.0.0:{PORT}` or `[::]:{PORT}`"))
}

fn seconds(value: &Spanned<u64>, least: u64, most: u64) -> Result<Duration, Fault> {
    let seconds = *value.get_ref();
    if (least..=most).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(Fault { at: value.span().start, message: format!("{seconds} s is not within {least} to {most} s") })
}

fn permission_bits(mode: &Spanned<u32>) -> Result<u32, Fault> {
    let bits = *mode.get_ref();
    if bits <= 0o777 {
        return Ok(bits);
    }
    let message =
        format!("{bits} is not a mode of three octal digits; write for example 0o111 (octal has the prefix `0o`)");
    Err(Fault { at: mode.span().start, message })
}

fn numbers(list: &Spanned<String>) -> Result<Vec<NodeNumber>, Fault> {
    let fault = |message: String| Fault { at: list.span().start, message };
    let spec = NodeSpec::parse(list.get_ref()).map_err(|e| fault(e.to_string()))?;
    spec.numbers().map_err(|e| fault(e.to_string()))
}

fn account(who: &Spanned<Account>, accounts: Accounts) -> Result<u32, Fault> {
    match who.get_ref() {
        Account::Number(id) => Ok(*id),
        Account::Name(name) => {
            accounts.id(name).map_err(|e: NoAccount| Fault { at: who.span().start, message: e.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("ghostd.toml")).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn refuse(text: &str, line: usize, part: &str) {
        let error = parse(text).expect_err("the text was taken");
        assert!(error.starts_with(&format!("ghostd.toml:{line}: ")), "{error}");
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        let config = Config::default();
        assert_eq!((config.listen.to_string().as_str(), config.lease.as_secs()), ("0.0.0.0:2223", 15));
    }

    #[test]
    fn everything_that_is_said_is_taken() {
        let config = parse(
            r#"
listen = "[::1]:99"
lease_seconds = 40
margin_seconds = 19
log = "debug"
view = "off"
socket_mode = 0o660
certificate_days = 2
nodes = "0-3,8"
node_up = "/etc/ghostproc/node_up"
node_up_seconds = 60
metrics_listen = "127.0.0.1:9223"

[[node]]
nodes = "0-1"
owner = "root"
group = 1234
mode = 0o110

[[join]]
hostname = "n{}"
"#,
        )
        .unwrap();
        assert_eq!(config.listen.to_string(), "[::1]:99");
        assert_eq!((config.lease.as_secs(), config.margin.as_secs()), (40, 19));
        assert_eq!((config.log.as_str(), config.socket_mode, config.view), ("debug", 0o660, false));
        assert_eq!(config.certificate_term.as_secs(), 172_800);
        assert_eq!(config.node_up.as_deref(), Some(Path::new("/etc/ghostproc/node_up")));
        assert_eq!(config.node_up_limit.as_secs(), 60);
        assert_eq!(config.metrics_listen.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:9223"));
        assert_eq!(config.nodes, [0, 1, 2, 3, 8].map(NodeNumber));
        let permissions = NodePermissions {
            nodes: [0, 1].map(NodeNumber).to_vec(),
            owner: Some(0),
            group: Some(1234),
            mode: Some(0o110),
        };
        assert_eq!(config.permissions, [permissions]);
        assert_eq!(config.join.len(), 1);
        assert_eq!(parse("listen = \"10.1.1.1\"").unwrap().listen.to_string(), "10.1.1.1:2223");
    }

    #[test]
    fn mistakes_are_errors_with_their_line() {
        refuse("\nlisten = \"here\"\n", 2, "is not an address");
        refuse("lease_seconds = 0", 1, "1 to 40");
        refuse("lease_seconds = 41", 1, "1 to 40");
        refuse("lease_seconds = -1", 1, "-1");
        refuse("lease_seconds = 40\nmargin_seconds = 20", 2, "below 60");
        refuse("lease_seconds = \"15\"", 1, "invalid type");
        refuse("socket_mode = 666", 1, "0o");
        refuse("view = \"yes\"", 1, "neither");
        refuse("\nlog = \"ghostd=loud\"", 2, "write for example `info`");
        refuse("certificate_days = 0", 1, "a day");
        refuse("node_up = \"node_up\"", 1, "absolute");
        refuse("node_up_seconds = 0", 1, "within 1 to");
        refuse("metrics_listen = \"127.0.0.1\"", 1, "with a port");
        refuse("nodes = \"0-3,up\"", 1, "only node numbers");
        refuse("nodes = \"3-1\"", 1, "ends before");
        refuse("[[node]]\nnodes = \"1\"\nowner = \"no-such-user-here\"", 3, "no user");
        refuse("[[node]]\nowner = \"root\"", 1, "nodes");
        refuse("[[node]]\nnodes = \"1\"\nmode = 777", 3, "0o");
        refuse("\n\n[[join]]\nhostname = \"n\"", 3, "{}");
        refuse("listen = \n", 1, "");
        refuse("listen = \"1.1.1.1\"\nlisten = \"1.1.1.1\"", 2, "duplicate");
    }

    #[test]
    fn an_unknown_key_gets_a_suggestion() {
        refuse("\n\nlisten_ = \"1.1.1.1\"", 3, "unknown key `listen_`; did you mean `listen`?");
        refuse("lease = 3", 1, "did you mean `lease_seconds`?");
        refuse("[[node]]\nnodes = \"1\"\nonwer = \"root\"", 3, "did you mean `owner`?");
        refuse("[[jion]]\nhostname = \"n{}\"", 1, "did you mean `join`?");
        refuse("[[join]]\nhost = \"n{}\"", 2, "did you mean `hostname`?");
        refuse("zzz = 3", 1, "known here are listen, ");
    }
}

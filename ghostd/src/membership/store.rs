//! The members' list as a file, `/var/lib/INSTANCE/nodes.toml`, for root only.
//!
//! Invariant: the file is replaced as a whole and reaches the disk before the change is acted upon: what was granted or
//! revoked stays so after a crash.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ghost_proto::ids::NodeNumber;
use ghost_trust::Serial;
use serde::{Deserialize, Serialize};

use super::members::{Member, Members, Standing};
use super::tokens::{StoredToken, Tokens};
use crate::files;

/// The version of the file's form.
const VERSION: u32 = 1;
const HEAD: &str = "# Members of the cluster and join tokens. Written by ghostd; change it with bpctl.\n";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    node: Vec<StoredNode>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    token: Vec<StoredToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNode {
    number: i32,
    state: State,
    /// Of the certificate that is accepted: of a joined node alone.
    serial: Option<Serial>,
    /// Of one that it has not shown yet.
    next: Option<Serial>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<Serial>,
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hostname: String,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
    /// A state's name.
    held: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    root: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Declared,
    Joined,
    Revoked,
}

impl StoredNode {
    fn of(number: NodeNumber, member: &Member) -> StoredNode {
        let (state, serial) = match member.state {
            Standing::Declared => (State::Declared, None),
            Standing::Joined(serial) => (State::Joined, Some(serial)),
            Standing::Revoked => (State::Revoked, None),
        };
        StoredNode {
            number: number.0,
            state,
            serial,
            next: member.next,
            replaced: member.replaced.clone(),
            address: member.address,
            hostname: member.hostname.clone(),
            uid: member.uid,
            gid: member.gid,
            mode: member.mode,
            held: member.held.map(|status| status.name().to_owned()),
            root: member.root.clone(),
        }
    }

    fn into_member(self) -> Result<(NodeNumber, Member)> {
        let number = NodeNumber(self.number);
        if !(NodeNumber(0)..=NodeNumber::MAX).contains(&number) {
            bail!("{number} is not a node number");
        }
        let state = match (self.state, self.serial) {
            (State::Declared, None) => Standing::Declared,
            (State::Revoked, None) => Standing::Revoked,
            (State::Joined, Some(serial)) => Standing::Joined(serial),
            _ => bail!("node {number}: a joined node has a serial number, another one has none"),
        };
        let member = Member {
            state,
            next: self.next,
            replaced: self.replaced,
            address: self.address,
            hostname: self.hostname,
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
            held: self.held.map(|name| name.parse()).transpose().with_context(|| format!("node {number}"))?,
            root: self.root,
        };
        Ok((number, member))
    }
}

/// Reads the list; a file that does not exist is an empty one.
///
/// # Errors
/// The file cannot be read, is damaged, or is of a later release.
pub fn load(path: &Path) -> Result<Members> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Members::default()),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    };
    parse(&text)
        .with_context(|| format!("{}: the list of members is not usable; restore it from a backup", path.display()))
}

/// Replaces the file.
///
/// # Errors
/// It cannot be written; the old one is in place.
pub fn save(path: &Path, members: &Members) -> Result<()> {
    let stored = Stored {
        version: VERSION,
        node: members.nodes.iter().map(|(number, member)| StoredNode::of(*number, member)).collect(),
        token: members.tokens.list.clone(),
    };
    let text = toml::to_string(&stored).context("the list of members cannot be written as TOML")?;
    files::replace(path, format!("{HEAD}{text}").as_bytes(), 0o600)
}

fn parse(text: &str) -> Result<Members> {
    let stored: Stored = toml::from_str(text)?;
    if stored.version != VERSION {
        bail!("version {} of the file, this release reads version {VERSION}", stored.version);
    }
    let mut members = Members { tokens: Tokens { list: stored.token }, ..Members::default() };
    for node in stored.node {
        let (number, member) = node.into_member()?;
        if members.nodes.insert(number, member).is_some() {
            bail!("node {number} stands in it twice");
        }
    }
    Ok(members)
}

/// A list of node numbers as text, `0-3,7`; none as an empty text.
pub(super) mod numbers {
    use ghost_proto::ids::NodeNumber;
    use ghost_proto::nodeset::{NodeSpec, fold};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(nodes: &[NodeNumber], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&fold(nodes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeNumber>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        NodeSpec::parse(&text).map_err(D::Error::custom)?.numbers().map_err(D::Error::custom)
    }
}

//! The members' list and its decisions: who may join as which number, and whose certificate is accepted.
//!
//! ```text
//!             join                     revoke
//! declared ----------> joined(serial) ---------> revoked(serial)        declared -- revoke --> revoked
//!    ^                    |                         |
//!    +------ replace -----+------- replace ---------+                   remove: forgotten, from any state
//! ```
//! A certificate is accepted from a `joined` node alone, and only the one with its serial number. What was replaced or
//! removed never comes back: a new join gets a new serial number. A joined node may ask for another certificate (renew): until it has
//! shown that, the one before is accepted as well.
//!
//! Pure: no clock, no files, no keys. Times are seconds since 1970.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ghost_proto::ids::NodeNumber;
use ghost_proto::node::is_hostname;
use ghost_proto::node_state::NodeStatus;
use ghost_trust::Serial;

use super::refusal::{AdminRefusal, JoinRefusal, PeerRefusal};
use super::tokens::{Tokens, Use};
use crate::config::{Config, JoinRule, NodePermissions};
use crate::node_setting::NodeSetting;

/// How many replaced certificates of a node are remembered, for the reason in the log.
const REPLACED_KEPT: usize = 8;
/// BProc's mode of a node that nobody has changed: everybody may execute.
const DEFAULT_MODE: u32 = 0o111;

/// What the configuration says about members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub declared: Vec<NodeNumber>,
    pub permissions: Vec<NodePermissions>,
    pub join: Vec<JoinRule>,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Rules {
        Rules { declared: config.nodes.clone(), permissions: config.permissions.clone(), join: config.join.clone() }
    }
}

/// Nodes and tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub(super) nodes: BTreeMap<NodeNumber, Member>,
    pub(super) tokens: Tokens,
}

/// A node as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub state: Standing,
    /// A certificate that it has been given in the place of its present one, and has not shown yet: both are accepted.
    pub next: Option<Serial>,
    /// Former certificates, the newest last.
    pub replaced: Vec<Serial>,
    /// Where it was last seen.
    pub address: Option<IpAddr>,
    pub hostname: String,
    /// Owner, group and mode as set at run time: they go before the configuration.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
    /// The state that root has set: whatever the node does, until another one is set.
    pub held: Option<NodeStatus>,
    /// Root directory of the programs that are placed there; empty: the node's own.
    pub root: String,
}

/// How a node stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may join; it has no certificate that is accepted.
    Declared,
    Joined(Serial),
    /// Listed, and refused.
    Revoked,
}

/// Owner, group and mode of a node, as they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub uid: u32,
    pub gid: u32,
    /// The execute bits count.
    pub mode: u32,
}

/// What a machine says when it wants to join: allegations, except its address.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    pub token_id: &'a [u8],
    pub secret: &'a [u8],
    pub node: Option<i32>,
    pub hostname: &'a str,
    pub address: IpAddr,
}

/// A join that is allowed: this number, by one use of that token. Takes effect with [`Members::joined`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub number: NodeNumber,
    pub(super) token: Use,
    pub(super) hostname: String,
    pub(super) address: IpAddr,
}

impl Member {
    fn new(state: Standing) -> Member {
        Member {
            state,
            next: None,
            replaced: Vec::new(),
            address: None,
            hostname: String::new(),
            uid: None,
            gid: None,
            mode: None,
            held: None,
            root: String::new(),
        }
    }

    /// Its certificate, if it has one, becomes a former one.
    fn retire(&mut self, serial: Serial) {
        self.replaced.push(serial);
        let surplus = self.replaced.len().saturating_sub(REPLACED_KEPT);
        self.replaced.drain(..surplus);
    }
}

impl Permissions {
    /// Whether somebody may start programs on the node: as with a file, the first class that fits (owner, group, others)
    /// decides by its execute bit alone. root always may.
    pub fn allow(self, uid: u32, gid: u32, groups: &[u32]) -> bool {
        let bit = match () {
            () if uid == 0 => return true,
            () if uid == self.uid => 0o100,
            () if gid == self.gid || groups.contains(&self.gid) => 0o010,
            () => 0o001,
        };
        self.mode & bit != 0
    }
}

impl Members {
    /// All nodes there are, declared ones included, in order.
    pub fn numbers(&self, rules: &Rules) -> Vec<NodeNumber> {
        let mut numbers: Vec<NodeNumber> = self.nodes.keys().copied().chain(rules.declared.iter().copied()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// How a node stands; `None`: there is no such node.
    pub fn standing(&self, number: NodeNumber, rules: &Rules) -> Option<Standing> {
        match self.nodes.get(&number) {
            Some(member) => Some(member.state),
            None => rules.declared.binary_search(&number).is_ok().then_some(Standing::Declared),
        }
    }

    /// Owner, group and mode of a node: as set at run time, else by the last entry of the configuration that names it, else
    /// root's with mode 0o111.
    pub fn permissions(&self, number: NodeNumber, rules: &Rules) -> Permissions {
        let mut result = Permissions { uid: 0, gid: 0, mode: DEFAULT_MODE };
        let mut apply = |uid: Option<u32>, gid: Option<u32>, mode: Option<u32>| {
            result.uid = uid.unwrap_or(result.uid);
            result.gid = gid.unwrap_or(result.gid);
            result.mode = mode.unwrap_or(result.mode);
        };
        for entry in rules.permissions.iter().filter(|entry| entry.nodes.binary_search(&number).is_ok()) {
            apply(entry.owner, entry.group, entry.mode);
        }
        if let Some(member) = self.nodes.get(&number) {
            apply(member.uid, member.gid, member.mode);
        }
        result
    }

    /// Whether a node's certificate is accepted now.
    ///
    /// # Errors
    /// It is not, with the reason.
    pub fn check_peer(&self, number: NodeNumber, serial: Serial, rules: &Rules) -> Result<(), PeerRefusal> {
        let standing = self.standing(number, rules).ok_or(PeerRefusal::Unknown { number })?;
        let member = self.nodes.get(&number);
        let replaced = member.is_some_and(|member| member.replaced.contains(&serial));
        let next = member.is_some_and(|member| member.next == Some(serial));
        match standing {
            Standing::Joined(current) if current == serial || next => Ok(()),
            _ if replaced => Err(PeerRefusal::Replaced { number, serial }),
            Standing::Revoked => Err(PeerRefusal::Revoked { number }),
            Standing::Declared | Standing::Joined(_) => Err(PeerRefusal::NotItsCertificate { number, serial }),
        }
    }

    /// Whether a machine may join, and as which number: the one it asks for, else by the first rule of the configuration
    /// that fits, else the lowest free one (of the token's nodes, of the declared ones, of all).
    ///
    /// # Errors
    /// It may not, with the reason. Nothing has changed then, and nothing has if it may.
    pub fn admit(&self, applicant: Applicant<'_>, now: u64, rules: &Rules) -> Result<Admission, JoinRefusal> {
        let token = self.tokens.check(applicant.token_id, applicant.secret, now)?;
        if !is_hostname(applicant.hostname) {
            return Err(JoinRefusal::BadHostname);
        }
        let asked = match applicant.node {
            Some(number) if (0..=NodeNumber::MAX.0).contains(&number) => Some(NodeNumber(number)),
            Some(number) => return Err(JoinRefusal::BadNumber { number }),
            None => rules.join.iter().find_map(|rule| rule.number(applicant.hostname, applicant.address)),
        };
        let number = match asked {
            Some(number) => number,
            None => self.next_free(token.nodes(), rules).ok_or(JoinRefusal::NoneFree)?,
        };
        if !token.nodes().is_empty() && token.nodes().binary_search(&number).is_err() {
            return Err(JoinRefusal::NotInToken { number, nodes: ghost_proto::nodeset::fold(token.nodes()) });
        }
        match self.standing(number, rules) {
            None | Some(Standing::Declared) => {}
            Some(Standing::Joined(_)) => return Err(JoinRefusal::Taken { number }),
            Some(Standing::Revoked) => return Err(JoinRefusal::Revoked { number }),
        }
        Ok(Admission {
            number,
            token: token.into_use(),
            hostname: applicant.hostname.to_owned(),
            address: applicant.address.to_canonical(),
        })
    }

    /// An admitted node has been given its certificate.
    pub fn joined(&mut self, admission: Admission, serial: Serial) {
        self.tokens.spend(&admission.token);
        let member = self.nodes.entry(admission.number).or_insert_with(|| Member::new(Standing::Declared));
        member.state = Standing::Joined(serial);
        member.next = None;
        member.hostname = admission.hostname;
        member.address = Some(admission.address);
    }

    /// A joined node has been given another certificate. Whoever was given one before and has not shown it gets no more.
    pub fn renewed(&mut self, number: NodeNumber, serial: Serial) {
        if let Some(member) = self.nodes.get_mut(&number) {
            member.next = Some(serial);
        }
    }

    /// A node has shown a certificate that is accepted; tells whether it is its new one. Then the one before is refused from now on.
    pub fn shown(&mut self, number: NodeNumber, serial: Serial) -> bool {
        match self.nodes.get_mut(&number) {
            Some(member) if member.next == Some(serial) => {
                if let Standing::Joined(before) = std::mem::replace(&mut member.state, Standing::Joined(serial)) {
                    member.retire(before);
                }
                member.next = None;
                true
            }
            _ => false,
        }
    }

    /// A node was seen at an address; tells whether that is news.
    pub fn seen(&mut self, number: NodeNumber, address: IpAddr) -> bool {
        let address = Some(address.to_canonical());
        match self.nodes.get_mut(&number) {
            Some(member) if member.address != address => {
                member.address = address;
                true
            }
            _ => false,
        }
    }

    fn next_free(&self, of_token: &[NodeNumber], rules: &Rules) -> Option<NodeNumber> {
        let free = |number: &NodeNumber| matches!(self.standing(*number, rules), None | Some(Standing::Declared));
        if !of_token.is_empty() {
            return of_token.iter().copied().find(free);
        }
        let declared = self.numbers(rules).into_iter().find(free);
        declared.or_else(|| (0..=NodeNumber::MAX.0).map(NodeNumber).find(free))
    }

    /// Makes nodes exist; those that do are left as they are. Gives the new ones.
    pub fn add(&mut self, numbers: &[NodeNumber], rules: &Rules) -> Vec<NodeNumber> {
        let new: Vec<NodeNumber> =
            numbers.iter().copied().filter(|number| self.standing(*number, rules).is_none()).collect();
        self.nodes.extend(new.iter().map(|number| (*number, Member::new(Standing::Declared))));
        new
    }

    /// Forgets nodes: their certificates are refused from now on.
    ///
    /// # Errors
    /// One of them does not exist; nothing has changed then.
    pub fn remove(&mut self, numbers: &[NodeNumber], rules: &Rules) -> Result<(), AdminRefusal> {
        self.all_exist(numbers, rules)?;
        for number in numbers {
            self.nodes.remove(number);
        }
        Ok(())
    }

    /// Refuses nodes from now on, also a new join; they stay listed.
    ///
    /// # Errors
    /// One of them does not exist; nothing has changed then.
    pub fn revoke(&mut self, numbers: &[NodeNumber], rules: &Rules) -> Result<(), AdminRefusal> {
        self.change(numbers, rules, Standing::Revoked)
    }

    /// Frees nodes' numbers for the next join; the present certificates are refused from now on.
    ///
    /// # Errors
    /// One of them does not exist; nothing has changed then.
    pub fn replace(&mut self, numbers: &[NodeNumber], rules: &Rules) -> Result<(), AdminRefusal> {
        self.change(numbers, rules, Standing::Declared)
    }

    fn change(&mut self, numbers: &[NodeNumber], rules: &Rules, to: Standing) -> Result<(), AdminRefusal> {
        self.all_exist(numbers, rules)?;
        for number in numbers {
            let member = self.nodes.entry(*number).or_insert_with(|| Member::new(Standing::Declared));
            // A revoked node's certificate is not a replaced one: "revoked" is the reason to give.
            if let (Standing::Joined(serial), Standing::Declared) = (member.state, to) {
                member.retire(serial);
            }
            member.state = to;
            member.next = None;
        }
        Ok(())
    }

    /// What root or its owner has set of nodes at run time. It is kept until something else is set or the node is removed.
    ///
    /// # Errors
    /// One of them does not exist; nothing has changed then.
    pub fn set(&mut self, numbers: &[NodeNumber], setting: &NodeSetting, rules: &Rules) -> Result<(), AdminRefusal> {
        self.all_exist(numbers, rules)?;
        for number in numbers {
            let member = self.nodes.entry(*number).or_insert_with(|| Member::new(Standing::Declared));
            match setting {
                NodeSetting::Owner(uid) => member.uid = *uid,
                NodeSetting::Group(gid) => member.gid = *gid,
                NodeSetting::Mode(mode) => member.mode = *mode,
                NodeSetting::Held(status) => member.held = *status,
                NodeSetting::Root(path) => member.root.clone_from(path),
            }
        }
        Ok(())
    }

    fn all_exist(&self, numbers: &[NodeNumber], rules: &Rules) -> Result<(), AdminRefusal> {
        let unknown: Vec<NodeNumber> =
            numbers.iter().copied().filter(|number| self.standing(*number, rules).is_none()).collect();
        if unknown.is_empty() { Ok(()) } else { Err(AdminRefusal::Unknown(unknown)) }
    }
}

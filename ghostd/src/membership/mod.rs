//! Who belongs to the cluster: the list of nodes, their certificates and permissions, and the tokens that let machines in.
//!
//! [`members`] decides (pure), [`store`] keeps, this module ties both to the CA. Every change is on disk before it is
//! answered; if it cannot be kept, it has not happened.
//!
//! After any call of [`Membership::admin`] or [`Membership::configure`] that succeeded, the connected nodes are to be asked about again with
//! [`Membership::check_peer`]: one of them may have been removed, revoked or replaced.

pub mod members;
pub mod refusal;

mod store;
mod tokens;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use ghost_proto::client::{Admin, NodeRequest, TokenRequest};
use ghost_proto::ids::NodeNumber;
use ghost_proto::join::{JoinAccepted, JoinRefused, JoinRequest, JoinToNode};
use ghost_proto::node::Renew;
use ghost_proto::node_state::NodeStatus;
use ghost_proto::nodeset::{NodeSpec, fold};
use ghost_trust::ca::Issued;
use ghost_trust::{Ca, Serial, Token};

use crate::config::Config;
use crate::files::Files;
use crate::node_setting::NodeSetting;
use members::{Applicant, Member, Members, Permissions, Rules, Standing};
use refusal::{AdminRefusal, JoinRefusal, PeerRefusal, span};

/// The cluster's membership.
pub struct Membership {
    members: Members,
    rules: Rules,
    ca: Ca,
    certificate_term: Duration,
    path: PathBuf,
    /// When each node was given a certificate in the place of another.
    renewals: BTreeMap<NodeNumber, SystemTime>,
}

/// Between two certificates that a node is given: each is kept on the disk, for which everybody waits.
const RENEWALS: Duration = Duration::from_secs(2);

/// A node as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub number: NodeNumber,
    pub standing: Standing,
    pub permissions: Permissions,
    /// Where it was last seen.
    pub address: Option<IpAddr>,
    /// Empty if it never joined.
    pub hostname: String,
    /// The state that root has set.
    pub held: Option<NodeStatus>,
    /// Root directory of the programs that are placed there; empty: the node's own.
    pub root: String,
}

impl Listed {
    /// Why the node is not up while it is not connected.
    pub fn reason(&self) -> &'static str {
        match self.standing {
            Standing::Declared => "has not joined",
            Standing::Joined(_) => "not connected",
            Standing::Revoked => "revoked",
        }
    }
}

impl Membership {
    /// Reads the members' list and the CA of an instance.
    ///
    /// # Errors
    /// `ghostd init` has not been run, or a file is damaged.
    pub fn open(files: &Files, config: &Config) -> Result<Membership> {
        Ok(Membership {
            members: store::load(&files.members())?,
            rules: Rules::from(config),
            ca: files.load_ca()?,
            certificate_term: config.certificate_term,
            path: files.members(),
            renewals: BTreeMap::new(),
        })
    }

    /// Another configuration counts from now on.
    pub fn configure(&mut self, config: &Config) {
        self.rules = Rules::from(config);
        self.certificate_term = config.certificate_term;
    }

    /// All nodes there are, whether they have joined or not, in order.
    pub fn nodes(&self) -> Vec<Listed> {
        self.members.numbers(&self.rules).into_iter().filter_map(|number| self.node(number)).collect()
    }

    /// How many nodes there are, declared ones included.
    pub fn count(&self) -> usize {
        self.members.numbers(&self.rules).len()
    }

    /// One node, if it exists.
    pub fn node(&self, number: NodeNumber) -> Option<Listed> {
        let standing = self.members.standing(number, &self.rules)?;
        let member: Option<&Member> = self.members.nodes.get(&number);
        Some(Listed {
            number,
            standing,
            permissions: self.members.permissions(number, &self.rules),
            address: member.and_then(|m| m.address),
            hostname: member.map(|m| m.hostname.clone()).unwrap_or_default(),
            held: member.and_then(|m| m.held),
            root: member.map(|m| m.root.clone()).unwrap_or_default(),
        })
    }

    /// Whether somebody may start programs on a node, as with a file's execute bits; root always may. A node that does not
    /// exist may be used by nobody.
    pub fn may_use(&self, number: NodeNumber, uid: u32, gid: u32, groups: &[u32]) -> bool {
        self.members.standing(number, &self.rules).is_some()
            && self.members.permissions(number, &self.rules).allow(uid, gid, groups)
    }

    /// Whether a node's certificate is accepted now.
    ///
    /// # Errors
    /// It is not, with the reason for the log. Nothing else that the peer says is to be believed.
    pub fn check_peer(&self, number: NodeNumber, serial: Serial) -> Result<(), PeerRefusal> {
        self.members.check_peer(number, serial, &self.rules)
    }

    /// Takes note of a node, whose certificate was accepted: which one it was, and where it connects from.
    pub fn seen(&mut self, number: NodeNumber, serial: Serial, address: IpAddr) {
        let renewed = self.members.shown(number, serial);
        if renewed {
            tracing::info!(node = number.0, %serial, "it has its new certificate: the one before is refused from now on");
        }
        if (self.members.seen(number, address) || renewed)
            && let Err(error) = store::save(&self.path, &self.members)
        {
            // An address is for people only; a new certificate is accepted also when it has to be shown again.
            tracing::warn!(node = number.0, error = format!("{error:#}"), "what is new of the node was not kept");
        }
    }

    /// Answers a stranger's request to join; the outcome is logged here.
    pub fn handle_join(&mut self, request: &JoinRequest, peer: IpAddr, now: SystemTime) -> JoinToNode {
        match self.join(request, peer, now) {
            Ok(accepted) => {
                tracing::info!(node = accepted.node, %peer, hostname = request.hostname, "joined");
                JoinToNode::Accepted(accepted)
            }
            Err(refusal) => {
                // The peer's own words are not in it: nothing that a refused peer says is believed.
                tracing::warn!(%peer, "join refused: {refusal}");
                JoinToNode::Refused(JoinRefused { text: refusal.for_peer() })
            }
        }
    }

    /// Lets a machine join, or says why not. Nothing has changed if it may not.
    ///
    /// # Errors
    /// See [`JoinRefusal`].
    pub fn join(&mut self, request: &JoinRequest, peer: IpAddr, now: SystemTime) -> Result<JoinAccepted, JoinRefusal> {
        let applicant = Applicant {
            token_id: &request.token_id,
            secret: &request.token_secret,
            node: request.node,
            hostname: &request.hostname,
            address: peer,
        };
        let admission = self.members.admit(applicant, seconds(now), &self.rules)?;
        let number = admission.number;
        let issued = self
            .ca
            .issue_node(&request.request, number, now, self.certificate_term)
            .map_err(|e| JoinRefusal::BadRequest(e.to_string()))?;
        let mut members = self.members.clone();
        members.joined(admission, issued.serial);
        self.keep(members).map_err(|e| JoinRefusal::NotKept(format!("{e:#}")))?;
        Ok(self.accepted(number, &issued))
    }

    /// Gives a node, whose certificate was accepted, another one, or says why not; the outcome is logged here.
    ///
    /// `shown`: the certificate by which it asks. One that it had been given before counts from now on: it may have no other.
    pub fn renew(&mut self, number: NodeNumber, shown: Serial, request: &Renew, now: SystemTime) -> JoinToNode {
        match self.issue_anew(number, shown, request, now) {
            Ok(issued) => {
                tracing::info!(node = number.0, serial = %issued.serial, "a new certificate was given out");
                JoinToNode::Accepted(self.accepted(number, &issued))
            }
            Err(refusal) => {
                tracing::warn!(node = number.0, "no new certificate: {refusal}");
                JoinToNode::Refused(JoinRefused { text: refusal.for_peer() })
            }
        }
    }

    fn issue_anew(
        &mut self,
        number: NodeNumber,
        shown: Serial,
        request: &Renew,
        now: SystemTime,
    ) -> Result<Issued, JoinRefusal> {
        // A clock that was set back makes nobody wait.
        let before = self.renewals.get(&number).and_then(|before| now.duration_since(*before).ok());
        if before.is_some_and(|before| before < RENEWALS) {
            return Err(JoinRefusal::TooSoon);
        }
        self.renewals.insert(number, now);
        let issued = self.ca.issue_node(&request.request, number, now, self.certificate_term);
        let issued = issued.map_err(|error| JoinRefusal::BadRequest(error.to_string()))?;
        let mut members = self.members.clone();
        members.shown(number, shown);
        members.renewed(number, issued.serial);
        self.keep(members).map_err(|error| JoinRefusal::NotKept(format!("{error:#}")))?;
        Ok(issued)
    }

    fn accepted(&self, number: NodeNumber, issued: &Issued) -> JoinAccepted {
        JoinAccepted {
            node: number.0,
            certificate: Bytes::copy_from_slice(&issued.certificate),
            ca: Bytes::copy_from_slice(self.ca.certificate()),
            cluster: self.ca.cluster().to_string(),
        }
    }

    /// Does what an administrator asks for; the caller has made sure that it is root who asks. Gives lines for stdout.
    ///
    /// # Errors
    /// It was not done, for this reason; nothing has changed then.
    pub fn admin(&mut self, request: &Admin, now: SystemTime) -> Result<Vec<String>, String> {
        match request {
            Admin::Token(request) => self.token(request, now),
            // No member is concerned.
            Admin::View(_) | Admin::Handover(_) | Admin::Examine(_) => Ok(Vec::new()),
            Admin::AddNodes(request) => self.change(request, |members, numbers, rules| {
                let new = members.add(numbers, rules);
                let old: Vec<NodeNumber> = numbers.iter().copied().filter(|n| new.binary_search(n).is_err()).collect();
                Ok([said(&new, "added"), said(&old, "there already, not changed")].into_iter().flatten().collect())
            }),
            Admin::RemoveNodes(request) => self.change(request, |members, numbers, rules| {
                members.remove(numbers, rules)?;
                let (declared, gone): (Vec<_>, Vec<_>) =
                    numbers.iter().copied().partition(|number| rules.declared.binary_search(number).is_ok());
                let declared = said(&declared, "forgotten; still declared by `nodes` in ghostd.toml");
                Ok([said(&gone, "removed"), declared].into_iter().flatten().collect())
            }),
            Admin::RevokeNodes(request) => self.change(request, |members, numbers, rules| {
                members.revoke(numbers, rules)?;
                Ok(said(numbers, "revoked").into_iter().collect())
            }),
            Admin::ReplaceNodes(request) => self.change(request, |members, numbers, rules| {
                members.replace(numbers, rules)?;
                Ok(said(numbers, "free for the next join, the old certificate is refused").into_iter().collect())
            }),
        }
    }

    /// Sets something of nodes; the caller has made sure that whoever asks may do it.
    ///
    /// # Errors
    /// It was not done, for this reason; nothing has changed then.
    pub fn set(&mut self, numbers: &[NodeNumber], setting: &NodeSetting) -> Result<(), String> {
        let mut members = self.members.clone();
        members.set(numbers, setting, &self.rules).map_err(|e| e.to_string())?;
        if members != self.members {
            self.keep(members).map_err(|e| format!("{e:#}"))?;
        }
        Ok(())
    }

    fn token(&mut self, request: &TokenRequest, now: SystemTime) -> Result<Vec<String>, String> {
        let nodes = if request.nodes.is_empty() { Vec::new() } else { numbers(&request.nodes)? };
        let token = Token::generate(self.ca.fingerprint()).map_err(|e| e.to_string())?;
        let mut members = self.members.clone();
        let good_for = if nodes.is_empty() { "any".to_owned() } else { fold(&nodes) };
        let added = members.tokens.add(&token, nodes, request.uses, request.expires_s, seconds(now));
        let (uses, validity) = added.map_err(|e| e.to_string())?;
        self.keep(members).map_err(|e| format!("{e:#}"))?;
        tracing::info!(token = %token.id, nodes = good_for, uses, valid_for = span(validity), "token made");
        Ok(vec![token.to_string()])
    }

    fn change(
        &mut self,
        request: &NodeRequest,
        change: impl FnOnce(&mut Members, &[NodeNumber], &Rules) -> Result<Vec<String>, AdminRefusal>,
    ) -> Result<Vec<String>, String> {
        let numbers = numbers(&request.nodes)?;
        let mut members = self.members.clone();
        let lines = change(&mut members, &numbers, &self.rules).map_err(|e| e.to_string())?;
        if members != self.members {
            self.keep(members).map_err(|e| format!("{e:#}"))?;
        }
        for line in &lines {
            tracing::info!("nodes {line}");
        }
        Ok(lines)
    }

    /// Makes a changed list the one that holds, once it is on disk.
    fn keep(&mut self, members: Members) -> Result<()> {
        store::save(&self.path, &members)?;
        self.members = members;
        Ok(())
    }
}

fn said(nodes: &[NodeNumber], what: &str) -> Option<String> {
    (!nodes.is_empty()).then(|| format!("{}: {what}", fold(nodes)))
}

fn numbers(list: &str) -> Result<Vec<NodeNumber>, String> {
    let spec = NodeSpec::parse(list).map_err(|e| e.to_string())?;
    spec.numbers().map_err(|e| e.to_string())
}

/// Seconds since 1970; a clock before that counts as 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;

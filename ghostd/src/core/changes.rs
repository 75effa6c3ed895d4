//! What users change of nodes: who may, and what becomes of it.
//!
//! ```text
//! mode          owner and root
//! group         root; the owner, to a group that he is in
//! owner, state, root directory     root
//! ```
//! As of a file (chmod(2), chown(2)). It counts from the next program on that is placed there: what runs goes on.
//!
//! Invariant: nothing is answered before it is kept, and what could not be kept has not happened.

use ghost_proto::client::{self, MasterToClient, NodeChange, NodeFailure, Setting};
use ghost_proto::ids::NodeNumber;
use ghost_proto::node_state::NodeStatus;

use super::types::{Instant, NodeFacts, User};
use super::{Action, ClientId, Core, Directory};
use crate::node_setting::NodeSetting;

/// Longest path of a root directory, in bytes (PATH_MAX of Linux).
const LONGEST_PATH: usize = 4096;
/// Changes that one user, other than root, may ask for in a second: each is written to a disk.
const PACE: u32 = 20;

/// A change that may be made of these nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodesChange {
    pub client: ClientId,
    /// Who asks: process and user.
    pub pid: u32,
    pub uid: u32,
    /// With what it was before, for the log.
    pub nodes: Vec<(NodeNumber, String)>,
    /// What is changed, and what it is now, for the log.
    pub what: &'static str,
    pub new: String,
    /// To be kept; none: nothing is.
    pub setting: Option<NodeSetting>,
    /// The state that is set.
    pub state: Option<NodeStatus>,
    /// Nodes of which it may not be changed.
    pub failures: Vec<NodeFailure>,
}

/// How many changes users have asked for in this second.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: u64,
    users: std::collections::BTreeMap<u32, u32>,
}

impl Pace {
    fn is_kept(&mut self, uid: u32, now: Instant) -> bool {
        if self.second != now.as_secs() {
            *self = Pace { second: now.as_secs(), ..Pace::default() };
        }
        let asked = self.users.entry(uid).or_default();
        *asked += 1;
        uid == 0 || *asked <= PACE
    }
}

/// What is asked for, understood.
struct Wanted {
    what: &'static str,
    new: String,
    setting: Option<NodeSetting>,
    state: Option<NodeStatus>,
}

impl Core {
    pub(super) fn change(&mut self, client: ClientId, request: &client::Change, directory: &dyn Directory) {
        let Some(state) = self.clients.get(&client) else { return };
        let user = state.user.clone();
        if state.via.is_some() {
            // As of the membership: a node is not trusted with it, whoever has launched something there.
            return self.refuse(client, "nodes are changed on the master", None);
        }
        if !self.changes.is_kept(user.uid, self.now) {
            let text = format!("more than {PACE} changes in a second; try again, with more nodes at once");
            return self.refuse(client, text, None);
        }
        let wanted = match self.understand(request.change.as_ref()) {
            Ok(wanted) => wanted,
            Err(text) => return self.refuse(client, text, None),
        };
        let facts = directory.nodes();
        let mut numbers = match self.resolve(&request.nodes, &facts) {
            Ok(numbers) => numbers,
            Err((text, position)) => return self.refuse(client, text, Some(position)),
        };
        numbers.sort_unstable();
        numbers.dedup();
        let (mut nodes, mut failures) = (Vec::new(), Vec::new());
        for number in numbers {
            let facts = facts.binary_search_by_key(&number, |facts| facts.number).ok().map(|at| &facts[at]);
            match self.verdict(number, facts, &wanted, &user) {
                Ok(old) => nodes.push((number, old)),
                Err(text) => failures.push(NodeFailure { node: number.0, text }),
            }
        }
        let Wanted { what, new, setting, state } = wanted;
        let change = NodesChange { client, pid: user.pid, uid: user.uid, nodes, what, new, setting, state, failures };
        self.act(Action::ChangeNodes(Box::new(change)));
    }

    fn understand(&self, change: Option<&NodeChange>) -> Result<Wanted, String> {
        let number = |setting: &Setting| setting.value.map_or("the configuration's".to_owned(), |id| id.to_string());
        let (what, new, setting, state) = match change {
            Some(NodeChange::State(name)) => {
                let names = || NodeStatus::ALL.map(NodeStatus::name).join(", ");
                let status: NodeStatus = name.parse().map_err(|e| format!("{e}; there are {}", names()))?;
                ("state", status.name().to_owned(), self.held(status), Some(status))
            }
            Some(NodeChange::Mode(mode)) if mode.value.is_some_and(|bits| bits > 0o777) => {
                return Err("a mode has three octal digits, as 0111".to_owned());
            }
            Some(NodeChange::Mode(mode)) => {
                let new = mode.value.map_or("the configuration's".to_owned(), octal);
                ("mode", new, Some(NodeSetting::Mode(mode.value)), None)
            }
            // chown(2): no number of anybody's.
            Some(NodeChange::Owner(id) | NodeChange::Group(id)) if id.value == Some(u32::MAX) => {
                return Err(format!("{} is nobody's number", u32::MAX));
            }
            Some(NodeChange::Owner(owner)) => ("owner", number(owner), Some(NodeSetting::Owner(owner.value)), None),
            Some(NodeChange::Group(group)) => ("group", number(group), Some(NodeSetting::Group(group.value)), None),
            Some(NodeChange::Root(path)) => {
                // An empty one is a variable that was not set, sooner than a wish to let programs out.
                let bad = !path.starts_with('/') || path.contains(char::is_control);
                if bad || path.len() >= LONGEST_PATH {
                    return Err(format!(
                        "`{}` cannot be a root directory; write an absolute path, or / for the node's own",
                        path.escape_debug()
                    ));
                }
                let path = if path.trim_matches('/').is_empty() { String::new() } else { path.clone() };
                ("root directory", shown_root(&path), Some(NodeSetting::Root(path)), None)
            }
            None => return Err("this ghostd does not know that request; it is older than the command".to_owned()),
        };
        Ok(Wanted { what, new, setting, state })
    }

    /// What is kept of a state that root sets.
    fn held(&self, status: NodeStatus) -> Option<NodeSetting> {
        match status {
            NodeStatus::Up => Some(NodeSetting::Held(None)),
            NodeStatus::Boot if self.settings.node_up => Some(NodeSetting::Held(None)),
            NodeStatus::Down | NodeStatus::Boot | NodeStatus::Error | NodeStatus::Unavailable => {
                Some(NodeSetting::Held(Some(status)))
            }
            NodeStatus::Reboot | NodeStatus::Halt | NodeStatus::PowerOff => None,
        }
    }

    /// What it is now, if this user may change it.
    fn verdict(
        &self,
        number: NodeNumber,
        facts: Option<&NodeFacts>,
        wanted: &Wanted,
        user: &User,
    ) -> Result<String, String> {
        if number == NodeNumber::MASTER {
            return Err("the master runs no nodeagent: it has neither state nor owner here".to_owned());
        }
        let Some(facts) = facts else { return Err("no such node; `bpstat` shows those that there are".to_owned()) };
        may(wanted, user, facts)?;
        if wanted.setting.is_none() && !self.is_connected(number) {
            return Err(format!("down ({}): nothing there can be told to {}", self.status_of(facts).1, wanted.new));
        }
        Ok(match wanted.what {
            "mode" => octal(facts.mode),
            "owner" => facts.uid.to_string(),
            "group" => facts.gid.to_string(),
            "root directory" => shown_root(&facts.root),
            _ => self.status_of(facts).0.name().to_owned(),
        })
    }

    /// It is kept.
    pub(super) fn nodes_changed(&mut self, change: NodesChange) {
        let NodesChange { client, nodes, state, failures, setting, .. } = change;
        let nodes: Vec<NodeNumber> = nodes.into_iter().map(|(number, _)| number).collect();
        match state {
            Some(status) if setting.is_none() => return self.order_power(client, status, nodes, failures),
            Some(status) => nodes.into_iter().for_each(|number| self.state_is_set(number, status)),
            None => {}
        }
        self.tell_client(client, MasterToClient::Changed(client::Changed { failures }));
    }
}

/// Whether a user may change this of a node.
fn may(wanted: &Wanted, user: &User, facts: &NodeFacts) -> Result<(), String> {
    let owns = user.uid == facts.uid;
    let may_whom = match &wanted.setting {
        _ if user.uid == 0 => return Ok(()),
        Some(NodeSetting::Mode(_)) if owns => return Ok(()),
        Some(NodeSetting::Group(Some(gid))) if owns && (user.gid == *gid || user.groups.contains(gid)) => return Ok(()),
        Some(NodeSetting::Mode(_)) => "its owner and root may change the mode",
        Some(NodeSetting::Group(_)) if owns => "its owner may give it to groups that he is in, only root to others",
        Some(NodeSetting::Group(_)) => "its owner and root may change the group",
        Some(NodeSetting::Owner(_)) => "only root may give it to another owner",
        Some(NodeSetting::Root(_)) => "only root may set the root directory",
        Some(NodeSetting::Held(_)) | None => "only root may set states",
    };
    Err(format!("Operation not permitted; {may_whom} (`bpstat {}` shows whose it is)", facts.number))
}

fn octal(bits: u32) -> String {
    format!("{bits:04o}")
}

fn shown_root(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

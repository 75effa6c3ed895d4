//! Commands that watch the nodes: each is told when they are not any more what it has heard last.
//!
//! Invariants:
//! - One answer to one request: a watcher that does not ask on costs nothing, and one that is slow gets the newest state, never a
//!   queue of old ones.
//! - Nothing is looked at while nobody watches; the look is the same for all of them, so that many cost little more than one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use ghost_proto::client::{self, MasterToClient, NodeInfo};
use ghost_proto::ids::NodeNumber;

use super::types::Instant;
use super::{ClientId, Core, Directory};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// A command that watches.
#[derive(Debug)]
pub(super) struct Watcher {
    nodes: String,
    /// What it has heard last.
    heard: Option<u64>,
    /// It has asked, and waits for news.
    waits: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_client: BTreeMap<ClientId, Watcher>,
    looked: Option<Instant>,
}

impl Watchers {
    pub(super) fn contains(&self, client: ClientId) -> bool {
        self.by_client.contains_key(&client)
    }

    pub(super) fn leave(&mut self, client: ClientId) {
        self.by_client.remove(&client);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }
}

impl Core {
    pub(super) fn watch(&mut self, client: ClientId, request: client::Watch, directory: &dyn Directory) {
        let watcher = self.watchers.by_client.remove(&client).filter(|known| known.nodes == request.nodes);
        let begins = watcher.is_none();
        if begins
            && !request.nodes.is_empty()
            && let Err((text, position)) = self.resolve_perhaps(&request.nodes, &directory.nodes(), true)
        {
            return self.refuse(client, text, Some(position));
        }
        let watcher = watcher.unwrap_or(Watcher { nodes: request.nodes, heard: None, waits: true });
        self.watchers.by_client.insert(client, Watcher { waits: true, ..watcher });
        if begins {
            // It has nothing yet.
            self.tell_watchers(directory, |asking| asking == client);
        }
    }

    /// Tells those who wait what is news to them.
    pub(super) fn look_for_watchers(&mut self, directory: &dyn Directory) {
        let waiting = self.watchers.by_client.values().any(|watcher| watcher.waits);
        let rests = self.watchers.looked.is_some_and(|looked| self.now.saturating_sub(looked) < PAUSE);
        if !waiting || rests {
            return;
        }
        self.watchers.looked = Some(self.now);
        self.tell_watchers(directory, |_| true);
    }

    fn tell_watchers(&mut self, directory: &dyn Directory, whom: impl Fn(ClientId) -> bool) {
        let facts = directory.nodes();
        let running = self.running_by_node();
        let infos: BTreeMap<NodeNumber, NodeInfo> =
            facts.iter().map(|facts| (facts.number, self.node_info(facts, &running))).collect();
        let mut news = Vec::new();
        let waiting = self.watchers.by_client.iter().filter(|(client, watcher)| watcher.waits && whom(**client));
        for (&client, watcher) in waiting {
            let nodes: Vec<NodeInfo> = match watcher.nodes.as_str() {
                "" => infos.values().cloned().collect(),
                list => {
                    let mut wanted = self.resolve_perhaps(list, &facts, true).unwrap_or_default();
                    let mut seen = std::collections::BTreeSet::new();
                    wanted.retain(|number| seen.insert(*number));
                    wanted.iter().filter_map(|number| infos.get(number).cloned()).collect()
                }
            };
            let hash = hash(&nodes);
            if watcher.heard != Some(hash) {
                news.push((client, hash, nodes));
            }
        }
        for (client, hash, nodes) in news {
            if let Some(watcher) = self.watchers.by_client.get_mut(&client) {
                (watcher.heard, watcher.waits) = (Some(hash), false);
            }
            self.tell_client(client, MasterToClient::Nodes(client::NodesReply { nodes }));
        }
    }
}

fn hash(nodes: &[NodeInfo]) -> u64 {
    let mut hasher = DefaultHasher::new();
    nodes.hash(&mut hasher);
    hasher.finish()
}

//! Commands that cluster processes run on their nodes. Their holder carries their connections; as whom they act is decided here.
//!
//! Invariants:
//! - A node is believed for processes that the table places on it, and for nothing else.
//! - A command acts as the user of its process's launch, never as another one that the node names: root of a node is no more here than who
//!   launched something there. Who has become another user there does not act as the launch's user either.

use bytes::Bytes;
use ghost_proto::client::is_an_end_of_bpcp;
use ghost_proto::ids::{NodeNumber, ProcId};

use super::types::Client;
use super::{Action, ClientId, Core, User};

impl Core {
    /// As whom a process of a node may ask; `uid`: its effective user there.
    ///
    /// # Errors
    /// Why it may not, for its user.
    pub fn asker(&self, node: NodeNumber, process: ProcId, uid: u32) -> Result<User, String> {
        let known = self.processes.get(&process).filter(|known| known.node == node && !known.remote.is_over());
        let launch = known.and_then(|known| Some((known, self.launches.get(&known.launch)?)));
        let Some((known, launch)) = launch.filter(|(_, launch)| !launch.ended) else {
            return Err("ghostd knows of no process here that asks, or what it belongs to is ending".to_owned());
        };
        let user = &launch.user;
        if uid != 0 && uid != user.uid {
            return Err(format!(
                "this process runs as uid {uid}, but was launched by uid {}: it can ask for nothing in either's name",
                user.uid
            ));
        }
        Ok(User { pid: known.pid, ..user.clone() })
    }

    pub(super) fn client_relayed(&mut self, client: ClientId, user: User, process: ProcId) {
        self.counts.commands += 1;
        self.askers.insert((process, client));
        self.clients.insert(client, Client { via: Some(process), ..Client::new(user) });
    }

    /// A command on a node wants to reach files of the master: the bpsh that all began with here runs bpcp for it, as its user and in its
    /// directory.
    pub(super) fn reach(&mut self, client: ClientId, arguments: Vec<Bytes>) {
        let via = self.clients.get(&client).and_then(|state| state.via);
        let Some(launch) = via.and_then(|via| self.processes.get(&via)).map(|process| process.launch) else {
            return self.refuse(client, "the master is reached so from nodes only", None);
        };
        let host = self.launches.get(&self.host_of(launch)).filter(|host| !host.absent && !host.ended);
        let server = host.map(|host| host.client).filter(|server| self.clients.get(server).is_some_and(|s| s.serves));
        match server {
            _ if !is_an_end_of_bpcp(&arguments) => {
                self.refuse(client, "nothing but bpcp's other end is run on the master", None)
            }
            Some(server) => self.act(Action::Serve { client, server, arguments }),
            None => {
                let text = "the bpsh on the master that this began with lets nothing reach files there: it has \
                    GHOSTPROC_REACH=no in its environment, is older, or is away";
                self.refuse(client, text, None)
            }
        }
    }

    /// The commands that a process is.
    pub(super) fn commands_of(&self, process: ProcId) -> impl Iterator<Item = ClientId> {
        self.askers.range((process, ClientId(0))..=(process, ClientId(u64::MAX))).map(|(_, client)| *client)
    }

    /// A process is dead: so are the commands that it was.
    pub(super) fn asker_ended(&mut self, process: ProcId) {
        for client in self.commands_of(process).collect::<Vec<_>>() {
            self.client_gone(client);
        }
    }
}

//! Commands: greeting, questions, and what happens when one goes.

use std::collections::BTreeMap;

use ghost_proto::client::{self, Admin, ClientToMaster, MasterToClient};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId, Stream};
use ghost_proto::launch::HOST;
use ghost_proto::metrics;
use ghost_proto::node::{self, MasterToNode};
use ghost_proto::nodeset::{NodeSpec, Problem};
use ghost_proto::terminal;

use super::types::{Client, NodeFacts, Remote, User};
use super::{Action, ClientId, Core, Directory};

impl Core {
    pub(super) fn client_joined(&mut self, client: ClientId, user: User) {
        self.counts.commands += 1;
        self.clients.insert(client, Client::new(user));
    }

    pub(super) fn client_said(&mut self, client: ClientId, message: ClientToMaster, directory: &dyn Directory) {
        let Some(state) = self.clients.get_mut(&client) else { return };
        if let ClientToMaster::Hello(theirs) = &message {
            state.greeted = true;
            state.serves = theirs.features.iter().any(|feature| feature == client::SERVE);
            state.resumes = theirs.features.iter().any(|feature| feature == client::RESUME);
            let hello = client::Hello {
                version: ghost_proto::VERSION,
                features: [client::RESUME, terminal::FEATURE, client::WATCH, HOST, metrics::FEATURE]
                    .map(str::to_owned)
                    .to_vec(),
                program: self.settings.program.clone(),
            };
            return self.tell_client(client, MasterToClient::Hello(hello));
        }
        if !state.greeted {
            return self.refuse(client, "the first message must be a hello", None);
        }
        match message {
            // The driver makes an event of its own of that.
            ClientToMaster::Hello(_) | ClientToMaster::Resume(_) => {}
            ClientToMaster::Noted(noted) => self.noted(client, noted.rank),
            ClientToMaster::Launch(launch) => self.launch(client, launch, directory),
            ClientToMaster::Ack(ack) => self.client_acked(client, &ack),
            ClientToMaster::CloseStream(close) => self.client_closed_stream(client, &close),
            ClientToMaster::NoGhost(no) => self.no_ghost(client, &no),
            ClientToMaster::GhostDied(died) => self.ghost_died(client, &died),
            ClientToMaster::MakeGhost(make) => self.make_ghost(client, make.rank),
            ClientToMaster::Reach(reach) => self.reach(client, reach.arguments),
            ClientToMaster::SignalRanks(wanted) => self.signal_ranks(client, wanted.rank, wanted.signal),
            ClientToMaster::Terminate(_) => self.terminate(client),
            ClientToMaster::Resize(resize) => self.resized(client, resize),
            ClientToMaster::Nodes(request) => self.list_nodes(client, &request, directory),
            ClientToMaster::Processes(_) => self.list_processes(client),
            ClientToMaster::Admin(request) => self.administer(client, request),
            ClientToMaster::Metrics(_) => self.act(Action::TellMetrics { client }),
            ClientToMaster::Change(request) => self.change(client, &request, directory),
            ClientToMaster::Watch(request) => self.watch(client, request, directory),
        }
    }

    /// A command is gone. What it launched and has not ended is killed.
    pub(super) fn client_gone(&mut self, client: ClientId) {
        let Some(state) = self.clients.remove(&client) else { return };
        if let Some(process) = state.via {
            self.askers.remove(&(process, client));
        }
        self.watchers.leave(client);
        if let Some(id) = state.launch {
            self.end_launch(id);
        }
    }

    /// What was launched and has not ended is killed.
    pub(super) fn end_launch(&mut self, id: LaunchId) {
        let Some(launch) = self.launches.get_mut(&id) else { return };
        (launch.ended, launch.absent) = (true, false);
        let ranks: Vec<ProcId> = launch.ranks.iter().flatten().copied().collect();
        let mut nodes = Vec::new();
        for process in ranks {
            let Some(state) = self.processes.get_mut(&process) else { continue };
            if state.remote != Remote::Planned {
                // Also where all have ended: output that nobody takes any more is dropped there.
                if !nodes.contains(&state.node) {
                    nodes.push(state.node);
                }
            } else {
                // Its ghost, if there is one, is told to go.
                state.remote = Remote::Failed;
                self.answer_ghost(process, ghost_sys::ghost::Answer::Exit(125));
                self.is_waited_for(process);
            }
        }
        for node in nodes {
            self.tell_node(node, MasterToNode::EndLaunch(node::EndLaunch { launch: id.0, everything: false }));
        }
        self.clear_launch(id);
    }

    /// Everything that a command has launched is killed, wherever it has been; the command goes on.
    fn terminate(&mut self, client: ClientId) {
        let Some(id) = self.clients.get(&client).and_then(|state| state.launch) else { return };
        let Some(launch) = self.launches.get(&id) else { return };
        let planned = launch.plans.iter().filter(|plan| plan.reason.is_empty());
        let mut nodes: Vec<NodeNumber> = planned.map(|plan| NodeNumber(plan.node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            self.tell_node(node, MasterToNode::EndLaunch(node::EndLaunch { launch: id.0, everything: true }));
        }
    }

    fn client_closed_stream(&mut self, client: ClientId, close: &client::CloseStream) {
        let Some(id) = self.rank_of(client, close.rank) else { return };
        if !matches!(Stream::from_fd(close.fd), Some(Stream::Stdout | Stream::Stderr)) {
            return self.refuse(client, format!("descriptor {} is no output stream", close.fd), None);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(output) = (close.fd as usize).checked_sub(1).and_then(|i| process.outputs.get_mut(i)) else { return };
        if std::mem::replace(&mut output.closed, true) {
            return;
        }
        if process.held {
            let message = node::CloseStream { proc: id.0, fd: close.fd };
            let node = process.node;
            self.tell_node(node, MasterToNode::CloseStream(message));
        }
        self.clear_process(id);
    }

    /// Outputs that nobody reads, to a node that does not know it yet.
    pub(super) fn tell_closed_outputs(&mut self, id: ProcId) {
        for (fd, output) in [(1, 0), (2, 1)] {
            let Some(process) = self.processes.get(&id) else { return };
            if process.outputs[output].closed {
                self.tell_node(process.node, MasterToNode::CloseStream(node::CloseStream { proc: id.0, fd }));
            }
        }
    }

    /// The process of a client's rank, if that client launched it.
    pub(super) fn rank_of(&self, client: ClientId, rank: u32) -> Option<ProcId> {
        let launch = self.clients.get(&client)?.launch?;
        *self.launches.get(&launch)?.ranks.get(rank as usize)?
    }

    fn administer(&mut self, client: ClientId, request: client::AdminRequest) {
        let Some(state) = self.clients.get(&client) else { return };
        if state.user.uid != 0 {
            let uid = state.user.uid;
            return self.refuse(client, format!("only root may do this (you are uid {uid})"), None);
        }
        if state.via.is_some() {
            // Who launches on a node trusts it with what he may do; the membership is not among that.
            return self.refuse(client, "the cluster is administered on the master", None);
        }
        match request.admin {
            Some(admin) => self.act(Action::Admin { client, admin }),
            None => self.refuse(client, "this ghostd does not know that request; it is older than the command", None),
        }
    }

    fn list_nodes(&mut self, client: ClientId, request: &client::NodesRequest, directory: &dyn Directory) {
        let mut facts = directory.nodes();
        if !request.nodes.is_empty() {
            match self.resolve_perhaps(&request.nodes, &facts, request.perhaps_none) {
                Ok(wanted) => {
                    if let Some(unknown) = wanted.iter().find(|n| !facts.iter().any(|f| f.number == **n)) {
                        let text = match *unknown {
                            NodeNumber::MASTER => "the master is none of the nodes; `bpstat` shows those".to_owned(),
                            unknown => format!("{unknown}: no such node; `bpstat` shows those that there are"),
                        };
                        return self.refuse(client, text, None);
                    }
                    // In the order of the list, each once.
                    let place = |number| wanted.iter().position(|wanted| *wanted == number);
                    facts.retain(|f| wanted.contains(&f.number));
                    facts.sort_by_key(|f| place(f.number));
                }
                Err((text, position)) => return self.refuse(client, text, Some(position)),
            }
        }
        let running = self.running_by_node();
        let nodes = facts.iter().map(|facts| self.node_info(facts, &running)).collect();
        self.tell_client(client, MasterToClient::Nodes(client::NodesReply { nodes }));
    }

    pub(super) fn node_info(&self, facts: &NodeFacts, running: &BTreeMap<NodeNumber, u32>) -> client::NodeInfo {
        let node = self.nodes.get(&facts.number);
        let (status, reason) = self.status_of(facts);
        let figures = node.filter(|node| node.link.is_some()).and_then(|node| node.figures);
        client::NodeInfo {
            node: facts.number.0,
            status: status.name().to_owned(),
            mode: facts.mode,
            uid: facts.uid,
            gid: facts.gid,
            address: facts.address.or(node.map(|n| n.address)).map(|a| a.to_string()).unwrap_or_default(),
            hostname: node.map_or(&facts.hostname, |n| &n.hostname).clone(),
            reason,
            root: facts.root.clone(),
            load_centi: figures.map_or(0, |figures| figures.load_centi),
            mem_available_kib: figures.map_or(0, |figures| figures.mem_available_kib),
            mem_total_kib: figures.map_or(0, |figures| figures.mem_total_kib),
            processes: running.get(&facts.number).copied().unwrap_or(0),
        }
    }

    /// How many processes run on each node.
    pub(super) fn running_by_node(&self) -> BTreeMap<NodeNumber, u32> {
        let mut running = BTreeMap::new();
        for process in self.processes.values().filter(|process| matches!(process.remote, Remote::Running { .. })) {
            *running.entry(process.node).or_default() += 1;
        }
        running
    }

    fn list_processes(&mut self, client: ClientId) {
        let processes = self
            .processes
            .values()
            .filter(|process| process.pid != 0 && !process.remote.is_over())
            .map(|process| client::ProcessInfo {
                pid: process.pid,
                node: process.node.0,
                node_pid: if let Remote::Running { pid } = process.remote { pid } else { 0 },
                uid: self.launches.get(&process.launch).map_or(u32::MAX, |l| l.user.uid),
            })
            .collect();
        self.tell_client(client, MasterToClient::Processes(client::ProcessesReply { processes }));
    }

    /// A node list as numbers, or what is wrong with it and where.
    pub(super) fn resolve(&self, list: &str, facts: &[NodeFacts]) -> Result<Vec<NodeNumber>, (String, u32)> {
        self.resolve_perhaps(list, facts, false)
    }

    /// The same; `none`: that nobody is in such a state now is no mistake.
    pub(super) fn resolve_perhaps(
        &self,
        list: &str,
        facts: &[NodeFacts],
        none: bool,
    ) -> Result<Vec<NodeNumber>, (String, u32)> {
        let at = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
        let spec = NodeSpec::parse(list).map_err(|e| (e.message.clone(), at(e.position)))?;
        match spec.resolve(&self.node_states(facts)) {
            Err(error) if none && matches!(error.problem, Problem::Nobody(_)) => Ok(Vec::new()),
            resolved => resolved.map_err(|e| (e.to_string(), at(e.position))),
        }
    }

    /// The driver has done (or not done) what [`Action::Admin`] asked.
    pub fn admin_reply(outcome: Result<Vec<String>, String>) -> MasterToClient {
        match outcome {
            Ok(lines) => MasterToClient::Admin(client::AdminReply { lines, examination: None }),
            Err(text) => MasterToClient::Refused(client::Refused { text, position: None }),
        }
    }

    /// What an administrator asked for, for the log.
    pub fn admin_name(admin: &Admin) -> &'static str {
        match admin {
            Admin::Token(_) => "token",
            Admin::AddNodes(_) => "nodes add",
            Admin::RemoveNodes(_) => "nodes remove",
            Admin::RevokeNodes(_) => "nodes revoke",
            Admin::ReplaceNodes(_) => "nodes replace",
            Admin::View(_) => "view",
            Admin::Examine(_) => "doctor",
            Admin::Handover(_) => "handover",
        }
    }
}

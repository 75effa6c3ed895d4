//! Connections: of commands to ghostd, of nodes to ghostd. Each keeps its order, control apart from bulk; none keeps step with another.

use std::time::Duration;

use ghost_proto::client::{ClientToMaster, MasterToClient};
use ghost_proto::frame::Data;
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{MasterToNode, NodeToMaster};

use super::super::super::launches::LARGEST_WINDOW;
use super::super::super::{Event, LinkId};
use super::plants::Plant;
use super::relay::Relay;
use super::world::{Happening, World};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    ToClient(u64),
    FromClient(u64),
    ToNode(LinkId),
    FromNode(LinkId),
    Opener,
}

/// How far a direction of a connection still carries: what arrives later is lost.
type Until = Option<Duration>;

/// A node's connection.
pub struct Link {
    pub node: usize,
    /// Which ghostd's it is.
    generation: u64,
    cut: bool,
    to_node: Until,
    from_node: Until,
}

/// A command's connection.
pub struct Socket {
    pub index: usize,
    /// ghostd is gone: what arrives later was never written.
    to_client: Until,
}

impl World {
    /// As [`World::after`], but never before what was sent on this channel earlier.
    pub fn send(&mut self, channel: Channel, happening: Happening) {
        let at = self.now + self.random.delay();
        let [control, bulk] = self.channels.entry(channel).or_default();
        let delay = match happening {
            // Control overtakes bulk, never the other way.
            Happening::DataToClient(..) | Happening::DataToNode(..) => {
                *bulk = at.max(*bulk).max(*control);
                *bulk - self.now
            }
            _ => {
                *control = at.max(*control);
                *control - self.now
            }
        };
        self.after(delay, happening);
    }

    // ---- commands

    pub fn new_socket(&mut self, index: usize) -> u64 {
        self.connections += 1;
        self.sockets.insert(self.connections, Socket { index, to_client: None });
        self.connections
    }

    /// The command at the other end, if this is its connection and carries still.
    pub fn client_of(&self, socket: u64) -> Option<usize> {
        let Socket { index, to_client } = self.sockets.get(&socket)?;
        let client = &self.clients[*index];
        let carries = to_client.is_none_or(|until| self.now <= until);
        (client.id.0 == socket && !client.gone && client.away.is_none() && carries).then_some(*index)
    }

    pub fn client_says(&mut self, index: usize, message: ClientToMaster) {
        let client = &self.clients[index];
        if !client.gone && client.away.is_none() {
            let socket = client.id.0;
            self.send(Channel::FromClient(socket), Happening::FromClient(socket, message));
        }
    }

    pub fn client_sends(&mut self, index: usize, data: Data) {
        let client = &self.clients[index];
        if !client.gone && client.away.is_none() {
            let socket = client.id.0;
            self.send(Channel::FromClient(socket), Happening::DataFromClient(socket, data));
        }
    }

    pub fn client_closes(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !std::mem::replace(&mut client.gone, true) && client.joined && client.away.is_none() {
            let socket = client.id.0;
            self.send(Channel::FromClient(socket), Happening::ClientGone(socket));
        }
    }

    pub fn tell_client(&mut self, socket: u64, message: MasterToClient) {
        self.send(Channel::ToClient(socket), Happening::ToClient(socket, message));
    }

    // ---- nodes

    pub fn new_link(&mut self, number: usize) -> LinkId {
        let link = LinkId(self.links.len() as u64 + 1);
        let generation = self.generation;
        self.links.insert(link, Link { node: number, generation, cut: false, to_node: None, from_node: None });
        self.relays.insert(link, Relay::new());
        link
    }

    /// Of what is on its way some is lost; both ends notice sooner or later.
    pub fn cut(&mut self, link: LinkId) {
        let (there, back) = (self.rest(), self.rest());
        let noticed = if self.random.percent(20) { self.random.micros(2_500_000) } else { self.random.delay() };
        self.cut_after(link, there, back, Some(noticed));
    }

    /// nodeagent is killed: what it had in its hands is lost, and both ends see it at once.
    pub fn kill_agent(&mut self, number: usize) {
        if let Some(link) = self.nodes[number].link {
            self.tally.agents_killed += 1;
            let (there, back, noticed) = (self.rest(), self.rest(), self.random.micros(300));
            self.cut_after(link, there, back, Some(noticed));
        }
    }

    /// Some of what was sent still arrives, or nothing.
    fn rest(&mut self) -> Duration {
        if self.random.percent(50) { Duration::ZERO } else { self.random.delay() }
    }

    fn cut_after(&mut self, link: LinkId, there: Duration, back: Duration, master_sees: Option<Duration>) {
        let now = self.now;
        let Some(state) = self.links.get_mut(&link) else { return };
        if std::mem::replace(&mut state.cut, true) {
            return;
        }
        (state.to_node, state.from_node) = (Some(now + there), Some(now + back));
        // nodeagent passes nothing on any more.
        if let Some(relay) = self.relays.get_mut(&link) {
            relay.stop();
        }
        let delay = there + self.random.delay();
        self.after(delay, Happening::NodeSeesCut(link));
        if let Some(delay) = master_sees {
            self.after(back + delay, Happening::MasterSeesCut(link));
        }
    }

    /// One direction is dead, the other is not, and nobody is told.
    pub fn cut_one_way(&mut self, link: LinkId) {
        let (there, now) = (self.random.percent(50), self.now);
        if let Some(link) = self.links.get_mut(&link).filter(|link| !link.cut) {
            self.tally.one_way_cuts += 1;
            if there { link.to_node = Some(now) } else { link.from_node = Some(now) }
        }
    }

    /// Where ghostd's words arrive, if they do.
    pub fn reaches_node(&self, link: LinkId) -> Option<usize> {
        let link = self.links.get(&link)?;
        link.to_node.is_none_or(|until| self.now <= until).then_some(link.node)
    }

    /// Nothing is wrong with it.
    pub fn is_whole(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.to_node.is_none() && link.from_node.is_none())
    }

    /// Whose words arrive at ghostd, if they do.
    pub fn reaches_master(&self, link: LinkId) -> Option<usize> {
        let link = self.links.get(&link)?;
        let carries = link.from_node.is_none_or(|until| self.now <= until);
        (carries && !self.down && link.generation == self.generation).then_some(link.node)
    }

    pub fn master_hears(&mut self, link: LinkId, message: NodeToMaster) {
        let Some(number) = self.reaches_master(link) else { return };
        match message {
            NodeToMaster::Hello(hello) => {
                self.tally.returns_with_processes += u64::from(!hello.processes.is_empty());
                let (node, address) = (NodeNumber(number as i32), std::net::Ipv4Addr::LOCALHOST.into());
                self.feed(Event::NodeConnected { node, link, hello, address });
            }
            message => self.feed_node_message(number, link, message),
        }
    }

    pub fn master_receives(&mut self, link: LinkId, data: Data) {
        if let Some(number) = self.reaches_master(link) {
            let process = self.master.core.processes.get_mut(&ProcId(data.id));
            if let Some(process) = process
                && self.planted.take_if(|planted| *planted == Plant::OutputHoarded).is_some()
            {
                process.outputs[0].waiting.push(Data { bytes: vec![0; 2 * LARGEST_WINDOW].into(), ..data.clone() });
            }
            self.feed_node_data(number, link, data);
        }
    }

    pub fn master_sees_cut(&mut self, link: LinkId) {
        let Link { node, generation, .. } = self.links[&link];
        if !self.down && generation == self.generation {
            self.feed(Event::NodeDisconnected { node: NodeNumber(node as i32), link });
        }
    }

    pub fn tell_node(&mut self, link: LinkId, message: MasterToNode) {
        self.send(Channel::ToNode(link), Happening::ToNode(link, message));
    }

    pub fn feed_node_message(&mut self, number: usize, link: LinkId, message: NodeToMaster) {
        self.feed(Event::NodeSaid { node: NodeNumber(number as i32), link, message });
    }

    pub fn feed_node_data(&mut self, number: usize, link: LinkId, data: Data) {
        self.feed(Event::NodeData { node: NodeNumber(number as i32), link, data });
    }

    /// ghostd is gone. Of what it had told everybody a part was written already.
    pub fn hang_up(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            let there = self.rest();
            self.cut_after(link, there, Duration::ZERO, None);
        }
        let now = self.now;
        for socket in
            self.clients.iter().filter(|c| c.joined && !c.gone && c.away.is_none()).map(|c| c.id.0).collect::<Vec<_>>()
        {
            let rest = self.rest();
            if let Some(state) = self.sockets.get_mut(&socket) {
                state.to_client = Some(now + rest);
            }
            self.after(rest + Duration::from_micros(1), Happening::ConnectionLost(socket));
        }
    }
}

//! Commands on nodes: what their holders carry here becomes, by a socket pair, a connection as of any other command.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{MasterToClient, Refused};
use ghost_proto::ids::NodeNumber;
use ghost_proto::relay::{Kind, Opening, PIECE, Relay, Relayed};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::outbox::Outbox;
use super::{Shared, clients};
use crate::core::{Event, LinkId};

/// Connections that one node may carry at once.
const MOST_OF_NODE: usize = 4_096;

/// One connection; shared by its two tasks and the node's link.
struct Port {
    relayed: Relayed,
    /// The link that the node has, or had last.
    link: Rc<Outbox>,
    /// What has come for ghostd.
    inbox: VecDeque<Bytes>,
    /// Its node is lost: whatever waits is of no use.
    lost: bool,
    /// Nobody here takes what comes.
    deaf: bool,
}

type Shelf = Rc<(RefCell<Port>, Notify, Notify)>;

/// All connections that nodes carry.
pub(super) struct Relays {
    /// This ghostd's own number.
    number: u64,
    ports: HashMap<(NodeNumber, u64), Shelf>,
}

impl Relays {
    pub(super) fn new(number: u64) -> Relays {
        Relays { number, ports: HashMap::new() }
    }

    /// A node has a link, over which its connections go on.
    pub(super) fn linked(&mut self, node: NodeNumber, outbox: &Rc<Outbox>) {
        outbox.bulk_frame(Relay::here(self.number).to_frame());
        for (_, shelf) in self.ports.iter().filter(|((of, _), _)| *of == node) {
            let mut port = shelf.0.borrow_mut();
            port.link = Rc::clone(outbox);
            for frame in port.relayed.again() {
                outbox.bulk_frame(frame.to_frame());
            }
        }
    }

    /// What ran on a node is dead, and with it the commands.
    pub(super) fn node_lost(&mut self, node: NodeNumber) {
        self.ports.retain(|(of, _), shelf| {
            let keep = *of != node;
            if !keep {
                shelf.0.borrow_mut().lost = true;
                shelf.1.notify_one();
                shelf.2.notify_one();
            }
            keep
        });
    }
}

/// A frame has come from a node's holder.
pub(super) fn arrived(shared: &Shared, node: NodeNumber, link: LinkId, relay: Relay) {
    let Some(outbox) = shared.borrow().nodes.get(&link).map(|port| Rc::clone(&port.outbox)) else { return };
    let key = (node, relay.id);
    let known = shared.borrow().relays.ports.get(&key).map(Rc::clone);
    let shelf = match (known, relay.kind) {
        (Some(shelf), _) => shelf,
        (None, Kind::Open(opening)) => return open(shared, node, &outbox, relay.id, opening),
        (None, _) => {
            if let Some(farewell) = relay.farewell() {
                outbox.bulk_frame(farewell.to_frame());
            }
            return;
        }
    };
    let mut port = shelf.0.borrow_mut();
    match port.relayed.receive(&relay) {
        Ok(bytes) if port.deaf => port.consume(bytes.len()),
        Ok(bytes) => {
            if !bytes.is_empty() {
                port.inbox.push_back(bytes);
            }
            shelf.1.notify_one();
            shelf.2.notify_one();
        }
        Err(why) => {
            tracing::warn!(node = node.0, "a command's connection on a node is closed: {why}");
            port.lost = true;
            shelf.1.notify_one();
            shelf.2.notify_one();
        }
    }
    let over = port.relayed.is_over() || port.lost;
    drop(port);
    if over {
        shared.borrow_mut().relays.ports.remove(&key);
    }
}

fn open(shared: &Shared, node: NodeNumber, link: &Rc<Outbox>, id: u64, opening: Opening) {
    let mut relayed = Relayed::accept(id);
    let process = opening.process;
    // One whose last word was its acknowledgement of the other's end is told by nothing.
    shared.borrow_mut().relays.ports.retain(|_, shelf| !shelf.0.borrow().relayed.is_over());
    let count = shared.borrow().relays.ports.keys().filter(|(of, _)| *of == node).count();
    let asker = match shared.borrow().core.asker(node, process, opening.uid) {
        _ if count >= MOST_OF_NODE => Err(format!("{count} commands of this node are connected already")),
        asker => asker,
    };
    let pair = UnixStream::pair().map_err(|error| format!("ghostd cannot take it: {error}"));
    let (user, (ours, theirs)) = match asker.and_then(|user| Ok((user, pair?))) {
        Ok(found) => found,
        Err(text) => {
            tracing::info!(
                node = node.0,
                process = process.0,
                uid = opening.uid,
                "a command on a node is refused: {text}"
            );
            let refused = MasterToClient::Refused(Refused { text, position: None }).to_frame();
            link.bulk_frame(relayed.send(refused).to_frame());
            link.bulk_frame(relayed.close().map(|end| end.to_frame()).unwrap_or_default());
            let port = Port { relayed, link: Rc::clone(link), inbox: VecDeque::new(), lost: false, deaf: true };
            let shelf = Rc::new((RefCell::new(port), Notify::new(), Notify::new()));
            shared.borrow_mut().relays.ports.insert((node, id), shelf);
            return;
        }
    };
    tracing::debug!(node = node.0, process = process.0, uid = user.uid, pid = user.pid, "a command on a node");
    let port = Port { relayed, link: Rc::clone(link), inbox: VecDeque::new(), lost: false, deaf: false };
    let shelf: Shelf = Rc::new((RefCell::new(port), Notify::new(), Notify::new()));
    shared.borrow_mut().relays.ports.insert((node, id), Rc::clone(&shelf));
    clients::serve(theirs, shared, user, None, |client, user| Event::ClientRelayed { client, user, process });
    let ours = Rc::new(ours);
    tokio::task::spawn_local(from_ghostd(Rc::clone(&ours), Rc::clone(&shelf)));
    tokio::task::spawn_local(to_ghostd(ours, shelf));
}

impl Port {
    fn tell(&self, relay: &Relay) {
        self.link.bulk_frame(relay.to_frame());
    }

    fn consume(&mut self, bytes: usize) {
        if let Some(ack) = self.relayed.consume(bytes) {
            self.tell(&ack);
        }
    }
}

/// What ghostd says to the command, as far as there is room on the way.
async fn from_ghostd(stream: Rc<UnixStream>, shelf: Shelf) {
    let (port, changed, _) = &*shelf;
    let mut buffer = BytesMut::new();
    loop {
        let room = {
            let port = port.borrow();
            if port.lost {
                return;
            }
            port.relayed.room().min(PIECE)
        };
        if room == 0 {
            changed.notified().await;
            continue;
        }
        tokio::select! {
            ready = stream.readable() => if ready.is_err() { break },
            () = changed.notified() => continue,
        }
        buffer.resize(room, 0);
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                let bytes = buffer.split_to(n).freeze();
                let mut port = port.borrow_mut();
                let piece = port.relayed.send(bytes);
                port.tell(&piece);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let mut port = port.borrow_mut();
    if let Some(end) = port.relayed.close() {
        port.tell(&end);
    }
}

/// What the command says to ghostd.
async fn to_ghostd(stream: Rc<UnixStream>, shelf: Shelf) {
    let (port, _, changed) = &*shelf;
    loop {
        let next = port.borrow_mut().inbox.pop_front();
        let Some(mut bytes) = next else {
            if port.borrow().lost || port.borrow().relayed.has_come_to_end() {
                break;
            }
            changed.notified().await;
            continue;
        };
        while !bytes.is_empty() {
            match stream.try_write(&bytes) {
                Ok(n) => {
                    bytes.advance(n);
                    port.borrow_mut().consume(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        ready = stream.writable() => if ready.is_err() { break },
                        () = changed.notified() => if port.borrow().lost { break },
                    }
                }
                Err(_) => {
                    // ghostd has closed it.
                    let mut port = port.borrow_mut();
                    let left = bytes.len() + std::mem::take(&mut port.inbox).iter().map(Bytes::len).sum::<usize>();
                    port.deaf = true;
                    port.consume(left);
                    return;
                }
            }
        }
    }
    // The acknowledgement of the end, if that came by itself.
    port.borrow_mut().consume(0);
    let _ = nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&*stream), nix::sys::socket::Shutdown::Both);
}

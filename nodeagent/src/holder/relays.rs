//! Commands' connections on this node, on their way to ghostd. Pure: sockets are the driver's.
//!
//! Invariants:
//! - Nothing is sent on a link before ghostd has said on it that it is there.
//! - Another ghostd, or the end of what runs here, is the end of all connections.

use std::collections::BTreeMap;

use ghost_proto::relay::{Kind, Opening, Relay, Relayed};

/// Connections that there may be at once; fewer where there are few descriptors.
const MOST: usize = 512;
const FEW: usize = 64;
/// So many descriptors are many.
const MANY: u64 = 64 * 1024;
/// Which part of them one user other than root may have.
const PART: usize = 4;

/// Descriptors that are set aside for them beyond what the holder keeps for itself anyway.
pub const fn beyond(descriptors: u64) -> u64 {
    if descriptors >= MANY { MOST as u64 } else { 0 }
}

#[derive(Debug)]
struct Entry {
    uid: u32,
    relayed: Relayed,
    /// The command's socket is still there.
    open: bool,
}

/// What a frame from ghostd means for the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// These are to go to ghostd. All connections that there were are gone if `anew`.
    Here {
        anew: bool,
        frames: Vec<Relay>,
    },
    /// For the command with this number.
    Bytes {
        id: u64,
        bytes: bytes::Bytes,
    },
    /// An answer to ghostd.
    Answer(Relay),
    /// This connection is to be closed: ghostd does not keep to the rules.
    Broken {
        id: u64,
        why: String,
    },
    Nothing,
}

/// All connections of commands.
#[derive(Debug, Default)]
pub struct Relays {
    most: usize,
    /// ghostd's own number, as it was last heard.
    master: Option<u64>,
    /// It has been heard on this link.
    here: bool,
    last: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Relays {
    /// For a process that may have so many descriptors.
    pub fn new(descriptors: u64) -> Relays {
        Relays { most: if descriptors >= MANY { MOST } else { FEW }, ..Relays::default() }
    }

    /// A command of this user connects; gives its number, and what is to be sent at once.
    ///
    /// # Errors
    /// There are too many, for the user.
    pub fn open(&mut self, opening: Opening) -> Result<(u64, Vec<Relay>), String> {
        let of_user = self.entries.values().filter(|entry| entry.uid == opening.uid && entry.open).count();
        if opening.uid != 0 && of_user >= self.most / PART || self.entries.len() >= self.most {
            return Err(format!("{of_user} commands of this user are connected on this node already"));
        }
        self.last += 1;
        let mut relayed = Relayed::open(self.last, opening);
        let frames = if self.here { relayed.again() } else { Vec::new() };
        self.entries.insert(self.last, Entry { uid: opening.uid, relayed, open: true });
        Ok((self.last, frames))
    }

    /// A frame from ghostd.
    pub fn came(&mut self, relay: &Relay) -> Came {
        if relay.kind == Kind::Here {
            let anew = self.master.replace(relay.id).is_some_and(|before| before != relay.id);
            if anew {
                self.entries.clear();
            }
            self.here = true;
            let frames = self.entries.values_mut().flat_map(|entry| entry.relayed.again()).collect();
            return Came::Here { anew, frames };
        }
        let id = relay.id;
        let Some(entry) = self.entries.get_mut(&id) else {
            return relay.farewell().map_or(Came::Nothing, Came::Answer);
        };
        match entry.relayed.receive(relay) {
            Ok(bytes) if entry.open => Came::Bytes { id, bytes },
            Ok(bytes) => {
                let answer = entry.relayed.consume(bytes.len());
                self.forget_if_over(id);
                answer.map_or(Came::Nothing, Came::Answer)
            }
            Err(why) => {
                self.entries.remove(&id);
                Came::Broken { id, why: why.to_string() }
            }
        }
    }

    /// Bytes that may be read from a command now.
    pub fn room(&self, id: u64) -> usize {
        self.entries.get(&id).map_or(0, |entry| entry.relayed.room())
    }

    /// A command has said this, at most as much as there is room for.
    pub fn said(&mut self, id: u64, bytes: bytes::Bytes) -> Option<Relay> {
        let frame = self.entries.get_mut(&id).map(|entry| entry.relayed.send(bytes));
        frame.filter(|_| self.here)
    }

    /// A command has taken so many bytes.
    pub fn taken(&mut self, id: u64, bytes: usize) -> Option<Relay> {
        let ack = self.entries.get_mut(&id).and_then(|entry| entry.relayed.consume(bytes));
        ack.filter(|_| self.here)
    }

    /// ghostd has said all that it will to this command, and the command has it.
    pub fn has_come_to_end(&self, id: u64) -> bool {
        self.entries.get(&id).is_none_or(|entry| entry.relayed.has_come_to_end())
    }

    /// A command's socket is closed; `waiting`: bytes for it that it has not taken.
    pub fn closed(&mut self, id: u64, waiting: usize) -> Vec<Relay> {
        let Some(entry) = self.entries.get_mut(&id) else { return Vec::new() };
        entry.open = false;
        let frames = [entry.relayed.consume(waiting), entry.relayed.close()];
        self.forget_if_over(id);
        let here = self.here;
        frames.into_iter().flatten().filter(|_| here).collect()
    }

    fn forget_if_over(&mut self, id: u64) {
        if self.entries.get(&id).is_some_and(|entry| !entry.open && entry.relayed.is_over()) {
            self.entries.remove(&id);
        }
    }

    /// There is no link to ghostd.
    pub fn unlinked(&mut self) {
        self.here = false;
    }

    /// What runs here ends, and with it the commands.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    #[cfg(test)]
    fn is_known(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ghost_proto::ids::ProcId;

    fn by(uid: u32) -> Opening {
        Opening { process: ProcId(1), uid }
    }

    #[test]
    fn nothing_is_sent_before_ghostd_is_here() {
        let mut relays = Relays::new(MANY);
        let (id, frames) = relays.open(by(0)).expect("room");
        assert!(frames.is_empty());
        assert_eq!(relays.said(id, Bytes::from_static(b"hello")), None);
        let Came::Here { anew: false, frames } = relays.came(&Relay::here(5)) else { panic!("not here") };
        assert_eq!(frames[0].kind, Kind::Open(by(0)));
        assert_eq!(frames[1].bytes, "hello");
        relays.unlinked();
        assert_eq!(relays.said(id, Bytes::from_static(b"!")), None);
        assert!(matches!(relays.came(&Relay::here(5)), Came::Here { anew: false, .. }));
        assert!(relays.is_known(id));
    }

    #[test]
    fn another_ghostd_knows_none_of_them() {
        let mut relays = Relays::new(MANY);
        relays.came(&Relay::here(5));
        let (id, _) = relays.open(by(0)).expect("room");
        assert_eq!(relays.came(&Relay::here(6)), Came::Here { anew: true, frames: Vec::new() });
        assert!(!relays.is_known(id));
        // What the one before has said may still be under way; an end is answered.
        let stale = Relay { end: true, ..Relay { kind: Kind::Piece, ..Relay::here(id) } };
        assert!(matches!(relays.came(&stale), Came::Answer(_)));
    }

    #[test]
    fn a_user_leaves_room_for_others() {
        let mut relays = Relays::new(MANY);
        let opened = (0..MOST).take_while(|_| relays.open(by(1000)).is_ok()).count();
        assert_eq!(opened, MOST / PART);
        assert!(relays.open(by(1001)).is_ok());
        assert!(relays.closed(1, 0).is_empty());
        assert!(relays.open(by(1000)).is_ok(), "one that is closed counts for nobody");
    }

    #[test]
    fn a_connection_is_forgotten_when_both_ends_know_of_its_end() {
        let mut relays = Relays::new(MANY);
        relays.came(&Relay::here(5));
        let (id, _) = relays.open(by(0)).expect("room");
        let mut ghostd = Relayed::accept(id);
        let last = ghostd.send(Bytes::from_static(b"bye"));
        assert!(matches!(relays.came(&last), Came::Bytes { .. }));
        let end = ghostd.close().expect("an end");
        assert!(matches!(relays.came(&end), Came::Bytes { .. }));
        assert!(!relays.has_come_to_end(id));
        let ack = relays.taken(id, 3).expect("an end is acknowledged at once");
        ghostd.receive(&ack).expect("received");
        let frames = relays.closed(id, 0);
        assert!(frames.last().is_some_and(|frame| frame.end));
        for frame in &frames {
            ghostd.receive(frame).expect("received");
        }
        assert!(relays.is_known(id));
        let ack = ghostd.consume(0).expect("so is this");
        assert!(ghostd.is_over());
        relays.came(&ack);
        assert!(!relays.is_known(id));
    }
}

//! nodeagent between the two: what it does with the bytes of a session, by its own code. What it has in its hands dies with it.
//!
//! ```text
//! holder ── frames ──> [Splitter] ── pieces, control first ──> the network ── bytes ──> ghostd
//! ghostd ── frames, and some for nodeagent ──> [OwnFrames] ── bytes ──> holder
//! ```

use bytes::{Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{Data, Decoder, Frame, MAX_CONTROL};
use ghost_proto::node::{MasterToNode, NodeToMaster};
use ghost_proto::view::{MasterToAgent, Sample};
use nodeagent::link::own_frames::{OwnFrames, Piece};
use nodeagent::link::splitter::Splitter;

use super::super::super::LinkId;
use super::network::Channel;
use super::world::{Happening, World};

/// One end of a connection, where bytes become frames.
struct End {
    decoder: Decoder,
    input: BytesMut,
}

impl End {
    fn new() -> End {
        End { decoder: Decoder::new(MAX_CONTROL), input: BytesMut::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.input.extend_from_slice(bytes);
        std::iter::from_fn(|| self.decoder.next(&mut self.input).expect("frames are what they were")).collect()
    }
}

/// A session of nodeagent, and the two ends that it lies between.
pub struct Relay {
    up: Splitter,
    sending: bool,
    master: End,
    own: OwnFrames,
    down: BytesMut,
    holder: End,
    /// Requests of the view that were put among the frames, and that came out.
    asked: u64,
    answered: u64,
}

impl Relay {
    pub fn new() -> Relay {
        Relay {
            up: Splitter::default(),
            sending: false,
            master: End::new(),
            own: OwnFrames::default(),
            down: BytesMut::new(),
            holder: End::new(),
            asked: 0,
            answered: 0,
        }
    }

    /// Bytes that it has in its hands for the master.
    pub fn waiting(&self) -> usize {
        self.up.waiting()
    }

    /// It is gone, or has nobody to send to: what has not gone out does not.
    pub fn stop(&mut self) {
        self.up = Splitter::default();
    }
}

impl World {
    /// The holder has written to its nodeagent.
    fn relay_up(&mut self, link: LinkId, bytes: &[u8]) {
        let delay = self.random.micros(300);
        let Some(relay) = self.relays.get_mut(&link) else { return };
        relay.up.input.extend_from_slice(bytes);
        relay.up.cut().expect("the holder speaks the protocol");
        if !std::mem::replace(&mut relay.sending, true) {
            self.after(delay, Happening::AgentSends(link));
        }
    }

    pub fn node_says(&mut self, number: usize, message: &NodeToMaster) {
        if let Some(link) = self.nodes[number].link {
            self.relay_up(link, &message.clone().to_frame());
        }
    }

    pub fn node_sends(&mut self, number: usize, data: &Data) {
        if let Some(link) = self.nodes[number].link {
            let mut bytes = BytesMut::new();
            data.encode(&mut bytes);
            self.relay_up(link, &bytes);
        }
    }

    /// The network has taken what nodeagent gave it last.
    pub fn agent_sends(&mut self, link: LinkId) {
        let (cut, delay) = (self.random.below(200_000) as usize, self.random.micros(2_000));
        let Some(relay) = self.relays.get_mut(&link) else { return };
        let Some(mut piece) = relay.up.next_piece() else {
            relay.sending = false;
            return;
        };
        if cut < piece.len() {
            let rest = piece.split_off(cut);
            self.send(Channel::FromNode(link), Happening::FromNode(link, piece));
            piece = rest;
        }
        self.send(Channel::FromNode(link), Happening::FromNode(link, piece));
        self.after(delay, Happening::AgentSends(link));
    }

    /// Bytes have arrived at ghostd.
    pub fn master_reads(&mut self, link: LinkId, bytes: &Bytes) {
        if self.reaches_master(link).is_none() {
            return;
        }
        let Some(relay) = self.relays.get_mut(&link) else { return };
        for frame in relay.master.take(bytes) {
            match frame {
                Frame::Control(body) => {
                    if let Some(message) = NodeToMaster::decode_body(body).expect("a message") {
                        self.master_hears(link, message);
                    }
                }
                Frame::Data(data) => self.master_receives(link, data),
                other => panic!("nodeagent has passed on {other:?}"),
            }
        }
    }

    /// A message of ghostd has arrived at nodeagent, sometimes with one for nodeagent itself behind it.
    pub fn node_hears(&mut self, link: LinkId, message: &MasterToNode) {
        let mut bytes = BytesMut::from(&message.clone().to_frame()[..]);
        if self.random.percent(10)
            && let Some(relay) = self.relays.get_mut(&link)
        {
            relay.asked += 1;
            bytes
                .extend_from_slice(&MasterToAgent::Sample(Sample { seq: relay.asked, ..Sample::default() }).to_frame());
        }
        self.relay_down(link, &bytes);
    }

    pub fn node_receives(&mut self, link: LinkId, data: &Data) {
        let mut bytes = BytesMut::new();
        data.encode(&mut bytes);
        self.relay_down(link, &bytes);
    }

    fn relay_down(&mut self, link: LinkId, bytes: &[u8]) {
        let cut = self.random.below(2 * bytes.len() as u64) as usize;
        if self.reaches_node(link).is_none() {
            return;
        }
        let (first, rest) = bytes.split_at(cut.min(bytes.len()));
        for part in [first, rest] {
            let Some(relay) = self.relays.get_mut(&link) else { return };
            relay.down.extend_from_slice(part);
            let mut frames = Vec::new();
            while let Some(piece) = relay.own.next(&mut relay.down).expect("ghostd speaks the protocol") {
                match piece {
                    Piece::Holder(bytes) => frames.extend(relay.holder.take(&bytes)),
                    Piece::Own(MasterToAgent::Sample(sample)) => {
                        relay.answered += 1;
                        assert_eq!(sample.seq, relay.answered, "what is for nodeagent itself comes once and in order");
                    }
                    Piece::Own(other) => panic!("nobody has sent {other:?}"),
                }
            }
            for frame in frames {
                self.holder_reads(link, frame);
            }
        }
    }

    fn holder_reads(&mut self, link: LinkId, frame: Frame) {
        match frame {
            Frame::Control(body) => {
                if let Some(message) = MasterToNode::decode_body(body).expect("a message") {
                    self.holder_hears(link, message);
                }
            }
            Frame::Data(data) => self.holder_receives(link, data),
            other => panic!("nodeagent has passed on {other:?}"),
        }
    }
}

//! The next version talks to this one, both ways: it has a field more in some messages of every direction, and a message more in
//! each. Here it is nothing but structs of its own with the same tags.

use bytes::{BufMut, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{self, ClientToMaster, MasterToClient};
use ghost_proto::frame::{Data, Decoder, Frame, MAX_CONTROL};
use ghost_proto::join::{self, JoinToMaster, JoinToNode};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::node::{self, MasterToNode, NodeToMaster};
use ghost_proto::view::{self, AgentToMaster, MasterToAgent};
use prost::Message;

/// What the next version adds to a message: the old one, as far as it goes, and fields that only it knows. `Default` of them is
/// what it takes an old sender to mean.
mod next {
    use bytes::Bytes;

    /// The message that is new in every direction.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Migrate {
        #[prost(fixed64, tag = "1")]
        pub proc: u64,
        #[prost(bytes = "bytes", tag = "2")]
        pub image: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Extra {
        #[prost(string, repeated, tag = "1")]
        pub words: Vec<String>,
    }

    /// client::Hello.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Hello {
        #[prost(uint32, tag = "1")]
        pub version: u32,
        #[prost(string, repeated, tag = "2")]
        pub features: Vec<String>,
        #[prost(string, tag = "3")]
        pub program: String,
        #[prost(message, optional, tag = "100")]
        pub extra: Option<Extra>,
    }

    /// ProgramSpec, of which only a part interests here.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ProgramSpec {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub argv: Vec<Bytes>,
        #[prost(int32, repeated, tag = "11")]
        pub stdio: Vec<i32>,
        #[prost(double, tag = "100")]
        pub weight: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Launch {
        #[prost(string, tag = "1")]
        pub nodes: String,
        #[prost(message, optional, tag = "2")]
        pub program: Option<ProgramSpec>,
        #[prost(bool, tag = "100")]
        pub everywhere: bool,
    }

    /// client::Ended.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ClientEnded {
        #[prost(uint32, tag = "1")]
        pub rank: u32,
        #[prost(sint32, tag = "2")]
        pub status: i32,
        #[prost(bool, tag = "3")]
        pub lost: bool,
        #[prost(uint64, tag = "100")]
        pub energy: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Lease {
        #[prost(uint64, tag = "1")]
        pub seq: u64,
        #[prost(bytes = "bytes", tag = "100")]
        pub proof: Bytes,
    }

    /// node::Renice.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Renice {
        #[prost(fixed64, tag = "1")]
        pub proc: u64,
        #[prost(sint32, tag = "2")]
        pub nice: i32,
        #[prost(uint32, tag = "100")]
        pub tid: u32,
    }

    /// view::Sample.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(uint64, tag = "1")]
        pub seq: u64,
        #[prost(string, repeated, tag = "3")]
        pub files: Vec<String>,
        #[prost(uint64, tag = "100")]
        pub since: u64,
    }

    /// view::Figures.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Figures {
        #[prost(uint64, tag = "1")]
        pub seq: u64,
        #[prost(bool, tag = "2")]
        pub last: bool,
        #[prost(uint32, tag = "5")]
        pub page_size: u32,
        #[prost(uint64, tag = "100")]
        pub took_us: u64,
    }

    /// node::Started.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Started {
        #[prost(fixed64, tag = "1")]
        pub proc: u64,
        #[prost(uint32, tag = "2")]
        pub pid: u32,
        #[prost(uint32, tag = "3")]
        pub cwd_errno: u32,
        #[prost(uint32, tag = "4")]
        pub pgid: u32,
        #[prost(uint32, tag = "5")]
        pub sid: u32,
        #[prost(string, tag = "100")]
        pub cgroup: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct JoinRequest {
        #[prost(uint32, tag = "1")]
        pub version: u32,
        #[prost(string, tag = "5")]
        pub hostname: String,
        #[prost(string, tag = "100")]
        pub serial_number: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct JoinRefused {
        #[prost(string, tag = "1")]
        pub text: String,
        #[prost(uint32, tag = "100")]
        pub retry_s: u32,
    }

    /// A direction with one of its old messages, grown, and the new one.
    macro_rules! direction {
        ($module:ident, $known:ident, $tag:literal) => {
            pub mod $module {
                #[derive(Clone, PartialEq, prost::Message)]
                pub struct Envelope {
                    #[prost(oneof = "Body", tags = $tag)]
                    pub body: Option<Body>,
                    #[prost(message, optional, tag = "1000")]
                    pub migrate: Option<super::Migrate>,
                }

                #[derive(Clone, PartialEq, prost::Oneof)]
                pub enum Body {
                    #[prost(message, tag = $tag)]
                    Known(super::$known),
                }

                /// What the next version sends.
                pub fn known(message: super::$known) -> Envelope {
                    Envelope { body: Some(Body::Known(message)), migrate: None }
                }

                pub fn new_message() -> Envelope {
                    let migrate = super::Migrate { proc: 5, image: "core".into() };
                    Envelope { body: None, migrate: Some(migrate) }
                }
            }
        };
    }

    direction!(hello_to_master, Hello, "1");
    direction!(launch_to_master, Launch, "2");
    direction!(to_client, ClientEnded, "8");
    direction!(to_node, Lease, "2");
    direction!(renice_to_node, Renice, "10");
    direction!(from_node, Started, "3");
    direction!(to_agent, Sample, "1");
    direction!(from_agent, Figures, "1");
    direction!(join_to_master, JoinRequest, "1");
    direction!(join_to_node, JoinRefused, "2");
}

/// A control frame as the next version writes it; it uses the spare bytes of the header, too.
fn frame(envelope: &impl Message) -> Bytes {
    frame_of_kind(0, envelope)
}

/// The same for nodeagent itself, or from it.
fn agent_frame(envelope: &impl Message) -> Bytes {
    frame_of_kind(16, envelope)
}

fn frame_of_kind(kind: u8, envelope: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(envelope.encoded_len() as u32);
    out.put_slice(&[kind, 1, 2, 3]);
    envelope.encode(&mut out).expect("a BytesMut grows");
    out.freeze()
}

/// A frame of a kind that this version does not have.
fn frame_of_new_kind(length: usize) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(length as u32);
    out.put_slice(&[7, 0, 0, 0]);
    out.put_bytes(0xee, length);
    out.freeze()
}

/// What this version's reader makes of a conversation, however it is cut to pieces.
fn heard<M: Control>(frames: &[Bytes], piece: usize) -> (Vec<M>, Vec<Data>) {
    let wire: Vec<u8> = frames.iter().flatten().copied().collect();
    let (mut decoder, mut input) = (Decoder::new(MAX_CONTROL), BytesMut::new());
    let (mut messages, mut pieces) = (Vec::new(), Vec::new());
    for bytes in wire.chunks(piece) {
        input.extend_from_slice(bytes);
        while let Some(frame) = decoder.next(&mut input).expect("a later version keeps the frames") {
            match frame {
                Frame::Control(body) | Frame::Agent(body) => {
                    messages.extend(M::decode_body(body).expect("a later version keeps the envelope"))
                }
                Frame::Data(data) => pieces.push(data),
                Frame::Placed(_) | Frame::Offer(_) | Frame::Relay(_) => panic!("this link has none"),
            }
        }
    }
    assert!(input.is_empty());
    (messages, pieces)
}

/// The body of this version's message, as the next version reads it.
fn as_next<E: Message + Default>(message: impl Control) -> E {
    let mut input = BytesMut::from(message.to_frame().as_ref());
    let Ok(Some(Frame::Control(body) | Frame::Agent(body))) = Decoder::new(MAX_CONTROL).next(&mut input) else {
        panic!("a control frame")
    };
    E::decode(body).expect("the next version reads what this one writes")
}

#[test]
fn a_newer_command_is_understood() {
    use next::{hello_to_master, launch_to_master};
    let hello = next::Hello {
        version: 2,
        features: vec!["migrate".into(), "tty".into()],
        program: "bpsh 2.0".into(),
        extra: Some(next::Extra { words: vec!["to whom it may concern".into()] }),
    };
    let program = next::ProgramSpec { argv: vec!["true".into()], stdio: vec![1, 1, 77], weight: 0.5 };
    let launch = next::Launch { nodes: "0".into(), program: Some(program), everywhere: true };
    let mut data = BytesMut::new();
    let sent = Data { id: 1, offset: 0, fd: 0, eof: true, bytes: "input".into() };
    sent.encode(&mut data);
    // Flags and spare bytes that this version does not know.
    data[8 + 17] |= 0x80;
    data[8 + 20] = 0xff;
    let frames = [
        frame(&hello_to_master::known(hello)),
        frame(&hello_to_master::new_message()),
        frame(&launch_to_master::new_message()),
        frame_of_new_kind(3_000),
        frame(&launch_to_master::known(launch)),
        data.freeze(),
        ClientToMaster::NoGhost(client::NoGhost { rank: 0, errno: 11 }).to_frame(),
    ];
    for piece in [1, 7, 4096, 100_000] {
        let (messages, pieces) = heard::<ClientToMaster>(&frames, piece);
        let [ClientToMaster::Hello(hello), ClientToMaster::Launch(launch), ClientToMaster::NoGhost(_)] = &messages[..]
        else {
            panic!("{messages:?}")
        };
        assert_eq!((hello.version, hello.program.as_str()), (2, "bpsh 2.0"));
        // Both use what both have.
        let ours: Vec<&String> = hello.features.iter().filter(|f| *f == "tty").collect();
        assert_eq!(ours, ["tty"]);
        let program = launch.program.as_ref().expect("a program");
        assert_eq!((program.argv.len(), program.descriptor(1)), (1, Stdio::Stream));
        assert_eq!(program.descriptor(2), Stdio::Null, "a kind of descriptor that is not known here");
        assert_eq!(pieces, std::slice::from_ref(&sent));
    }
}

#[test]
fn an_older_command_is_understood() {
    let hello = client::Hello { version: 1, features: vec!["tty".into()], program: "bpsh 0.1.0".into() };
    let read: next::hello_to_master::Envelope = as_next(ClientToMaster::Hello(hello));
    let expected = next::Hello { version: 1, features: vec!["tty".into()], program: "bpsh 0.1.0".into(), extra: None };
    assert_eq!(read, next::hello_to_master::known(expected));
    let program = ProgramSpec { argv: vec!["true".into()], stdio: vec![1, 0], nice: 3, ..ProgramSpec::default() };
    let launch = client::Launch { nodes: "0".into(), program: Some(program), ..Default::default() };
    let read: next::launch_to_master::Envelope = as_next(ClientToMaster::Launch(launch));
    let program = next::ProgramSpec { argv: vec!["true".into()], stdio: vec![1, 0], weight: 0.0 };
    let expected = next::Launch { nodes: "0".into(), program: Some(program), everywhere: false };
    assert_eq!(read, next::launch_to_master::known(expected));
}

#[test]
fn master_and_command_of_two_versions() {
    let ended = next::ClientEnded { rank: 1, status: 256, lost: false, energy: 9_000 };
    let frames = [frame(&next::to_client::new_message()), frame(&next::to_client::known(ended))];
    let (messages, _) = heard::<MasterToClient>(&frames, 5);
    assert_eq!(messages, [MasterToClient::Ended(client::Ended { rank: 1, status: 256, lost: false, usage: None })]);
    let old = MasterToClient::Ended(client::Ended { rank: 1, status: 9, lost: true, usage: Some(Default::default()) });
    let read: next::to_client::Envelope = as_next(old);
    assert_eq!(read, next::to_client::known(next::ClientEnded { rank: 1, status: 9, lost: true, energy: 0 }));
}

#[test]
fn master_and_node_of_two_versions() {
    let lease = next::Lease { seq: 4, proof: Bytes::from_static(b"signed") };
    let frames = [frame(&next::to_node::known(lease)), frame(&next::to_node::new_message())];
    assert_eq!(heard::<MasterToNode>(&frames, 3).0, [MasterToNode::Lease(node::Lease { seq: 4, second: false })]);
    let read: next::to_node::Envelope = as_next(MasterToNode::Lease(node::Lease { seq: 5, second: true }));
    assert_eq!(read, next::to_node::known(next::Lease { seq: 5, proof: Bytes::new() }));

    let renice = next::Renice { proc: 9, nice: -5, tid: 8 };
    let frames = [frame(&next::renice_to_node::new_message()), frame(&next::renice_to_node::known(renice))];
    assert_eq!(heard::<MasterToNode>(&frames, 3).0, [MasterToNode::Renice(node::Renice { proc: 9, nice: -5 })]);
    let read: next::renice_to_node::Envelope = as_next(MasterToNode::Renice(node::Renice { proc: 9, nice: 19 }));
    assert_eq!(read, next::renice_to_node::known(next::Renice { proc: 9, nice: 19, tid: 0 }));

    let started = next::Started { proc: 9, pid: 8, cwd_errno: 0, pgid: 7, sid: 0, cgroup: "/launch-1".into() };
    let frames = [frame(&next::from_node::known(started)), frame(&next::from_node::new_message())];
    let expected = node::Started { proc: 9, pid: 8, cwd_errno: 0, pgid: 7, sid: 0 };
    assert_eq!(heard::<NodeToMaster>(&frames, 3).0, [NodeToMaster::Started(expected.clone())]);
    let read: next::from_node::Envelope = as_next(NodeToMaster::Started(expected));
    let expected = next::Started { proc: 9, pid: 8, cwd_errno: 0, pgid: 7, sid: 0, cgroup: String::new() };
    assert_eq!(read, next::from_node::known(expected));
}

#[test]
fn master_and_agent_of_two_versions() {
    let files = vec!["stat".to_owned(), "a-new-kind/of-file".to_owned()];
    let sample = next::Sample { seq: 4, files: files.clone(), since: 3 };
    let frames = [agent_frame(&next::to_agent::new_message()), agent_frame(&next::to_agent::known(sample))];
    let expected = view::Sample { seq: 4, processes: Vec::new(), files: files.clone() };
    assert_eq!(heard::<MasterToAgent>(&frames, 3).0, [MasterToAgent::Sample(expected.clone())]);
    let read: next::to_agent::Envelope = as_next(MasterToAgent::Sample(expected));
    assert_eq!(read, next::to_agent::known(next::Sample { seq: 4, files, since: 0 }));

    let figures = next::Figures { seq: 4, last: true, page_size: 65_536, took_us: 700 };
    let frames = [agent_frame(&next::from_agent::known(figures)), agent_frame(&next::from_agent::new_message())];
    let expected = view::Figures { seq: 4, last: true, page_size: 65_536, ..view::Figures::default() };
    assert_eq!(heard::<AgentToMaster>(&frames, 3).0, [AgentToMaster::Figures(expected.clone())]);
    let read: next::from_agent::Envelope = as_next(AgentToMaster::Figures(expected));
    assert_eq!(read, next::from_agent::known(next::Figures { seq: 4, last: true, page_size: 65_536, took_us: 0 }));
}

#[test]
fn joining_across_versions() {
    let request = next::JoinRequest { version: 2, hostname: "n0".into(), serial_number: "X1".into() };
    let frames = [frame(&next::join_to_master::known(request)), frame(&next::join_to_master::new_message())];
    let (messages, _) = heard::<JoinToMaster>(&frames, 9);
    let expected = join::JoinRequest { version: 2, hostname: "n0".into(), ..join::JoinRequest::default() };
    assert_eq!(messages, [JoinToMaster::Request(expected.clone())]);
    let read: next::join_to_master::Envelope = as_next(JoinToMaster::Request(expected));
    let expected = next::JoinRequest { version: 2, hostname: "n0".into(), serial_number: String::new() };
    assert_eq!(read, next::join_to_master::known(expected));

    let refused = next::JoinRefused { text: "later".into(), retry_s: 60 };
    let frames = [frame(&next::join_to_node::new_message()), frame(&next::join_to_node::known(refused))];
    let expected = join::JoinRefused { text: "later".into() };
    assert_eq!(heard::<JoinToNode>(&frames, 9).0, [JoinToNode::Refused(expected.clone())]);
    let read: next::join_to_node::Envelope = as_next(JoinToNode::Refused(expected));
    assert_eq!(read, next::join_to_node::known(next::JoinRefused { text: "later".into(), retry_s: 0 }));
}

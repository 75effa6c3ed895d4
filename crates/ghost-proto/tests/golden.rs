//! The bytes of every message of every direction, compared with files: what a released version has sent is read for ever.
//!
//! `GHOSTPROC_GOLDEN=write cargo test -p ghost-proto --test golden` writes the files anew. A line that was there may not change
//! then; a new message or field adds one.

use std::fmt::{Debug, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{self, Admin, ClientToMaster, MasterToClient, StartStage};
use ghost_proto::examine;
use ghost_proto::frame::{ALL_RANKS, Data, Decoder, Frame, MAX_CONTROL, Offer, Placed};
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::join::{self, JoinToMaster, JoinToNode};
use ghost_proto::launch::{Credentials, Limit, ProgramSpec, Stdio};
use ghost_proto::metrics;
use ghost_proto::node::{self, MasterToNode, NodeToMaster, Scope};
use ghost_proto::relay::{Kind, Opening, Relay};
use ghost_proto::standin;
use ghost_proto::status::Usage;
use ghost_proto::terminal;
use ghost_proto::tree;
use ghost_proto::view::{self, AgentToMaster, MasterToAgent};

fn program() -> ProgramSpec {
    ProgramSpec {
        argv: vec!["/bin/sort".into(), Bytes::from_static(b"\xff\x01"), Bytes::new()],
        env: vec!["PATH=/usr/bin:/bin".into(), "EMPTY=".into()],
        cwd: "/home/user".into(),
        umask: 0o027,
        limits: vec![Limit { resource: 7, soft: 1024, hard: u64::MAX }, Limit { resource: 3, soft: 0, hard: 1 }],
        nice: -5,
        sched_policy: 2,
        sched_priority: 50,
        ignored: 1 << 12,
        blocked: 1 << 63 | 1,
        stdio: vec![Stdio::Stream as i32, Stdio::Stream as i32, Stdio::Null as i32],
        ..Default::default()
    }
}

fn size() -> terminal::Size {
    terminal::Size { rows: 24, columns: 80, width: 640, height: 65_535 }
}

fn in_a_terminal() -> client::Launch {
    let modes =
        terminal::Modes { input: 0x500, output: 5, control: 0xbf, local: 0x8a3b, characters: "\x03\x1c\x7f".into() };
    let terminal = terminal::Terminal { size: Some(size()), modes: Some(modes) };
    let program = ProgramSpec { terminal: Some(Box::new(terminal)), ..ProgramSpec::default() };
    client::Launch { nodes: "3".into(), program: Some(program), plain: true }
}

fn usage() -> Usage {
    Usage { user_us: 1_500_000, system_us: 250, max_rss_kib: 4096 }
}

fn hello() -> client::Hello {
    client::Hello { version: 1, features: vec!["tty".into(), "view".into()], program: "bpsh 0.1.0".into() }
}

fn standing() -> tree::Standing {
    tree::Standing { pgid: 4000, sid: 1, uid: 1000, gid: 100, comm: Bytes::from_static(b"sort") }
}

fn nodes(list: &str) -> client::NodeRequest {
    client::NodeRequest { nodes: list.into() }
}

/// A sample's name: the variant's, and what distinguishes it from others of its variant.
type Samples<M> = Vec<(&'static str, M)>;

fn client_to_master() -> Samples<ClientToMaster> {
    let admin = |admin| ClientToMaster::Admin(client::AdminRequest { admin: Some(admin) });
    let change = |change| ClientToMaster::Change(client::Change { nodes: "0-3".into(), change: Some(change) });
    let resume = client::Resume {
        launch: 7,
        stdio: vec![1, 1, 0],
        stdin: 100,
        ranks: vec![client::ResumedRank {
            node: 3,
            over: true,
            reads: true,
            outputs: vec![client::ResumedOutput { received: 6, consumed: 4, done: true }],
            taken: 120,
        }],
        sent: 300,
    };
    vec![
        ("Hello", ClientToMaster::Hello(hello())),
        (
            "Launch",
            ClientToMaster::Launch(client::Launch { nodes: "0,2-3".into(), program: Some(program()), plain: true }),
        ),
        ("Launch empty", ClientToMaster::Launch(client::Launch::default())),
        ("Ack", ClientToMaster::Ack(client::Ack { rank: 3, fd: 2, offset: 1 << 40 })),
        ("CloseStream", ClientToMaster::CloseStream(client::CloseStream { rank: 3, fd: 1 })),
        ("NoGhost", ClientToMaster::NoGhost(client::NoGhost { rank: 1, errno: 11 })),
        ("Nodes", ClientToMaster::Nodes(client::NodesRequest { nodes: "up".into(), ..Default::default() })),
        ("Processes", ClientToMaster::Processes(client::ProcessesRequest {})),
        ("Admin none", ClientToMaster::Admin(client::AdminRequest { admin: None })),
        ("Admin Token", admin(Admin::Token(client::TokenRequest { nodes: "0-63".into(), uses: 5, expires_s: 3600 }))),
        ("Admin AddNodes", admin(Admin::AddNodes(nodes("4")))),
        ("Admin RemoveNodes", admin(Admin::RemoveNodes(nodes("5")))),
        ("Admin RevokeNodes", admin(Admin::RevokeNodes(nodes("6")))),
        ("Admin View", admin(Admin::View(client::ViewRequest { on: true }))),
        ("Admin Handover", admin(Admin::Handover(client::HandoverRequest {}))),
        ("Admin Examine", admin(Admin::Examine(client::ExamineRequest {}))),
        ("Admin ReplaceNodes", admin(Admin::ReplaceNodes(nodes("7")))),
        ("GhostDied", ClientToMaster::GhostDied(client::GhostDied { rank: 2, status: 9 })),
        ("Resume", ClientToMaster::Resume(resume)),
        ("Noted", ClientToMaster::Noted(client::Noted { rank: 3 })),
        ("Terminate", ClientToMaster::Terminate(client::Terminate {})),
        ("Reach", ClientToMaster::Reach(client::Reach { arguments: vec!["--receive".into(), "/tmp".into()] })),
        ("MakeGhost", ClientToMaster::MakeGhost(client::MakeGhost { rank: 3 })),
        ("SignalRanks", ClientToMaster::SignalRanks(client::SignalRanks { rank: Some(0), signal: 15 })),
        ("SignalRanks all", ClientToMaster::SignalRanks(client::SignalRanks { rank: None, signal: 10 })),
        ("Change State", change(client::NodeChange::State("unavailable".into()))),
        ("Change Mode", change(client::NodeChange::Mode(client::Setting { value: Some(0o110) }))),
        ("Change Mode back", change(client::NodeChange::Mode(client::Setting { value: None }))),
        ("Change Owner", change(client::NodeChange::Owner(client::Setting { value: Some(0) }))),
        ("Change Group", change(client::NodeChange::Group(client::Setting { value: Some(100) }))),
        ("Change Root", change(client::NodeChange::Root("/srv/image".into()))),
        ("Watch", ClientToMaster::Watch(client::Watch { nodes: "0-3".into() })),
        ("Launch in a terminal", ClientToMaster::Launch(in_a_terminal())),
        ("Resize", ClientToMaster::Resize(terminal::ResizeRank { rank: 0, size: Some(size()) })),
        ("Metrics", ClientToMaster::Metrics(metrics::MetricsRequest {})),
    ]
}

fn master_to_client() -> Samples<MasterToClient> {
    let ranks = vec![
        client::RankPlan { node: 0, ..Default::default() },
        client::RankPlan { node: -1, reason: "Operation not permitted".into(), ..Default::default() },
    ];
    let info = client::NodeInfo {
        node: 3,
        status: "down".into(),
        mode: 0o111,
        uid: 0,
        gid: 10,
        address: "10.0.0.3".into(),
        hostname: "n3".into(),
        reason: "never joined".into(),
        ..Default::default()
    };
    let loaded = client::NodeInfo {
        root: "/srv".into(),
        load_centi: 150,
        mem_available_kib: 1 << 20,
        mem_total_kib: 1 << 24,
        processes: 12,
        ..info.clone()
    };
    let failed = client::StartFailed { rank: 1, stage: StartStage::Exec as i32, errno: 2, text: "not there".into() };
    vec![
        ("Hello", MasterToClient::Hello(hello())),
        ("Refused", MasterToClient::Refused(client::Refused { text: "no such node".into(), position: Some(0) })),
        ("Refused nowhere", MasterToClient::Refused(client::Refused { text: "not root".into(), position: None })),
        (
            "Launched",
            MasterToClient::Launched(client::Launched { launch: 77, ranks, window: 524_288, makes_ghosts: false }),
        ),
        (
            "Launched from a node",
            MasterToClient::Launched(client::Launched { launch: 77, makes_ghosts: true, ..Default::default() }),
        ),
        ("Started", MasterToClient::Started(client::Started { rank: 1, pid: 4_194_303, cwd_errno: 2 })),
        ("StartFailed", MasterToClient::StartFailed(failed)),
        ("Ack", MasterToClient::Ack(client::Ack { rank: 0, fd: 0, offset: 4096 })),
        ("StdinGone", MasterToClient::StdinGone(client::StdinGone { rank: 2 })),
        ("Ended", MasterToClient::Ended(client::Ended { rank: 2, status: 3 << 8, lost: false, usage: Some(usage()) })),
        ("Ended lost", MasterToClient::Ended(client::Ended { rank: 0, status: 9, lost: true, usage: None })),
        ("Nodes", MasterToClient::Nodes(client::NodesReply { nodes: vec![info] })),
        ("Nodes with figures", MasterToClient::Nodes(client::NodesReply { nodes: vec![loaded] })),
        (
            "Processes",
            MasterToClient::Processes(client::ProcessesReply {
                processes: vec![client::ProcessInfo { pid: 300, node: 3, node_pid: 301, uid: 1000 }],
            }),
        ),
        ("Reap", MasterToClient::Reap(client::Reap { pid: 300 })),
        ("Resumed", MasterToClient::Resumed(client::Resumed { window: 65_536 })),
        ("Reached", MasterToClient::Reached(client::Reached {})),
        (
            "Serve",
            MasterToClient::Serve(client::Serve { arguments: vec!["--send".into(), Bytes::from_static(b"\xff")] }),
        ),
        ("RankStopped", MasterToClient::RankStopped(client::RankStopped { rank: 1, signal: 20 })),
        ("RankContinued", MasterToClient::RankContinued(client::RankContinued { rank: 1 })),
        ("Changed", {
            let failures = vec![client::NodeFailure { node: 3, text: "Operation not permitted".into() }];
            MasterToClient::Changed(client::Changed { failures })
        }),
        ("Metrics", MasterToClient::Metrics(metrics::MetricsReply { text: "# TYPE a counter\na 1\n".into() })),
        (
            "Admin",
            MasterToClient::Admin(client::AdminReply {
                lines: vec!["gp1-token".into(), String::new()],
                examination: None,
            }),
        ),
        (
            "Admin examination",
            MasterToClient::Admin(client::AdminReply {
                lines: Vec::new(),
                examination: Some(examine::Examination {
                    hosts: vec![examine::Host {
                        node: -1,
                        name: "head".into(),
                        release: "0.1.0".into(),
                        kernel: "6.12.57".into(),
                        findings: vec![examine::Finding { gravity: 2, what: "root".into(), found: "not".into() }],
                    }],
                }),
            }),
        ),
    ]
}

fn original(pid: u32, comm: &'static str) -> standin::Original {
    standin::Original { pid, uid: 1000, comm: comm.into() }
}

fn master_to_node() -> Samples<MasterToNode> {
    let spawn = node::Spawn {
        proc: 9,
        launch: 7,
        rank: 1,
        ranks: 4,
        pid: 1234,
        credentials: Some(Credentials { uid: 1000, gid: 1000, groups: vec![1000, 27, 65_534] }),
        program: Some(program()),
        window: 16_384,
        origin: Some(Box::new(standin::Origin {
            parent: original(1200, "bpsh"),
            group: original(1199, "sort"),
            session: original(800, "bash"),
        })),
        root: None,
    };
    let rooted = node::Spawn { root: Some(Box::new(node::Root { path: "/srv/image".into() })), ..spawn.clone() };
    let others = vec![standin::Other { pid: 1235, rank: 0 }, standin::Other { pid: 1236, rank: 2 }];
    let signal = node::Signal {
        proc: 9,
        seq: 12,
        signal: 34,
        scope: Scope::Group as i32,
        value: u64::MAX - 1,
        sender_pid: 500,
        sender_uid: 1000,
        sender_euid: 0,
        privileged: true,
        code: -1,
        confirm: true,
        ..node::Signal::default()
    };
    let named = node::Signal { group: 501, settled: 11, ..signal.clone() };
    let welcome =
        node::Welcome { version: 1, features: vec!["x".into()], epoch: 0xfeed_0001, node: 3, lease_ms: 15_000 };
    vec![
        ("Welcome", MasterToNode::Welcome(welcome)),
        ("Lease", MasterToNode::Lease(node::Lease { seq: 300, second: false })),
        ("Lease, second of a pair", MasterToNode::Lease(node::Lease { seq: 301, second: true })),
        ("Spawn", MasterToNode::Spawn(spawn)),
        ("Spawn with a root", MasterToNode::Spawn(rooted)),
        ("Signal", MasterToNode::Signal(signal)),
        ("Signal, named", MasterToNode::Signal(named)),
        ("Ack", MasterToNode::Ack(node::Ack { proc: 9, fd: 1, offset: 65_536 })),
        ("CloseStream", MasterToNode::CloseStream(node::CloseStream { proc: 9, fd: 2 })),
        ("EndLaunch", MasterToNode::EndLaunch(node::EndLaunch { launch: 7, everything: true })),
        ("Forget", MasterToNode::Forget(node::Forget { proc: 9 })),
        ("EndAll", MasterToNode::EndAll(node::EndAll {})),
        ("Renice", MasterToNode::Renice(node::Renice { proc: 9, nice: -5 })),
        ("SentDone", MasterToNode::SentDone(standin::SentDone { seq: 300 })),
        ("Beside", MasterToNode::Beside(standin::Beside { launch: 7, others })),
        ("Resize", MasterToNode::Resize(terminal::Resize { proc: 9, size: Some(size()) })),
    ]
}

fn node_to_master() -> Samples<NodeToMaster> {
    let hello = node::NodeHello {
        version: 1,
        features: vec!["cgroup".into()],
        program: "ghostproc 0.1.0".into(),
        hostname: "n3".into(),
        epoch: 0xfeed_0001,
        holder: 0x1122_3344_5566_7788,
        processes: vec![
            node::HeldProcess { proc: 9, pid: 1234, ..Default::default() },
            node::HeldProcess { proc: 10, pid: 0, ..Default::default() },
        ],
    };
    let failed = node::StartFailed { proc: 9, stage: StartStage::Create as i32, errno: 11, text: String::new() };
    let lease = node::LeaseAck { seq: 300, load_centi: 150, mem_available_kib: 16_000_000, mem_total_kib: 0 };
    let figures = node::LeaseAck { mem_total_kib: 32_000_000, ..lease.clone() };
    vec![
        ("Hello", NodeToMaster::Hello(hello)),
        ("LeaseAck", NodeToMaster::LeaseAck(lease)),
        ("LeaseAck with figures", NodeToMaster::LeaseAck(figures)),
        ("Started", NodeToMaster::Started(node::Started { proc: 9, pid: 1234, cwd_errno: 13, pgid: 1199, sid: 1190 })),
        ("StartFailed", NodeToMaster::StartFailed(failed)),
        ("Stopped", NodeToMaster::Stopped(node::Stopped { proc: 9, signal: 20 })),
        ("Continued", NodeToMaster::Continued(node::Continued { proc: 9 })),
        ("Ended", NodeToMaster::Ended(node::Ended { proc: 9, status: 0x8b, usage: Some(usage()), heir: 8 })),
        ("Ack", NodeToMaster::Ack(node::Ack { proc: 9, fd: 0, offset: 10 })),
        ("StdinGone", NodeToMaster::StdinGone(node::StdinGone { proc: 9 })),
        ("SignalDone", NodeToMaster::SignalDone(node::SignalDone { proc: 9, seq: 12, errno: 1 })),
        (
            "Forked",
            NodeToMaster::Forked(tree::Forked {
                proc: tree::forked_id(NodeNumber(3), 7).0,
                parent: 9,
                launch: 8,
                pid: 1_050_000,
                standing: Some(standing()),
                creator: 0,
            }),
        ),
        ("Execed", NodeToMaster::Execed(tree::Execed { proc: 9, standing: Some(standing()) })),
        ("Reaped", NodeToMaster::Reaped(tree::Reaped { proc: 9 })),
        (
            "Sent",
            NodeToMaster::Sent(standin::Sent {
                proc: 9,
                target: 1200,
                group: true,
                signal: 34,
                code: -1,
                value: u64::MAX - 1,
                seq: 300,
                settled: 299,
            }),
        ),
        ("Renew", NodeToMaster::Renew(node::Renew { request: Bytes::from_static(b"\x30\x01") })),
    ]
}

fn master_to_agent() -> Samples<MasterToAgent> {
    let sample = view::Sample {
        seq: 7,
        processes: vec![view::Sampled { proc: 9, pid: 1234 }, view::Sampled { proc: 1 << 63 | 5, pid: 4_194_303 }],
        files: ["cmdline", "stat", "task/*/stat"].map(str::to_owned).to_vec(),
    };
    let part = view::ReadPart { reading: 1 << 40, proc: 9, pid: 1234, file: "maps".into(), offset: 1 << 33 };
    vec![
        ("Sample", MasterToAgent::Sample(sample)),
        ("Sample empty", MasterToAgent::Sample(view::Sample::default())),
        ("ReadPart", MasterToAgent::ReadPart(part)),
        ("ReadPart empty", MasterToAgent::ReadPart(view::ReadPart::default())),
        ("Power", MasterToAgent::Power(view::Power { seq: 5, state: "reboot".into() })),
        ("Examine", MasterToAgent::Examine(examine::Examine { seq: 9 })),
    ]
}

fn agent_to_master() -> Samples<AgentToMaster> {
    let finding = examine::Finding { gravity: 1, what: "process ids".into(), found: "up to 32768".into() };
    let examined = examine::Examined {
        seq: 9,
        release: "0.1.0".into(),
        kernel: "6.12.57".into(),
        wall_ms: 1_700_000_000_000,
        findings: vec![finding],
    };
    let file = |errno, content: &'static [u8]| view::FileFigures { errno, content: Bytes::from_static(content) };
    let process = view::ProcessFigures {
        proc: 9,
        owner: 1000,
        files: vec![file(0, b"sort\0big\0"), file(13, b"")],
        threads: vec![view::ThreadFigures { tid: 0, files: vec![file(0, b"1234 (sort) S\n")] }],
        more: false,
    };
    let more = view::ProcessFigures { more: true, ..process.clone() };
    let part = view::Part {
        reading: 1 << 40,
        proc: 9,
        offset: 1 << 33,
        owner: 1000,
        errno: 116,
        content: Bytes::from_static(b"7f00-7f01 r--p\n"),
        last: true,
    };
    let figures = view::Figures {
        seq: 7,
        last: true,
        processes: vec![process],
        files: ["cmdline", "exe", "task/*/stat"].map(str::to_owned).to_vec(),
        page_size: 4096,
    };
    vec![
        ("Figures", AgentToMaster::Figures(figures.clone())),
        ("Figures empty", AgentToMaster::Figures(view::Figures::default())),
        ("Figures with more threads to come", {
            AgentToMaster::Figures(view::Figures { last: false, processes: vec![more], ..figures })
        }),
        ("Part", AgentToMaster::Part(part)),
        ("Part empty", AgentToMaster::Part(view::Part::default())),
        ("PowerDone", AgentToMaster::PowerDone(view::PowerDone { seq: 5, error: "no such command".into() })),
        ("Examined", AgentToMaster::Examined(examined)),
    ]
}

fn join_to_master() -> Samples<JoinToMaster> {
    let request = |node| join::JoinRequest {
        version: 1,
        token_id: Bytes::from_static(&[1, 2, 3, 4]),
        token_secret: Bytes::from_static(&[0xaa; 16]),
        node,
        hostname: "n3".into(),
        request: Bytes::from_static(b"\x30\x00"),
    };
    vec![("Request", JoinToMaster::Request(request(None))), ("Request node 0", JoinToMaster::Request(request(Some(0))))]
}

fn join_to_node() -> Samples<JoinToNode> {
    let accepted = join::JoinAccepted {
        node: 3,
        certificate: Bytes::from_static(b"\x30\x01"),
        ca: Bytes::from_static(b"\x30\x02"),
        cluster: "ghostproc".into(),
    };
    vec![
        ("Accepted", JoinToNode::Accepted(accepted)),
        ("Refused", JoinToNode::Refused(join::JoinRefused { text: "the token has expired".into() })),
    ]
}

/// Names of a direction's variants, in the order of their tags; the match makes a new variant an error until it is here.
macro_rules! variants {
    ($direction:ident: $($variant:ident),+) => {{
        let _exhaustive = |message: &$direction| match message {
            $($direction::$variant(_) => (),)+
        };
        &[$(stringify!($variant)),+][..]
    }};
}

fn path(direction: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{direction}.txt"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        text.push_str("   ");
        for byte in line {
            let _ = write!(text, " {byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn unhex(block: &str) -> Vec<u8> {
    block.split_ascii_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a hexadecimal byte")).collect()
}

/// Compares with the file, or writes it.
fn compare(direction: &str, samples: &[(&'static str, Bytes)]) {
    let mut text = format!("{direction}: whole frames, in hexadecimal. Written by tests/golden.rs.\n");
    for (name, bytes) in samples {
        let _ = write!(text, "\n{name}:\n{}", hex(bytes));
    }
    let path = path(direction);
    if std::env::var("GHOSTPROC_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(golden, text, "the bytes of {direction} are not those of {}", path.display());
}

/// The frames that the file holds.
fn frames_of(direction: &str) -> Vec<Frame> {
    let text = std::fs::read_to_string(path(direction)).expect("the golden file is there");
    let mut decoder = Decoder::new(MAX_CONTROL);
    let blocks = text.split("\n\n").skip(1);
    let frames = blocks.map(|block| {
        let (name, bytes) = block.split_once(":\n").expect("a name and its bytes");
        let mut input = BytesMut::from(unhex(bytes).as_slice());
        let frame = decoder.next(&mut input).expect("a frame").unwrap_or_else(|| panic!("{name} is cut short"));
        assert!(input.is_empty(), "{name} has bytes behind its frame");
        frame
    });
    frames.collect()
}

fn check<M: Control + Clone + PartialEq + Debug>(direction: &str, variants: &[&str], samples: Samples<M>) {
    for variant in variants {
        assert!(
            samples.iter().any(|(name, _)| name.split(' ').next() == Some(variant)),
            "{direction} has no sample of {variant}"
        );
    }
    let encoded: Vec<(&str, Bytes)> = samples.iter().map(|(name, m)| (*name, m.clone().to_frame())).collect();
    compare(direction, &encoded);
    let decoded: Vec<M> = frames_of(direction)
        .into_iter()
        .map(|frame| {
            let (Frame::Control(body) | Frame::Agent(body)) = frame else { panic!("{direction} holds bulk data") };
            M::decode_body(body).expect("a message").expect("a known one")
        })
        .collect();
    assert_eq!(decoded, samples.into_iter().map(|(_, m)| m).collect::<Vec<_>>());
}

#[test]
fn client_to_master_bytes() {
    let variants = variants!(ClientToMaster: Hello, Launch, Ack, CloseStream, NoGhost, Nodes, Processes, Admin, GhostDied, Resume, Noted, Terminate,
        MakeGhost, SignalRanks, Reach, Change, Watch, Resize, Metrics);
    check("client_to_master", variants, client_to_master());
}

#[test]
fn master_to_client_bytes() {
    let variants = variants!(MasterToClient: Hello, Refused, Launched, Started, StartFailed, Ack, StdinGone, Ended, Nodes,
        Processes, Admin, Reap, Resumed, RankStopped, RankContinued,
        Reached, Serve, Changed, Metrics);
    check("master_to_client", variants, master_to_client());
}

#[test]
fn master_to_node_bytes() {
    let variants = variants!(MasterToNode: Welcome, Lease, Spawn, Signal, Ack, CloseStream, EndLaunch, Forget, EndAll, Renice, SentDone, Beside, Resize);
    check("master_to_node", variants, master_to_node());
}

#[test]
fn node_to_master_bytes() {
    let variants = variants!(NodeToMaster: Hello, LeaseAck, Started, StartFailed, Stopped, Continued, Ended, Ack, StdinGone,
        SignalDone, Forked, Execed, Reaped, Sent, Renew);
    check("node_to_master", variants, node_to_master());
}

#[test]
fn bytes_between_master_and_agent() {
    check("master_to_agent", variants!(MasterToAgent: Sample, ReadPart, Examine, Power), master_to_agent());
    check("agent_to_master", variants!(AgentToMaster: Figures, Part, Examined, PowerDone), agent_to_master());
}

#[test]
fn join_bytes() {
    check("join_to_master", variants!(JoinToMaster: Request), join_to_master());
    check("join_to_node", variants!(JoinToNode: Accepted, Refused), join_to_node());
}

#[test]
fn data_bytes() {
    let samples = [
        ("stdin to all ranks", Data { id: ALL_RANKS, offset: 0, fd: 0, eof: false, bytes: "in\n".into() }),
        ("stdout", Data { id: 9, offset: 1 << 33, fd: 1, eof: false, bytes: Bytes::from_static(b"\0\xff") }),
        ("end of stderr", Data { id: 9, offset: 5, fd: 2, eof: true, bytes: Bytes::new() }),
    ];
    let encoded: Vec<(&str, Bytes)> = samples
        .iter()
        .map(|(name, data)| {
            let mut out = BytesMut::new();
            data.encode(&mut out);
            (*name, out.freeze())
        })
        .collect();
    compare("data", &encoded);
    assert_eq!(frames_of("data"), samples.map(|(_, data)| Frame::Data(data)));
}

#[test]
fn placed_data_bytes() {
    let placed = Placed { id: 9, offset: 1 << 33, length: 131_072, fd: 1, ..Placed::default() };
    let samples = [
        ("offer", Frame::Offer(Offer { placed: true, fills: false })),
        ("offer_of_an_agent", Frame::Offer(Offer { placed: true, fills: true })),
        ("first in a ring", Frame::Placed(Placed { new_ring: true, ..placed })),
        ("end of stderr, and of its ring", {
            Frame::Placed(Placed { length: 0, fd: 2, eof: true, last_of_ring: true, ..placed })
        }),
    ];
    let encoded: Vec<(&str, Bytes)> = samples
        .iter()
        .map(|(name, frame)| {
            let mut out = BytesMut::new();
            match frame {
                Frame::Placed(placed) => placed.encode(&mut out),
                Frame::Offer(offer) => offer.encode(&mut out),
                Frame::Control(_) | Frame::Data(_) | Frame::Agent(_) | Frame::Relay(_) => {
                    panic!("{name} is in another file")
                }
            }
            (*name, out.freeze())
        })
        .collect();
    compare("placed", &encoded);
    assert_eq!(frames_of("placed"), samples.map(|(_, frame)| frame));
}

#[test]
fn relay_bytes() {
    let piece =
        Relay { id: 3, offset: 1 << 33, ack: 5, kind: Kind::Piece, end: false, bytes: Bytes::from_static(b"\0\xff") };
    let opening = Opening { process: ProcId(9), uid: 1000 };
    let samples = [
        ("ghostd is here", Relay::here(77)),
        ("a connection's first", Relay { kind: Kind::Open(opening), bytes: Bytes::new(), ..piece.clone() }),
        ("the end of one", Relay { end: true, bytes: Bytes::new(), ..piece.clone() }),
        ("a piece", piece),
    ];
    let encoded: Vec<(&str, Bytes)> = samples.iter().map(|(name, relay)| (*name, relay.to_frame())).collect();
    compare("relay", &encoded);
    assert_eq!(frames_of("relay"), samples.map(|(_, relay)| Frame::Relay(relay)));
}
